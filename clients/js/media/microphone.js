// @ts-check
/** The microphone: its track, whether it is on, how loud it is, and whether it gives no sound. */

import { MediaDevicesError, openDevice } from "./devices.js";
import { LevelMeter } from "./level_meter.js";
import { SilenceWatch } from "./silence.js";

/**
 * onTrack: the track to send, null while the microphone is off. onSilent: it is on and gives no sound. onLost: it was
 * unplugged, or the system took it away; it is off now.
 * @typedef {{onTrack: (track: MediaStreamTrack|null) => void, onSilent: () => void,
 *   onLost: (error: MediaDevicesError) => void}} MicrophoneOptions
 */

export class Microphone {
  #options;
  /** @type {MediaStreamTrack|null} */
  #track = null;
  /** @type {LevelMeter|null} */
  #meter = null;
  #silence = new SilenceWatch();
  isOn = false;
  /** 0..1, while it is on */
  level = 0;

  /** @param {MicrophoneOptions} options */
  constructor(options) {
    this.#options = options;
  }

  get deviceId() {
    return this.#track?.getSettings().deviceId;
  }

  /**
   * Switch on, with another device if one is named.
   * @param {string} [deviceId]
   * @throws {MediaDevicesError}
   */
  async enable(deviceId) {
    if (this.#track?.readyState !== "live" || (deviceId !== undefined && deviceId !== this.deviceId)) {
      this.#replace(await openDevice("microphone", deviceId));
    }
    this.isOn = true;
    const track = /** @type {MediaStreamTrack} */ (this.#track);
    track.enabled = true;
    this.#silence.reset();
    this.#options.onTrack(track);
  }

  /** Nothing is sent from here on. The device stays open, so that it is on again at once. */
  disable() {
    this.isOn = false;
    this.level = 0;
    if (this.#track !== null) this.#track.enabled = false;
    this.#options.onTrack(null);
  }

  close() {
    this.disable();
    this.#track?.stop();
    this.#track = null;
    this.#meter?.close();
    this.#meter = null;
  }

  /** @param {MediaStreamTrack} track */
  #replace(track) {
    this.#track?.stop();
    this.#track = track;
    this.#meter ??= new LevelMeter((level, peak) => this.#hear(level, peak));
    this.#meter.follow(track);
    track.onended = () => {
      if (this.#track !== track) return;
      this.#track = null;
      this.disable();
      this.#options.onLost(new MediaDevicesError("not-found", "microphone", "the microphone was lost"));
    };
  }

  /**
   * @param {number} level
   * @param {number} peak
   */
  #hear(level, peak) {
    if (!this.isOn) return;
    this.level = level;
    if (this.#silence.push(peak, performance.now())) this.#options.onSilent();
  }
}
