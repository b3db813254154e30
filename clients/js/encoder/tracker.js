// @ts-check
/**
 * Finds a face once and then follows it by its keypoints, in a crop that stays still while the face hardly moves.
 *
 * Pure but for the encoder, which holds the picture; the caller passes the time. The Python side is
 * `mien_encoder/tracker.py`.
 * @import { Keypoints } from "../motion/keypoints.js"
 * @import { CropSquare } from "./crop.js"
 * @import { Look } from "./finder.js"
 */

import { changeOf, fitLayout, framingOf, isUsable, towards } from "./crop.js";

/** From FOUND_PRESENCE on a searched face counts as found; below LOST_PRESENCE a followed face counts as not seen. */
export const FOUND_PRESENCE = 0.6;
export const LOST_PRESENCE = 0.3;
/** A face that is not seen for longer is lost. Until then (a hand over the face, blur) its last keypoints are used. */
const LOST_AFTER_S = 0.15;
/** The box starts to move when the face's shift or growth exceeds these limits (see changeOf). */
const SHIFT_DEAD_ZONE = 0.1;
const SCALE_DEAD_ZONE = 0.12;
/** A moving box approaches the face smoothly: this share of the distance remains after one second. */
const REMAINING_AFTER_1_S = 0.02;
/** The box stops when the remaining shift and growth are below this. */
const ARRIVED = 0.01;

/**
 * The face of one picture. box: its crop in the picture's pixels. keypoints: in that crop. presence: 0 to 1.
 * @typedef {{keypoints: Keypoints, box: CropSquare, presence: number}} TrackedFace
 *
 * Searches the picture that the encoder holds. Returns crops that may show faces, largest first.
 * @typedef {{find(timeS: number): CropSquare[]}} Finder
 */

/** Follows the largest face of a video. */
export class FaceTracker {
  #look;
  #finder;
  /** @type {CropSquare|null} the crop for the next picture */
  #box = null;
  #moving = false;
  /** @type {TrackedFace|null} */
  #last = null;
  #seenAtS = 0;

  /**
   * @param {Look} look
   * @param {Finder} finder
   */
  constructor(look, finder) {
    this.#look = look;
    this.#finder = finder;
  }

  /**
   * The face in the next picture, which the encoder holds; null while there is none. A face that is hidden for a moment
   * keeps its last keypoints and gets the low presence that the encoder reports.
   * @param {number} timeS when it was captured, on a clock that never runs backwards
   * @returns {TrackedFace|null}
   */
  find(timeS) {
    if (this.#box === null || this.#last === null) return this.#search(timeS);
    const { keypoints, presence } = this.#look.encode(this.#box);
    if (presence < LOST_PRESENCE) {
      if (timeS - this.#seenAtS <= LOST_AFTER_S) return { ...this.#last, presence };
      this.#box = this.#last = null;
      return this.#search(timeS);
    }
    const face = { keypoints, box: this.#box, presence };
    this.#follow(face, timeS - this.#seenAtS);
    this.#last = face;
    this.#seenAtS = timeS;
    return face;
  }

  /** @param {number} timeS */
  #search(timeS) {
    for (const box of this.#finder.find(timeS)) {
      const face = this.#refined(box);
      if (face === null) continue;
      this.#box = face.box;
      this.#last = face;
      this.#seenAtS = timeS;
      this.#moving = false;
      return face;
    }
    return null;
  }

  /**
   * A face that the finder claims, in a crop corrected by its keypoints.
   * @param {CropSquare} claimed
   * @returns {TrackedFace|null}
   */
  #refined(claimed) {
    const first = this.#look.encode(claimed);
    if (first.presence < FOUND_PRESENCE) return null;
    const box = framingOf(fitLayout(first.keypoints), claimed);
    if (!this.#isUsable(box)) return null;
    const seen = this.#look.encode(box);
    return seen.presence >= FOUND_PRESENCE ? { ...seen, box } : null;
  }

  /**
   * Set the crop for the next picture.
   * @param {TrackedFace} face
   * @param {number} elapsedS
   */
  #follow({ keypoints, box }, elapsedS) {
    const target = framingOf(fitLayout(keypoints), box);
    const { shift, growth } = changeOf(box, target);
    if (shift > SHIFT_DEAD_ZONE || growth > SCALE_DEAD_ZONE) this.#moving = true;
    else if (shift < ARRIVED && growth < ARRIVED) this.#moving = false;
    const next = this.#moving ? towards(box, target, 1 - REMAINING_AFTER_1_S ** Math.max(elapsedS, 0)) : box;
    this.#box = this.#isUsable(next) ? next : null;
  }

  /** @param {CropSquare} box */
  #isUsable(box) {
    return isUsable(box, this.#look.width, this.#look.height);
  }
}
