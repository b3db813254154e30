// @ts-check
/**
 * The default motion, shown instead of a speaker's motion. The face breathes, sways, blinks, nods and smiles.
 *
 * A pure function of time and a seed. The generator plays the same while an uplink is silent; the Python side is
 * `mien_shared/default_motion.py`.
 * @import { Keypoints } from "./keypoints.js"
 */

import { FaceKeypoint, NUM_KEYPOINTS, ROW, atRest, blended } from "./keypoints.js";

const BREATH_PERIOD_S = 4.2;
/** Share of half the crop: two pixels of 384. */
const BREATH_RISE = 0.01;
const SWAY_PERIOD_S = 7.3;
const SWAY_RADIANS = 0.012;
/** The neck, around which the head sways, below the keypoints' mean. */
const NECK_BELOW = 0.6;
/** Height of a closed eye as a share of its open height. */
const CLOSED_EYE = 0.12;
const NOD_DIP = 0.028;
/** A head that looks down appears shorter. */
const NOD_SHORTENING = 0.03;
/** Share of the lips' width. */
const SMILE_WIDENING = 0.1;
/** Upward shift of cheeks and lips. */
const SMILE_LIFT = 0.014;
const SMILE_SQUINT = 0.12;

/** The fractional part of the golden ratio. Its multiples modulo 1 spread evenly over [0, 1) and never repeat. */
const SCRAMBLE = 0.618034;

const { LEFT_EYE, RIGHT_EYE, UPPER_LIP, LOWER_LIP, LEFT_CHEEK, RIGHT_CHEEK } = FaceKeypoint;

/**
 * A gesture occurs once in every `everyS` and lasts `lengthS`. Its start varies by up to `spreadS`.
 * @typedef {{everyS: number, spreadS: number, lengthS: number}} Gesture
 */

/** @type {Gesture} */
const BLINK = { everyS: 3.4, spreadS: 1.6, lengthS: 0.22 };
/** @type {Gesture} */
const NOD = { everyS: 8.7, spreadS: 4, lengthS: 1.1 };
/** @type {Gesture} */
const SMILE = { everyS: 13, spreadS: 5, lengthS: 3.2 };

/**
 * The relative motion `seconds` after its beginning; at 0 the face is at rest. The mouth keeps its shape, apart from a
 * faint smile.
 * @param {Keypoints} source the keypoints at rest
 * @param {number} seed selects the times of blinks, nods and smiles; 0 or more
 * @param {number} seconds
 * @returns {Keypoints}
 */
export function defaultMotion(source, seed, seconds) {
  const nodding = nod(seconds, seed);
  const smiling = smile(seconds, seed);
  const lid = (1 - (1 - CLOSED_EYE) * blink(seconds, seed)) * (1 - SMILE_SQUINT * smiling);
  const rise = (-BREATH_RISE * (1 - Math.cos((2 * Math.PI * seconds) / BREATH_PERIOD_S))) / 2;
  const motion = swayed(source, seconds);
  for (let k = 0; k < NUM_KEYPOINTS; k++) {
    motion[k * ROW + 1] += rise + NOD_DIP * nodding;
    stretch(motion, k, 1, 1 - NOD_SHORTENING * nodding);
  }
  for (const k of [LEFT_CHEEK, RIGHT_CHEEK, UPPER_LIP, LOWER_LIP]) motion[k * ROW + 1] -= SMILE_LIFT * smiling;
  for (const k of [UPPER_LIP, LOWER_LIP]) stretch(motion, k, 1 + SMILE_WIDENING * smiling, 1);
  for (const k of [LEFT_EYE, RIGHT_EYE]) stretch(motion, k, 1, lid);
  return motion;
}

/**
 * The head, turned a little around the neck.
 * @param {Keypoints} source
 * @param {number} seconds
 * @returns {Keypoints}
 */
function swayed(source, seconds) {
  const angle = SWAY_RADIANS * Math.sin((2 * Math.PI * seconds) / SWAY_PERIOD_S);
  const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
  const mean = (/** @type {number} */ axis) =>
    source.reduce((sum, value, i) => (i % ROW === axis ? sum + value / NUM_KEYPOINTS : sum), 0);
  const [neckX, neckY] = [mean(0), mean(1) + NECK_BELOW];
  const motion = new Float32Array(source.length);
  for (let i = 0; i < source.length; i += ROW) {
    const [x, y] = [source[i] - neckX, source[i + 1] - neckY];
    motion.set([cos * x - sin * y - x, sin * x + cos * y - y, cos, -sin, sin, cos], i);
  }
  return motion;
}

/**
 * Widen and lengthen the neighbourhood of keypoint k: its Jacobian times diag(x, y).
 * @param {Keypoints} motion
 * @param {number} k
 * @param {number} x
 * @param {number} y
 */
export function stretch(motion, k, x, y) {
  motion[k * ROW + 2] *= x;
  motion[k * ROW + 4] *= x;
  motion[k * ROW + 3] *= y;
  motion[k * ROW + 5] *= y;
}

/** Moves from the shown motion to a target without a jump. Outside an ease it shows the target itself. */
export class Ease {
  /** @type {Keypoints} */
  shown = atRest();
  #from = this.shown;
  #startS = 0;
  #lengthS = 0;

  /**
   * Start an ease from the shown motion; it reaches the target after `lengthS`.
   * @param {number} nowS
   * @param {number} lengthS
   */
  begin(nowS, lengthS) {
    this.#from = this.shown;
    this.#startS = nowS;
    this.#lengthS = lengthS;
  }

  /**
   * The motion to show now: a smoothstep from the start of the ease to `target`. It is kept as `shown`.
   * @param {Keypoints} target
   * @param {number} nowS
   * @returns {Keypoints}
   */
  show(target, nowS) {
    const elapsedS = nowS - this.#startS;
    const eased = elapsedS < this.#lengthS;
    this.shown = eased ? blended(this.#from, target, smoothstep(elapsedS / this.#lengthS)) : target;
    return this.shown;
  }
}

/**
 * A curve from 0 to 1 whose slope is 0 at both ends.
 * @param {number} amount
 */
function smoothstep(amount) {
  return amount * amount * (3 - 2 * amount);
}

/**
 * How far the eyes are closed, 0 to 1.
 * @param {number} seconds
 * @param {number} seed
 */
function blink(seconds, seed) {
  return bump(phaseOf(BLINK, seconds, seed) ?? 0);
}

/**
 * How far the head is lowered, 0 to 1: one dip, then a smaller one.
 * @param {number} seconds
 * @param {number} seed
 */
function nod(seconds, seed) {
  const phase = phaseOf(NOD, seconds, seed) ?? 0;
  return phase < 0.6 ? bump(phase / 0.6) : 0.4 * bump((phase - 0.6) / 0.4);
}

/**
 * How strong the faint smile is, 0 to 1. It is held for the middle half of its length.
 * @param {number} seconds
 * @param {number} seed
 */
function smile(seconds, seed) {
  const phase = phaseOf(SMILE, seconds, seed) ?? 0;
  return smoothstep(Math.min(1, 4 * Math.min(phase, 1 - phase)));
}

/**
 * How far a gesture has come, 0 to 1; null between gestures. The first interval has no gesture.
 * @param {Gesture} gesture
 * @param {number} seconds
 * @param {number} seed
 */
function phaseOf({ everyS, spreadS, lengthS }, seconds, seed) {
  const turn = Math.floor(seconds / everyS);
  if (turn < 1) return null;
  // Regular gestures look mechanical. Each start depends on the gesture's number: motion stays a function of time.
  const startS = turn * everyS + spreadS * (((turn + seed) * SCRAMBLE) % 1);
  const phase = (seconds - startS) / lengthS;
  return phase > 0 && phase < 1 ? phase : null;
}

/** @param {number} phase */
function bump(phase) {
  return Math.sin(Math.PI * phase) ** 2;
}
