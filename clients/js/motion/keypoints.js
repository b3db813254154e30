// @ts-check
/**
 * Motion of a face: ten keypoints, each with the 2x2 Jacobian of its neighbourhood (Siarohin et al. 2019, section 3.1).
 *
 * Keypoints are 60 floats: ten rows of x, y, j00, j01, j10, j11, the order of the motion packet. x points right, y
 * down; the face's crop spans [-1, 1]. Relative motion holds v_r - v_i and J_r J_i^-1; at rest these are zeros and unit
 * matrices. Pure; the Python side is `mien_shared/keypoints.py`.
 *
 * @typedef {Float32Array} Keypoints
 */

export const NUM_KEYPOINTS = 10;
/** Values of one keypoint. */
export const ROW = 6;

/**
 * The place of each part of the face among the ten keypoints. Left and right are those of the picture.
 */
export const FaceKeypoint = Object.freeze({
  LEFT_BROW: 0,
  RIGHT_BROW: 1,
  LEFT_EYE: 2,
  RIGHT_EYE: 3,
  NOSE: 4,
  UPPER_LIP: 5,
  LOWER_LIP: 6,
  CHIN: 7,
  LEFT_CHEEK: 8,
  RIGHT_CHEEK: 9,
});

/** @returns {Keypoints} the relative motion of a face at rest */
export function atRest() {
  return Float32Array.from({ length: NUM_KEYPOINTS * ROW }, (_, i) => (i % ROW === 2 || i % ROW === 5 ? 1 : 0));
}

/**
 * This frame's motion since `initial`, whose Jacobians must be invertible.
 * @param {Keypoints} found
 * @param {Keypoints} initial
 * @returns {Keypoints}
 */
export function relativeTo(found, initial) {
  const motion = new Float32Array(found.length);
  for (let i = 0; i < found.length; i += ROW) {
    motion[i] = found[i] - initial[i];
    motion[i + 1] = found[i + 1] - initial[i + 1];
    const [a, b, c, d] = initial.subarray(i + 2, i + ROW);
    const [e, f, g, h] = found.subarray(i + 2, i + ROW);
    const determinant = a * d - b * c;
    motion[i + 2] = (e * d - f * c) / determinant;
    motion[i + 3] = (f * a - e * b) / determinant;
    motion[i + 4] = (g * d - h * c) / determinant;
    motion[i + 5] = (h * a - g * b) / determinant;
  }
  return motion;
}

/**
 * Linear blend: amount 0 gives `from`, 1 gives `to`.
 * @param {Keypoints} from
 * @param {Keypoints} to
 * @param {number} amount
 * @returns {Keypoints}
 */
export function blended(from, to, amount) {
  return from.map((value, i) => (1 - amount) * value + amount * to[i]);
}

/**
 * @param {Keypoints} keypoints
 * @returns {boolean} whether no value is NaN or infinite
 */
export function areFinite(keypoints) {
  return keypoints.every(Number.isFinite);
}

/**
 * The smallest singular value of the ten Jacobians; 0 if one has no inverse. For a 2x2 matrix the squares of the
 * singular values have the sum |J|^2 and the product det(J)^2.
 * @param {Keypoints} keypoints finite
 * @returns {number}
 */
export function leastStretch(keypoints) {
  let least = Infinity;
  for (let i = 0; i < keypoints.length; i += ROW) {
    const [a, b, c, d] = keypoints.subarray(i + 2, i + ROW);
    const largest = (Math.hypot(a + d, c - b) + Math.hypot(a - d, b + c)) / 2;
    if (largest === 0) return 0;
    least = Math.min(least, Math.abs(a * d - b * c) / largest);
  }
  return least;
}
