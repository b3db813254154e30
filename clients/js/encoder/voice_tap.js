// @ts-check
/** Leads the loudness of a microphone's track to the encoder's worker: no sound, three numbers 50 times a second. */

/** The browser cannot measure the voice; the mouth stays shut then. */
export class VoiceTapError extends Error {
  name = "VoiceTapError";
}

export class VoiceTap {
  #context = new AudioContext();
  /** @type {AudioWorkletNode|null} */
  #node = null;

  /**
   * Begin. A context that a browser does not start before the first click begins with that click.
   * @param {MediaStreamTrack} track stays the caller's
   * @param {MessagePort} port gets the measurements; transferred
   * @returns {Promise<void>}
   * @throws {VoiceTapError}
   */
  async open(track, port) {
    try {
      await this.#context.audioWorklet.addModule(new URL("./voice_worklet.js", import.meta.url));
      this.#node = new AudioWorkletNode(this.#context, "mien-voice-meter", { numberOfOutputs: 0, channelCount: 1 });
      this.#node.port.postMessage(port, [port]);
      this.#context.createMediaStreamSource(new MediaStream([track])).connect(this.#node);
    } catch (error) {
      this.close();
      throw new VoiceTapError(`the voice cannot be measured: ${error}`, { cause: error });
    }
    void this.#context.resume().catch(() => {});
  }

  close() {
    this.#node?.port.postMessage(null);
    if (this.#context.state !== "closed") void this.#context.close().catch(() => {});
  }
}
