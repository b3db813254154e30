// @ts-check
/**
 * Runs in the audio thread: measures the loudness of the voice, 50 times a second. Only these three numbers come out;
 * they go to the encoder's worker by the port that the page sends, and so also while the page is hidden.
 */

import { VoiceBands } from "../motion/voice_mouth.js";

class VoiceMeter extends AudioWorkletProcessor {
  #bands = new VoiceBands(sampleRate);
  /** @type {MessagePort|null} */
  #out = null;
  #isClosed = false;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data === null) this.#isClosed = true;
      else this.#out = data;
    };
  }

  /**
   * @param {Float32Array[][]} inputs
   * @returns {boolean} whether the node goes on
   */
  process([channels]) {
    // Without a source there is no channel.
    for (const bandsDb of channels.length > 0 ? this.#bands.push(channels[0]) : []) this.#out?.postMessage(bandsDb);
    return !this.#isClosed;
  }
}

registerProcessor("mien-voice-meter", VoiceMeter);
