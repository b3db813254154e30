// @ts-check
/**
 * Reactions of a face: nod, shake, smile, laugh and others, blended into its motion and out again.
 *
 * Each is a few curves over time that begin and end at 0 with slope 0 (raised cosines), so that nothing snaps. They add
 * to whatever the face does. Pure: the caller passes the time. The Python side is `mien_shared/reactions.py`.
 * @import { Keypoints } from "./keypoints.js"
 */

import { stretch } from "./default_motion.js";
import { FaceKeypoint, NUM_KEYPOINTS, ROW } from "./keypoints.js";
import { opened } from "./mouth.js";

/** Of the tip of the nose, share of half the crop. */
const NOD_DIP = 0.085;
/** A head that looks down appears shorter. */
const NOD_SHORTENING = 0.06;
const TURN_SHIFT = 0.1;
const TURN_NARROWING = 0.05;
const SMILE_WIDENING = 0.2;
const SMILE_LIFT = 0.026;
const SMILE_SQUINT = 0.22;
const BROW_LIFT = 0.045;
/** Eyes open wider under raised brows. */
const BROW_EYES = 0.12;
/** Reactions that play together may not nod or turn further than this. */
const FURTHEST = 1.2;

const { LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE, NOSE, UPPER_LIP, LOWER_LIP, LEFT_CHEEK, RIGHT_CHEEK } =
  FaceKeypoint;

/** How far in front of the axis of the neck a keypoint lies, the tip of the nose at 1: it moves so much. */
const DEPTHS = new Float32Array(NUM_KEYPOINTS).fill(0.7);
DEPTHS[NOSE] = 1;
DEPTHS[UPPER_LIP] = DEPTHS[LOWER_LIP] = 0.85;
DEPTHS[LEFT_CHEEK] = DEPTHS[RIGHT_CHEEK] = 0.4;

/**
 * What a face adds at one moment. nod: below 0 the head goes up. turn: below 0 to the left in the picture.
 * @typedef {{nod?: number, turn?: number, smile?: number, brows?: number, mouth?: number}} Expression
 *
 * A reaction: its length, and the expression at a time since its beginning.
 * @typedef {{lengthS: number, at: (seconds: number) => Expression}} Preset
 */

/** @type {Record<string, Preset>} */
const PRESETS = {
  nod: {
    lengthS: 1.15,
    at: (seconds) => ({ nod: bump(seconds, 0, 0.6) + 0.7 * bump(seconds, 0.55, 0.6) }),
  },
  shake: {
    lengthS: 1.65,
    at: (seconds) => ({ turn: Math.sin((2 * Math.PI * seconds) / 0.55) * bump(seconds, 0, 1.65) }),
  },
  smile: { lengthS: 2.6, at: (seconds) => ({ smile: held(seconds, 2.6, 0.35, 0.8) }) },
  laugh: {
    lengthS: 2.4,
    at(seconds) {
      const amount = held(seconds, 2.4, 0.3, 0.7);
      const shaking = Math.sin(2 * Math.PI * 4.2 * seconds);
      const [nod, mouth] = [amount * (0.12 * shaking - 0.3), amount * (0.45 + 0.25 * shaking)];
      return { nod, smile: amount, mouth, brows: 0.4 * amount };
    },
  },
  applause: {
    lengthS: 2.2,
    at(seconds) {
      const amount = held(seconds, 2.2, 0.35, 0.7);
      const nods = [0.2, 0.7, 1.2].reduce((sum, startS) => sum + bump(seconds, startS, 0.5), 0);
      return { nod: 0.4 * nods, smile: 0.8 * amount, brows: 0.3 * amount };
    },
  },
  thumbs_up: {
    lengthS: 1.6,
    at: (seconds) => ({ nod: 0.8 * bump(seconds, 0.1, 0.7), smile: 0.6 * held(seconds, 1.6, 0.3, 0.6) }),
  },
  heart: {
    lengthS: 2.6,
    at(seconds) {
      const amount = held(seconds, 2.6, 0.4, 0.9);
      return { nod: -0.2 * amount, smile: amount, brows: 0.5 * amount };
    },
  },
  hand: {
    lengthS: 1.6,
    at(seconds) {
      const amount = held(seconds, 1.6, 0.3, 0.6);
      return { nod: -0.35 * amount, smile: 0.2 * amount, brows: amount };
    },
  },
};

/** Names as in a room's messages, and "hand" for a hand that is raised. */
export const FACE_REACTIONS = Object.freeze(Object.keys(PRESETS));

/** No reaction has this name. */
export class UnknownReaction extends RangeError {
  name = "UnknownReaction";
}

/**
 * @param {string} name
 * @throws {UnknownReaction} it is not in FACE_REACTIONS
 */
export function demandKnown(name) {
  if (!FACE_REACTIONS.includes(name)) {
    throw new UnknownReaction(`there is no reaction "${name}": choose one of ${FACE_REACTIONS.join(", ")}`);
  }
}

/** The reactions of one face. Those that play together add up; one that still plays does not begin again. */
export class Reactions {
  /** @type {Map<string, number>} */
  #begunS = new Map();

  /**
   * Play a reaction of FACE_REACTIONS from `timeS` on.
   * @param {string} name
   * @param {number} timeS
   * @throws {UnknownReaction}
   */
  begin(name, timeS) {
    demandKnown(name);
    this.#forgetEnded(timeS);
    if (!this.#begunS.has(name)) this.#begunS.set(name, timeS);
  }

  /**
   * A relative motion with the reactions of this moment.
   * @param {Keypoints} motion
   * @param {number} timeS
   * @returns {Keypoints} the same object if none plays
   */
  appliedTo(motion, timeS) {
    this.#forgetEnded(timeS);
    if (this.#begunS.size === 0) return motion;
    return shown(motion, together([...this.#begunS].map(([name, begunS]) => PRESETS[name].at(Math.max(timeS - begunS, 0)))));
  }

  /** @param {number} timeS */
  #forgetEnded(timeS) {
    for (const [name, begunS] of this.#begunS) {
      if (timeS - begunS >= PRESETS[name].lengthS) this.#begunS.delete(name);
    }
  }
}

/**
 * A raised cosine: 0, up to 1 in the middle, and back to 0.
 * @param {number} seconds
 * @param {number} startS
 * @param {number} lengthS
 */
function bump(seconds, startS, lengthS) {
  const phase = (seconds - startS) / lengthS;
  return phase > 0 && phase < 1 ? Math.sin(Math.PI * phase) ** 2 : 0;
}

/**
 * Half a raised cosine up to 1, held there, and half of one down.
 * @param {number} seconds
 * @param {number} lengthS
 * @param {number} inS
 * @param {number} outS
 */
function held(seconds, lengthS, inS, outS) {
  const rise = Math.min(seconds / inS, 1);
  const fall = Math.min((lengthS - seconds) / outS, 1);
  return Math.sin((Math.PI / 2) * rise) ** 2 * Math.sin((Math.PI / 2) * fall) ** 2;
}

/**
 * @param {Expression[]} playing
 * @returns {Required<Expression>}
 */
function together(playing) {
  const limited = (/** @type {"nod"|"turn"} */ name) => {
    const sum = playing.reduce((total, one) => total + (one[name] ?? 0), 0);
    return Math.min(Math.max(sum, -FURTHEST), FURTHEST);
  };
  const most = (/** @type {"smile"|"brows"|"mouth"} */ name) => Math.max(...playing.map((one) => one[name] ?? 0));
  return { nod: limited("nod"), turn: limited("turn"), smile: most("smile"), brows: most("brows"), mouth: most("mouth") };
}

/**
 * @param {Keypoints} motion
 * @param {Required<Expression>} face
 * @returns {Keypoints}
 */
function shown(motion, face) {
  const moved = motion.slice();
  const narrow = 1 - TURN_NARROWING * Math.abs(face.turn);
  const short = 1 - NOD_SHORTENING * Math.max(face.nod, 0);
  for (let k = 0; k < NUM_KEYPOINTS; k++) {
    moved[k * ROW] += TURN_SHIFT * face.turn * DEPTHS[k];
    moved[k * ROW + 1] += NOD_DIP * face.nod * DEPTHS[k];
    stretch(moved, k, narrow, short);
  }
  for (const k of [UPPER_LIP, LOWER_LIP, LEFT_CHEEK, RIGHT_CHEEK]) moved[k * ROW + 1] -= SMILE_LIFT * face.smile;
  for (const k of [LEFT_BROW, RIGHT_BROW]) moved[k * ROW + 1] -= BROW_LIFT * face.brows;
  for (const k of [UPPER_LIP, LOWER_LIP]) stretch(moved, k, 1 + SMILE_WIDENING * face.smile, 1);
  const lid = (1 - SMILE_SQUINT * face.smile) * (1 + BROW_EYES * face.brows);
  for (const k of [LEFT_EYE, RIGHT_EYE]) stretch(moved, k, 1, lid);
  return opened(moved, face.mouth);
}
