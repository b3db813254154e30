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
 * The crop for a face according to the framing convention, computed from its keypoints in `box`.
 *
 * A similarity (rotation, scale and shift of least squared error) maps the layout to the steady keypoints; it maps the
 * layout's crop to the new crop. Rotation is ignored, because crops are upright.
 * @param {Keypoints} keypoints
 * @param {CropSquare} box
 * @returns {CropSquare}
 */
export function framingOf(keypoints, box) {
  const count = STEADY_LAYOUT.length;
  let [fromX, fromY, toX, toY] = [0, 0, 0, 0];
  for (const [k, x, y] of STEADY_LAYOUT) {
    fromX += x / count;
    fromY += y / count;
    toX += keypoints[k * ROW] / count;
    toY += keypoints[k * ROW + 1] / count;
  }
  let [power, a, b] = [0, 0, 0];
  for (const [k, x, y] of STEADY_LAYOUT) {
    const [sx, sy] = [x - fromX, y - fromY];
    const [tx, ty] = [keypoints[k * ROW] - toX, keypoints[k * ROW + 1] - toY];
    power += sx * sx + sy * sy;
    a += sx * tx + sy * ty;
    b += sx * ty - sy * tx;
  }
  a /= power;
  b /= power;
  const size = box.size * Math.hypot(a, b);
  const centreX = (toX - (a * fromX - b * fromY) + 1) * (box.size / 2) + box.x;
  const centreY = (toY - (b * fromX + a * fromY) + 1) * (box.size / 2) + box.y;
  return { x: centreX - size / 2, y: centreY - size / 2, size };
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
