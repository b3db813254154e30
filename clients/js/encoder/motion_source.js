// @ts-check
/**
 * From pictures to packets: one packet for each picture, and default motion while none come.
 *
 * Pure but for the encoder, which holds the picture; the caller passes the time.
 * @import { Keypoints } from "../motion/keypoints.js"
 * @import { MotionPacket } from "../motion/packet.js"
 * @import { OutgoingMotion } from "../motion/outgoing.js"
 * @import { FaceTracker, TrackedFace } from "./tracker.js"
 */

/** After this long without a picture, packets of default motion are sent: a viewer must not see a face that froze. */
export const SILENT_MS = 150;
/** Pictures that are equal for this long come from no camera: Safari repeats one while its window is minimised. */
export const FROZEN_MS = 200;

export class MotionSource {
  /** Whether the camera is muted; its pictures are then black, and ignored. */
  muted = false;
  /** Whether the last picture showed a face. */
  seesFace = false;
  pictures = 0;
  packets = 0;
  #tracker;
  #outgoing;
  #send;
  #lastMs = -Infinity;
  #pictureAtMs = -Infinity;
  /** @type {Keypoints|null} */
  #keypoints = null;
  #changedAtMs = 0;

  /**
   * @param {FaceTracker} tracker
   * @param {OutgoingMotion} outgoing
   * @param {(packet: MotionPacket) => void} send
   */
  constructor(tracker, outgoing, send) {
    this.#tracker = tracker;
    this.#outgoing = outgoing;
    this.#send = send;
  }

  /**
   * Send the motion of the picture that the encoder holds.
   * @param {number} captureMs when it was captured, Unix milliseconds
   */
  see(captureMs) {
    if (this.muted) return;
    // Default motion may have been sent for a later moment, while this picture was on its way.
    const atMs = Math.max(captureMs, this.#lastMs);
    this.pictures++;
    this.#pictureAtMs = atMs;
    const face = this.#tracker.find(atMs / 1000);
    this.seesFace = face !== null && !this.#isFrozen(face, atMs);
    this.#push(this.seesFace && face !== null ? face.keypoints : null, atMs);
  }

  /**
   * Called about 30 times a second: sends default motion if no picture came.
   * @param {number} nowMs Unix milliseconds
   */
  tick(nowMs) {
    if (this.#pictureAtMs === -Infinity) this.#pictureAtMs = nowMs;
    if (!this.muted && nowMs - this.#pictureAtMs < SILENT_MS) return;
    this.seesFace = false;
    this.#push(null, Math.max(nowMs, this.#lastMs));
  }

  /**
   * Equal pictures have equal keypoints, and the noise of a camera changes them in every picture.
   * @param {TrackedFace} face
   * @param {number} atMs
   */
  #isFrozen(face, atMs) {
    const before = this.#keypoints;
    const same = before !== null && face.keypoints.every((value, i) => value === before[i]);
    this.#keypoints = face.keypoints;
    if (!same) this.#changedAtMs = atMs;
    return atMs - this.#changedAtMs >= FROZEN_MS;
  }

  /**
   * @param {Keypoints|null} found
   * @param {number} atMs
   */
  #push(found, atMs) {
    this.#lastMs = atMs;
    this.packets++;
    this.#send(this.#outgoing.packet(found, atMs / 1000, Math.floor(atMs)));
  }
}
