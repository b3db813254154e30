// @ts-check
/**
 * How a mouth opens: what an opening adds to the motion of the lips, the chin and the cheeks. Pure. The Python side,
 * which says where the table is from, is `mien_shared/mouth.py`.
 * @import { Keypoints } from "./keypoints.js"
 */

import { FaceKeypoint, ROW } from "./keypoints.js";

/**
 * What an opening of 1, a mouth as wide open as in loud speech, adds to a keypoint: x, y, j00, j01, j10, j11.
 * @type {[number, number[]][]}
 */
const WIDE_OPEN = [
  [FaceKeypoint.UPPER_LIP, [0, 0.0029, -0.0258, 0, 0, 0.0154]],
  [FaceKeypoint.LOWER_LIP, [0, 0.0628, -0.0132, 0, 0, 0.0413]],
  [FaceKeypoint.CHIN, [0, 0.0455, -0.0298, 0, 0, -0.0452]],
  [FaceKeypoint.LEFT_CHEEK, [0.0103, 0.0034, -0.0131, -0.0026, 0.0116, -0.0005]],
  [FaceKeypoint.RIGHT_CHEEK, [-0.0103, 0.0034, -0.0131, 0.0026, -0.0116, -0.0005]],
];

/**
 * Relative motion with the mouth opened further.
 * @param {Keypoints} motion
 * @param {number} opening 0 adds nothing, 1 is wide open
 * @returns {Keypoints}
 */
export function opened(motion, opening) {
  if (opening === 0) return motion;
  const shown = motion.slice();
  for (const [k, [x, y, j00, j01, j10, j11]] of WIDE_OPEN) {
    const at = k * ROW;
    const [a, b, c, d] = motion.subarray(at + 2, at + ROW);
    const [e, f, g, h] = [1 + opening * j00, opening * j01, opening * j10, 1 + opening * j11];
    const point = [motion[at] + opening * x, motion[at + 1] + opening * y];
    shown.set([...point, a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h], at);
  }
  return shown;
}
