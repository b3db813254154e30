// @ts-check
/**
 * Smoothing of keypoints over time: a One-Euro filter, then dead zones. The Python side is `mien_encoder/smoothing.py`,
 * whose measured jitter and lag are in docs/judgement.md. Pure: the caller passes the time.
 *
 * @typedef {Float64Array} Values ten rows of x, y, j00, j01, j10, j11
 * @typedef {{filter(value: ArrayLike<number>, timeS: number): Values, reset(): void}} Smoother
 */

import { NUM_KEYPOINTS, ROW } from "./keypoints.js";

/** A value that a smoother rejects because it would corrupt its state. */
export class UnsmoothableValue extends RangeError {
  name = "UnsmoothableValue";
}

/**
 * One-Euro filter (Casiez, Roussel and Vogel 2012): steady at rest, fast during motion. Its lag is about one frame at
 * rest, less during fast motion.
 * @implements {Smoother}
 */
export class OneEuro {
  #minCutoffHz;
  #beta;
  #speedCutoffHz;
  /** @type {Values|null} */
  #value = null;
  /** @type {Values} */
  #speed = new Float64Array(0);
  #timeS = 0;

  /**
   * @param {number} [minCutoffHz] the cutoff at rest
   * @param {number} [beta] how much the cutoff rises, in Hz, for a speed of one unit a second
   * @param {number} [speedCutoffHz] the cutoff of the speed estimate
   */
  constructor(minCutoffHz = 3, beta = 6, speedCutoffHz = 3) {
    this.#minCutoffHz = minCutoffHz;
    this.#beta = beta;
    this.#speedCutoffHz = speedCutoffHz;
  }

  /**
   * The smoothed value. A time that does not advance restarts the stream.
   * @param {ArrayLike<number>} given
   * @param {number} timeS
   * @returns {Values}
   * @throws {UnsmoothableValue} a number is not finite; the state is then unchanged
   */
  filter(given, timeS) {
    const value = Float64Array.from(given);
    if (!value.every(Number.isFinite)) throw new UnsmoothableValue("the value to smooth is not finite");
    const before = this.#value;
    const elapsedS = timeS - this.#timeS;
    this.#timeS = timeS;
    if (before === null || elapsedS <= 0) {
      this.#speed = new Float64Array(value.length);
    } else {
      const speedShare = share(this.#speedCutoffHz, elapsedS);
      for (let i = 0; i < value.length; i++) {
        this.#speed[i] += speedShare * ((value[i] - before[i]) / elapsedS - this.#speed[i]);
        const cutoffHz = this.#minCutoffHz + this.#beta * Math.abs(this.#speed[i]);
        value[i] = before[i] + share(cutoffHz, elapsedS) * (value[i] - before[i]);
      }
    }
    this.#value = value;
    return value.slice();
  }

  /** Forget the stream; the next value starts a new one. */
  reset() {
    this.#value = null;
  }
}

/**
 * The weight of the newest sample in a first-order low pass.
 * @param {number} cutoffHz
 * @param {number} elapsedS
 */
function share(cutoffHz, elapsedS) {
  const turns = 2 * Math.PI * cutoffHz * elapsedS;
  return turns / (turns + 1);
}

/** A keypoint counts as moved beyond these distances of its point and of its Jacobian, in crop units and in entries. */
const POINT_RADIUS = 0.006;
const JACOBIAN_RADIUS = 0.03;
/** A keypoint that stays within this share of a radius for this long is held. */
const STILL = 0.5;
const STILL_S = 0.3;
/** At release the shown value is up to one radius behind; this offset decays with this time constant. */
const CATCH_UP_S = 0.1;

/**
 * Holds each keypoint exactly still while it hardly moves. Runs after the `inner` smoother.
 *
 * Distances are in radii: 1 is the zone. A held keypoint is released when it has moved by more than 1. A released
 * keypoint is held again when it has stayed within STILL for STILL_S (the hysteresis).
 * @implements {Smoother}
 */
export class DeadZones {
  #inner;
  /** @type {Values|null} */
  #shown = null;
  #timeS = 0;
  #offset = new Float64Array(NUM_KEYPOINTS * ROW);
  /** @type {Values} */
  #anchor = new Float64Array(NUM_KEYPOINTS * ROW);
  /** @type {boolean[]} */
  #held = Array(NUM_KEYPOINTS).fill(false);
  #stillSinceS = new Float64Array(NUM_KEYPOINTS);

  /** @param {Smoother} inner */
  constructor(inner) {
    this.#inner = inner;
  }

  /**
   * @param {ArrayLike<number>} given ten rows of six values
   * @param {number} timeS
   * @returns {Values}
   * @throws {UnsmoothableValue} as the inner smoother does, and for another length
   */
  filter(given, timeS) {
    if (given.length !== NUM_KEYPOINTS * ROW) {
      throw new UnsmoothableValue(`dead zones need ten rows of six values, not ${given.length} values`);
    }
    const value = this.#inner.filter(given, timeS);
    const elapsedS = timeS - this.#timeS;
    this.#timeS = timeS;
    if (this.#shown === null || elapsedS <= 0) {
      this.#shown = value;
      this.#anchor = value.slice();
      this.#offset.fill(0);
      this.#held.fill(false);
      this.#stillSinceS.fill(timeS);
      return value.slice();
    }
    for (let k = 0; k < NUM_KEYPOINTS; k++) this.#move(k, value, this.#shown, timeS, elapsedS);
    return this.#shown.slice();
  }

  /** Forget the stream; the next value starts a new one. */
  reset() {
    this.#inner.reset();
    this.#shown = null;
  }

  /**
   * Show keypoint k of the value: released, caught up and perhaps held again.
   * @param {number} k
   * @param {Values} value
   * @param {Values} shown
   * @param {number} timeS
   * @param {number} elapsedS
   */
  #move(k, value, shown, timeS, elapsedS) {
    const row = [...Array(ROW).keys()].map((i) => k * ROW + i);
    const moved = distance(k, value, shown);
    if (this.#held[k] && moved > 1) {
      // Only one radius of the difference stays as offset, so the first frame of a blink shows at once.
      for (const i of row) this.#offset[i] = (shown[i] - value[i]) / moved;
      this.#held[k] = false;
    }
    if (!this.#held[k]) {
      for (const i of row) {
        this.#offset[i] *= Math.exp(-elapsedS / CATCH_UP_S);
        shown[i] = value[i] + this.#offset[i];
      }
    }
    if (this.#held[k] || distance(k, value, this.#anchor) > STILL) {
      for (const i of row) this.#anchor[i] = value[i];
      this.#stillSinceS[k] = timeS;
    }
    if (timeS - this.#stillSinceS[k] >= STILL_S) this.#held[k] = true;
  }
}

/**
 * How far keypoint k differs between two values, in radii: the larger of point and Jacobian.
 * @param {number} k
 * @param {Values} value
 * @param {Values} other
 */
function distance(k, value, other) {
  const off = (/** @type {number} */ i) => value[k * ROW + i] - other[k * ROW + i];
  const [point, jacobian] = [Math.hypot(off(0), off(1)), Math.hypot(off(2), off(3), off(4), off(5))];
  return Math.max(point / POINT_RADIUS, jacobian / JACOBIAN_RADIUS);
}
