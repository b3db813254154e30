// @ts-check
/**
 * Turns the keypoints found in each picture into motion packets: smooths, judges and numbers them. While there is no
 * face to show, the voice opens the mouth. Reactions are added to whatever the face does.
 *
 * Pure: the caller passes the time. The Python side is `mien_client/outgoing.py` with its default smoothing.
 * @import { Keypoints } from "./keypoints.js"
 * @import { MotionPacket } from "./packet.js"
 */

import { Judgement } from "./judgement.js";
import { ROW, areFinite } from "./keypoints.js";
import { MAX_COORDINATE, MAX_JACOBIAN } from "./packet.js";
import { Reactions, demandKnown } from "./reactions.js";
import { DeadZones, OneEuro } from "./smoothing.js";
import { VoiceMouth } from "./voice_mouth.js";

/** The packets of one speaker. */
export class OutgoingMotion {
  #smoother = new DeadZones(new OneEuro());
  #sequence = 0;
  #mouth = new VoiceMouth();
  #reactions = new Reactions();
  /** @type {Set<string>} */
  #reacting = new Set();

  /**
   * @param {Keypoints} source the avatar's own keypoints
   * @param {number} [seed] seed of the default motion
   */
  constructor(source, seed = 0) {
    this.judgement = new Judgement(source, seed);
  }

  /**
   * Take a measurement of the speaker's voice (VoiceBands).
   * @param {ArrayLike<number>} bandsDb
   * @param {number} timeS by the clock of `packet`
   */
  hear(bandsDb, timeS) {
    this.#mouth.hear(bandsDb, timeS);
  }

  /**
   * Begin a reaction of FACE_REACTIONS with the next packet.
   * @param {string} name
   * @throws {import("./reactions.js").UnknownReaction}
   */
  react(name) {
    demandKnown(name);
    this.#reacting.add(name);
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
    const { motion, flags } = this.judgement.judge(found, timeS, this.#mouth.opening(timeS));
    const sequence = this.#sequence;
    this.#sequence = (sequence + 1) & 0xffff;
    return { sequence, captureMs, flags, keypoints: this.#withReactions(motion, timeS) };
  }

  /**
   * @param {Keypoints} motion
   * @param {number} timeS
   */
  #withReactions(motion, timeS) {
    for (const name of this.#reacting) this.#reactions.begin(name, timeS);
    this.#reacting.clear();
    const shown = this.#reactions.appliedTo(motion, timeS);
    if (shown === motion) return motion;
    // What a packet could just so carry may lie beyond its limits with a reaction.
    return shown.map((value, i) => {
      const limit = i % ROW < 2 ? MAX_COORDINATE : MAX_JACOBIAN;
      return Math.min(Math.max(value, -limit), limit);
    });
  }
}
