// @ts-check
/**
 * The sender's judgement: decides which frames may be shown and what replaces the others (paper, section 3.3).
 *
 * L2, eq. 2 of the paper, is `alpha * |v_r - v_i| + beta * |J_r J_i^-1 - 1|`, each norm over all ten keypoints at once:
 * how far the motion would deform the avatar's own picture. A frame above the threshold tau is replaced by the default
 * motion. The initial frame (v_i, J_i) is at first the first frame with a face; each frame that is clearly closer to
 * the avatar's pose replaces it.
 *
 * Pure: the caller passes the time. The Python side is `mien_encoder/judgement.py`, which says more; vectors in
 * tests/shared/wire/vectors hold both to the same numbers.
 * @import { Keypoints } from "./keypoints.js"
 */

import { Ease, defaultMotion } from "./default_motion.js";
import { ROW, areFinite, leastStretch, relativeTo } from "./keypoints.js";
import { opened } from "./mouth.js";
import { MotionFlags, outOfRange } from "./packet.js";

/** A Jacobian whose smallest singular value is below this is singular; that of a closed eye is ten times larger. */
const LEAST_STRETCH = 0.01;

/**
 * The parameters of the judgement. A frame that may be shown is called fit.
 */
export const POLICY = Object.freeze({
  alpha: 2,
  beta: 1,
  /** No frame of ordinary speech reaches this value; above it pictures are visibly distorted (docs/judgement.md). */
  tau: 2.6,
  /** After a rejection a frame is fit only below this share of tau, so that motion near tau does not flicker. */
  release: 0.85,
  /** Unfit frames hold the last motion for this long; then the default motion starts. */
  bridgeS: 0.1,
  /** Frames must be fit for this long before the default motion ends. */
  calmS: 0.2,
  /** Length of the transition to the default motion. */
  easeOutS: 0.4,
  /** Length of the transition back to the speaker's motion, or to a new initial frame. */
  easeInS: 0.25,
  /** A frame becomes the initial frame if its distance to the avatar's pose is below this share of the current one. */
  closer: 0.9,
  /** After this long without a face, the next face gets a new initial frame. */
  forgetS: 2,
});

/** A frame was captured before the previous frame. */
export class TimeRanBackwards extends RangeError {
  name = "TimeRanBackwards";
}

/**
 * - `accepted`: shown
 * - `rejected`: L2 above tau, or motion that a packet cannot carry, or too soon after such a frame
 * - `lost`: the frame has no face
 * @typedef {"accepted"|"rejected"|"lost"} FrameVerdict
 *
 * What to send for one frame. motion: relative motion that a packet can carry. flags: for the packet. l2: eq. 2, null
 * if it cannot be computed.
 * @typedef {{motion: Keypoints, flags: number, verdict: FrameVerdict, l2: number|null}} Judged
 *
 * - `speaking`: the speaker's motion is shown
 * - `bridging`: the last motion is held
 * - `resting`: the default motion is shown
 * @typedef {"speaking"|"bridging"|"resting"} State
 */

/**
 * Eq. 2 for a relative motion; 0 at rest.
 * @param {Keypoints} motion
 * @returns {number} not finite if the motion is not
 */
export function l2(motion) {
  let displacement = 0;
  let deviation = 0;
  motion.forEach((value, i) => {
    const column = i % ROW;
    if (column < 2) displacement += value ** 2;
    else deviation += (value - (column === 2 || column === 5 ? 1 : 0)) ** 2;
  });
  return POLICY.alpha * Math.sqrt(displacement) + POLICY.beta * Math.sqrt(deviation);
}

/** One sender's judgement. Counts its decisions in `accepted`, `rejected`, `lost` and `initialFrames`. */
export class Judgement {
  accepted = 0;
  rejected = 0;
  lost = 0;
  initialFrames = 0;
  #source;
  #seed;
  /** @type {Keypoints|null} */
  #initial = null;
  #initialDistance = Infinity;
  /** @type {State} */
  #state = "resting";
  /** @type {number|null} */
  #nowS = null;
  /** When the state began. */
  #sinceS = 0;
  /** @type {number|null} */
  #fitSinceS = null;
  /** @type {number|null} */
  #faceAtS = null;
  #ease = new Ease();

  /**
   * @param {Keypoints} source the avatar's keypoints; the initial frame is chosen close to their pose
   * @param {number} [seed] for the default motion
   */
  constructor(source, seed = 0) {
    if (!isInvertible(source)) {
      throw new RangeError("the source pose has a singular Jacobian or a value that is not finite");
    }
    this.#source = source;
    this.#seed = seed;
  }

  /**
   * The motion to send for a frame.
   * @param {Keypoints|null} found the frame's keypoints in the crop, which need not be finite; null if there is no face
   * @param {number} timeS when it was captured
   * @param {number} [mouth] how far the voice opens the mouth of the default motion, 0 to 1
   * @returns {Judged}
   * @throws {TimeRanBackwards} the previous frame was captured later than this one; this frame is not counted
   */
  judge(found, timeS, mouth = 0) {
    if (this.#nowS === null) this.#sinceS = timeS;
    else if (timeS < this.#nowS) {
      const backS = (this.#nowS - timeS).toFixed(3);
      throw new TimeRanBackwards(`a frame was captured ${backS} s before the previous frame`);
    }
    this.#nowS = timeS;
    const replaced = found !== null && this.#considerInitial(found, timeS);
    const relative = found === null || this.#initial === null ? null : carriedMotion(found, this.#initial);
    const measured = relative === null ? null : l2(relative);
    this.#updateState(measured, timeS);
    if (replaced) this.#ease.begin(timeS, POLICY.easeInS);
    const motion = this.#shown(relative, timeS, mouth);
    let flags = replaced ? MotionFlags.NEW_INITIAL_FRAME : MotionFlags.NONE;
    if (this.#state !== "speaking") flags |= MotionFlags.DEFAULT_MOTION;
    return { motion, flags, verdict: this.#count(found), l2: measured };
  }

  /**
   * Make this frame the initial frame if it is closer to the avatar's pose; returns whether it was.
   * @param {Keypoints} found
   * @param {number} timeS
   */
  #considerInitial(found, timeS) {
    if (!isInvertible(found)) return false;
    if (this.#faceAtS !== null && timeS - this.#faceAtS > POLICY.forgetS) this.#initial = null;
    this.#faceAtS = timeS;
    const distance = l2(relativeTo(found, this.#source));
    if (this.#initial !== null && distance >= POLICY.closer * this.#initialDistance) return false;
    this.#initial = found;
    this.#initialDistance = distance;
    this.initialFrames++;
    return true;
  }

  /**
   * @param {number|null} measured
   * @param {number} timeS
   */
  #updateState(measured, timeS) {
    const limit = this.#state === "speaking" ? POLICY.tau : POLICY.release * POLICY.tau;
    const fit = measured !== null && measured <= limit;
    this.#fitSinceS = fit ? (this.#fitSinceS ?? timeS) : null;
    if (this.#state === "speaking" && !fit) {
      this.#enter("bridging", timeS);
    } else if (this.#state === "bridging" && fit) {
      this.#enter("speaking", timeS);
      this.#ease.begin(timeS, POLICY.easeInS);
    } else if (this.#state === "bridging" && timeS - this.#sinceS >= POLICY.bridgeS) {
      this.#enter("resting", timeS);
      this.#ease.begin(timeS, POLICY.easeOutS);
    } else if (this.#state === "resting" && this.#hasBeenCalm(timeS)) {
      this.#enter("speaking", timeS);
      this.#ease.begin(timeS, POLICY.easeInS);
    }
  }

  /** @param {number} timeS */
  #hasBeenCalm(timeS) {
    // The first face of a session is shown at once.
    const calmS = this.accepted === 0 ? 0 : POLICY.calmS;
    return this.#fitSinceS !== null && timeS - this.#fitSinceS >= calmS;
  }

  /**
   * @param {State} state
   * @param {number} timeS
   */
  #enter(state, timeS) {
    this.#state = state;
    this.#sinceS = timeS;
  }

  /**
   * @param {Keypoints|null} relative
   * @param {number} timeS
   * @param {number} mouth
   */
  #shown(relative, timeS, mouth) {
    if (this.#state === "bridging") return this.#ease.shown;
    // A frame without relative motion is never fit, so a speaker's frame has it.
    const speaking = this.#state === "speaking" && relative !== null;
    const target = speaking ? relative : this.#resting(timeS, mouth);
    return this.#ease.show(target, timeS);
  }

  /**
   * @param {number} timeS
   * @param {number} mouth
   */
  #resting(timeS, mouth) {
    return opened(defaultMotion(this.#source, this.#seed, timeS - this.#sinceS), mouth);
  }

  /**
   * @param {Keypoints|null} found
   * @returns {FrameVerdict}
   */
  #count(found) {
    /** @type {FrameVerdict} */
    const verdict = found === null ? "lost" : this.#state === "speaking" ? "accepted" : "rejected";
    this[verdict]++;
    return verdict;
  }
}

/**
 * Motion since the initial frame; null if a packet cannot carry it.
 * @param {Keypoints} found
 * @param {Keypoints} initial
 */
function carriedMotion(found, initial) {
  if (!areFinite(found)) return null;
  const relative = relativeTo(found, initial);
  return outOfRange(relative) === null ? relative : null;
}

/**
 * Whether every value is finite and every Jacobian is clearly invertible.
 * @param {Keypoints} keypoints
 */
function isInvertible(keypoints) {
  return areFinite(keypoints) && leastStretch(keypoints) >= LEAST_STRETCH;
}
