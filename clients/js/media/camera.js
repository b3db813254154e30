// @ts-check
/** The camera: its track goes into the encoder's worker, and only packets of motion come out. */

import { MotionCapture } from "../encoder/capture.js";
import { MediaDevicesError, openDevice } from "./devices.js";

/**
 * onPacket: 128 bytes of motion, about 30 times a second while the camera is on. onLost: the camera was unplugged, or
 * the system took it away; it is off now. onError: the encoder failed.
 * @typedef {{onPacket: (packet: Uint8Array<ArrayBuffer>) => void, onLost: (error: MediaDevicesError) => void,
 *   onError: (error: Error) => void}} CameraOptions
 */

export class Camera {
  #options;
  /** @type {MediaStreamTrack|null} */
  #track = null;
  /** @type {MotionCapture|null} */
  #capture = null;
  /** @type {Float32Array|null} */
  #keypoints = null;
  isOn = false;
  /** Whether a face was seen in the last second. */
  seesFace = false;
  /** What the encoder takes a picture in its worker, milliseconds; 0 before the first second. */
  busyMs = 0;

  /** @param {CameraOptions} options */
  constructor(options) {
    this.#options = options;
  }

  get deviceId() {
    return this.#track?.getSettings().deviceId;
  }

  /**
   * Switch on, with another device if one is named.
   * @param {Float32Array} keypoints of the avatar that moves
   * @param {string} [deviceId]
   * @throws {MediaDevicesError}
   * @throws {import("../encoder/capture.js").CaptureError} the encoder cannot be loaded
   */
  async enable(keypoints, deviceId) {
    const isOther = deviceId !== undefined && deviceId !== this.deviceId;
    const track = this.#track?.readyState === "live" && !isOther ? this.#track : await openDevice("camera", deviceId);
    try {
      await this.#follow(track, keypoints);
    } catch (error) {
      track.stop();
      throw error;
    }
    if (this.#track !== track) this.#track?.stop();
    this.#track = track;
    this.isOn = true;
    track.onended = () => {
      if (this.#track !== track) return;
      this.disable();
      this.#options.onLost(new MediaDevicesError("not-found", "camera", "the camera was lost"));
    };
  }

  /**
   * Move another avatar.
   * @param {Float32Array} keypoints
   */
  async retarget(keypoints) {
    if (this.#track !== null && this.isOn) await this.#follow(this.#track, keypoints);
  }

  /** The camera's light goes off, and no packet follows. The worker stays: packets go on with the next number. */
  disable() {
    this.isOn = this.seesFace = false;
    this.#track?.stop();
    this.#track = null;
    void this.#capture?.follow(null);
  }

  close() {
    this.disable();
    this.#capture?.stop();
    this.#capture = null;
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {Float32Array} keypoints
   */
  async #follow(track, keypoints) {
    const isSame = this.#keypoints?.every((value, i) => value === keypoints[i]) ?? false;
    if (this.#capture !== null && isSame) return this.#capture.follow(track);
    this.#capture?.stop();
    this.#keypoints = keypoints;
    const capture = new MotionCapture({
      keypoints,
      onPacket: (packet) => {
        if (this.isOn) this.#options.onPacket(packet);
      },
      onState: ({ face, busyMs }) => {
        this.seesFace = this.isOn && face;
        this.busyMs = busyMs;
      },
      onError: (error) => this.#options.onError(error),
    });
    this.#capture = null;
    await capture.start(track);
    this.#capture = capture;
  }
}
