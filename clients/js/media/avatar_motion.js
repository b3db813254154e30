// @ts-check
/**
 * What moves the avatar: the face in front of the camera, the voice, reactions. A worker turns them into packets of
 * motion (../encoder/capture.js); the camera's picture stays in it.
 *
 * Packets come while the camera or the microphone is on, and while a reaction plays. Otherwise the server moves the
 * face.
 */

import { MotionCapture } from "../encoder/capture.js";
import { FACE_REACTIONS } from "../motion/reactions.js";
import { MediaDevicesError, openDevice } from "./devices.js";

/** No reaction is longer. */
const REACTION_MS = 3000;

/**
 * onPacket: 128 bytes of motion, about 30 times a second. onLost: the camera was unplugged, or the system took it away;
 * it is off now. onError: the encoder failed.
 * @typedef {{onPacket: (packet: Uint8Array<ArrayBuffer>) => void, onLost: (error: MediaDevicesError) => void,
 *   onError: (error: unknown) => void}} MotionOptions
 */

export class AvatarMotion {
  #options;
  /** Of the camera, while it is on. @type {MediaStreamTrack|null} */
  #camera = null;
  /** Of the microphone, while it is on. @type {MediaStreamTrack|null} */
  #voice = null;
  /** @type {MotionCapture|null} */
  #capture = null;
  /** @type {Float32Array|null} */
  #keypoints = null;
  #reactsUntilMs = -Infinity;
  #seesFace = false;
  /** What the encoder takes for a picture in its worker, milliseconds; 0 before the first second. */
  busyMs = 0;

  /** @param {MotionOptions} options */
  constructor(options) {
    this.#options = options;
  }

  get isCameraOn() {
    return this.#camera !== null;
  }

  /** Whether the camera has seen a face in the last second. */
  get seesFace() {
    return this.isCameraOn && this.#seesFace;
  }

  /**
   * Move this avatar from now on, with all that is on.
   * @param {Float32Array} keypoints the avatar's
   * @throws {import("../encoder/capture.js").CaptureError} the encoder cannot be loaded
   */
  async prepare(keypoints) {
    if (this.#capture !== null && this.#keypoints?.every((value, i) => value === keypoints[i])) return;
    this.#capture?.stop();
    this.#capture = null;
    const capture = new MotionCapture({
      keypoints,
      onPacket: (packet) => this.#send(packet),
      onState: ({ face, busyMs }) => {
        this.#seesFace = face;
        this.busyMs = busyMs;
      },
      onError: (error) => this.#options.onError(error),
    });
    await capture.start(this.#camera);
    this.#capture = capture;
    this.#keypoints = keypoints;
    this.hear(this.#voice);
  }

  /**
   * Show the face in front of the camera; of another one if one is named. Call `prepare` before.
   * @param {string} [deviceId]
   * @throws {MediaDevicesError}
   */
  async enableCamera(deviceId) {
    const before = this.#camera;
    if (before !== null && (deviceId === undefined || deviceId === before.getSettings().deviceId)) return;
    const track = await openDevice("camera", deviceId);
    await this.#capture?.follow(track);
    this.#camera = track;
    before?.stop();
    track.onended = () => {
      if (this.#camera !== track) return;
      this.disableCamera();
      this.#options.onLost(new MediaDevicesError("not-found", "camera", "the camera was lost"));
    };
  }

  /** The camera's light goes off. */
  disableCamera() {
    this.#camera?.stop();
    this.#camera = null;
    void this.#capture?.follow(null);
  }

  /**
   * Let this voice open the mouth while no face is seen.
   * @param {MediaStreamTrack|null} track null: the microphone is off
   */
  hear(track) {
    this.#voice = track;
    this.#capture?.followVoice(track).catch(this.#options.onError);
  }

  /** @param {string} name a reaction of the face; others do nothing */
  react(name) {
    if (this.#capture === null || !FACE_REACTIONS.includes(name)) return;
    this.#reactsUntilMs = performance.now() + REACTION_MS;
    this.#capture.react(name);
  }

  /** Stop the camera and the worker. */
  close() {
    this.disableCamera();
    this.#capture?.stop();
    this.#capture = null;
  }

  /** @param {Uint8Array<ArrayBuffer>} packet */
  #send(packet) {
    const isOn = this.#camera !== null || this.#voice !== null || performance.now() < this.#reactsUntilMs;
    if (isOn) this.#options.onPacket(packet);
  }
}
