// @ts-check
/**
 * Turns the keypoints found in each picture into motion packets: smooths, judges and numbers them.
 *
 * Pure: the caller passes the time. The Python side is `mien_client/outgoing.py` with its default smoothing.
 * @import { Keypoints } from "./keypoints.js"
 * @import { MotionPacket } from "./packet.js"
 */

import { Judgement } from "./judgement.js";
import { areFinite } from "./keypoints.js";
import { DeadZones, OneEuro } from "./smoothing.js";

/** The packets of one speaker. */
export class OutgoingMotion {
  #smoother = new DeadZones(new OneEuro());
  #sequence = 0;

  /**
   * @param {Keypoints} source the avatar's own keypoints
   * @param {number} [seed] seed of the default motion
   */
  constructor(source, seed = 0) {
    this.judgement = new Judgement(source, seed);
  }

  /**
   * The packet to send for one picture.
   * @param {Keypoints|null} found keypoints in the crop, null if there is no face
   * @param {number} timeS when the picture was captured
   * @param {number} captureMs the same moment on the clock that packets carry
   * @returns {MotionPacket}
   * @throws {import("./judgement.js").TimeRanBackwards}
   */
  packet(found, timeS, captureMs) {
    // The next face may be another person's, so the smoother starts again. The judgement replaces values that are not
    // finite.
    if (found === null || !areFinite(found)) this.#smoother.reset();
    else found = Float32Array.from(this.#smoother.filter(found, timeS));
    const { motion, flags } = this.judgement.judge(found, timeS);
    const sequence = this.#sequence;
    this.#sequence = (sequence + 1) & 0xffff;
    return { sequence, captureMs, flags, keypoints: motion };
  }
}
