// @ts-check
/**
 * A face's crop: a square in a picture, framed by one convention everywhere. Pure geometry; the Python side is
 * `mien_encoder/crop.py` and `tracker.py`, which say where the numbers come from.
 * @import { Keypoints } from "../motion/keypoints.js"
 */

import { FaceKeypoint, ROW } from "../motion/keypoints.js";

/** Side of the encoder's crop, in pixels. */
export const CROP_SIZE = 256;
/** In a smaller square a face cannot be recognised. */
const SMALLEST_BOX_PX = 32;

/**
 * Position of a crop in a picture, in fractional pixels. It may reach beyond the picture's edges.
 * @typedef {{readonly x: number, readonly y: number, readonly size: number}} CropSquare
 */

/**
 * Places of the keypoints that neither speech nor a blink moves much, in a crop that is framed by the convention.
 * @type {ReadonlyArray<readonly [keypoint: number, x: number, y: number]>}
 */
const STEADY_LAYOUT = [
  [FaceKeypoint.LEFT_BROW, -0.269, -0.395],
  [FaceKeypoint.RIGHT_BROW, 0.269, -0.395],
  [FaceKeypoint.LEFT_EYE, -0.22, -0.271],
  [FaceKeypoint.RIGHT_EYE, 0.22, -0.271],
  [FaceKeypoint.NOSE, 0, -0.035],
  [FaceKeypoint.UPPER_LIP, 0, 0.164],
  [FaceKeypoint.LEFT_CHEEK, -0.409, 0.12],
  [FaceKeypoint.RIGHT_CHEEK, 0.409, 0.12],
];

/**
 * The similarity (rotation, scale and shift) that maps the layout to keypoints with the least squared error: a point
 * (x, y) goes to (a x - b y + dx, b x + a y + dy). misfit: the root mean square of what is left, in half sides of the
 * fitted crop.
 * @typedef {{a: number, b: number, dx: number, dy: number, misfit: number}} LayoutFit
 */

/**
 * Fit the layout to a face's keypoints.
 * @param {Keypoints} keypoints
 * @returns {LayoutFit}
 */
export function fitLayout(keypoints) {
  const points = STEADY_LAYOUT.map(([k, x, y]) => ({ x, y, u: keypoints[k * ROW], v: keypoints[k * ROW + 1] }));
  const count = points.length;
  const mean = (/** @type {"x"|"y"|"u"|"v"} */ name) => points.reduce((sum, point) => sum + point[name], 0) / count;
  const [x0, y0, u0, v0] = [mean("x"), mean("y"), mean("u"), mean("v")];
  let [power, a, b] = [0, 0, 0];
  for (const { x, y, u, v } of points) {
    power += (x - x0) ** 2 + (y - y0) ** 2;
    a += (x - x0) * (u - u0) + (y - y0) * (v - v0);
    b += (x - x0) * (v - v0) - (y - y0) * (u - u0);
  }
  a /= power;
  b /= power;
  const [dx, dy] = [u0 - (a * x0 - b * y0), v0 - (b * x0 + a * y0)];
  let left = 0;
  for (const { x, y, u, v } of points) left += (u - a * x + b * y - dx) ** 2 + (v - b * x - a * y - dy) ** 2;
  return { a, b, dx, dy, misfit: Math.sqrt(left / count) / Math.hypot(a, b) };
}

/**
 * The crop for a face according to the framing convention, computed from its keypoints in `box`: the fit that maps the
 * layout to the keypoints maps the layout's crop to the new crop. Rotation is ignored, because crops are upright.
 * @param {LayoutFit} fit of the keypoints
 * @param {CropSquare} box
 * @returns {CropSquare}
 */
export function framingOf({ a, b, dx, dy }, box) {
  const size = box.size * Math.hypot(a, b);
  const [centreX, centreY] = [(dx + 1) * (box.size / 2) + box.x, (dy + 1) * (box.size / 2) + box.y];
  return { x: centreX - size / 2, y: centreY - size / 2, size };
}

/**
 * How far a face's crop has gone from `box` to `target`: of the centre, along the longer axis, as a share of the side;
 * and the absolute log of the growth.
 * @param {CropSquare} box
 * @param {CropSquare} target
 * @returns {{shift: number, growth: number}}
 */
export function changeOf(box, target) {
  const half = (target.size - box.size) / 2;
  const shift = Math.max(Math.abs(target.x - box.x + half), Math.abs(target.y - box.y + half)) / box.size;
  return { shift, growth: Math.abs(Math.log(target.size / box.size)) };
}

/**
 * Interpolate towards another square: amount 0 gives `box`, 1 gives `other`.
 * @param {CropSquare} box
 * @param {CropSquare} other
 * @param {number} amount
 * @returns {CropSquare}
 */
export function towards(box, other, amount) {
  return {
    x: box.x + amount * (other.x - box.x),
    y: box.y + amount * (other.y - box.y),
    size: box.size + amount * (other.size - box.size),
  };
}

/**
 * Whether a crop is large enough, not larger than twice the picture, and has its centre in the picture.
 * @param {CropSquare} box
 * @param {number} width
 * @param {number} height
 */
export function isUsable(box, width, height) {
  const [centreX, centreY] = [box.x + box.size / 2, box.y + box.size / 2];
  const fits = SMALLEST_BOX_PX <= box.size && box.size <= 2 * Math.max(width, height);
  return fits && 0 <= centreX && centreX <= width && 0 <= centreY && centreY <= height;
}
