// @ts-check
/**
 * Puts a video frame's pixels into the encoder's memory, scaled down if it is large.
 * @import { KeypointEncoder } from "./kernel.js"
 */

/** Longest side of the pictures in which faces are searched, as in the Python client. */
export const LONGEST_SIDE = 1280;

/**
 * A phone's camera may deliver pictures that lie on their side (rotation in degrees); copyTo does not turn them.
 * @typedef {VideoFrame & {rotation?: number, flip?: boolean}} OrientedFrame
 */

export class PixelWriter {
  #encoder;
  /** Chromium and Safari convert in copyTo, which takes a fifth of the canvas' time; others refuse. */
  #copies = true;
  /** @type {OffscreenCanvas|null} */
  #canvas = null;

  /** @param {KeypointEncoder} encoder */
  constructor(encoder) {
    this.#encoder = encoder;
  }

  /**
   * @param {VideoFrame|ImageBitmap} frame the caller closes it
   * @returns {Promise<void>}
   */
  async write(frame) {
    if (this.#copies && "copyTo" in frame && (await this.#copied(frame))) return;
    this.#draw(frame);
  }

  /**
   * @param {OrientedFrame} frame
   * @returns {Promise<boolean>} false if the frame has to be drawn
   */
  async #copied(frame) {
    const { width, height } = frame.visibleRect ?? { width: frame.codedWidth, height: frame.codedHeight };
    const isUpright = !frame.rotation && !frame.flip;
    if (!isUpright || Math.max(width, height) > LONGEST_SIDE) return false;
    try {
      await frame.copyTo(this.#encoder.picture(width, height), { format: "RGBA" });
      return true;
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== "NotSupportedError") throw error;
      this.#copies = false;
      return false;
    }
  }

  /** @param {VideoFrame|ImageBitmap} frame */
  #draw(frame) {
    const [fullWidth, fullHeight] =
      "displayWidth" in frame ? [frame.displayWidth, frame.displayHeight] : [frame.width, frame.height];
    const scale = Math.min(1, LONGEST_SIDE / Math.max(fullWidth, fullHeight));
    const width = Math.max(1, Math.round(fullWidth * scale));
    const height = Math.max(1, Math.round(fullHeight * scale));
    this.#canvas ??= new OffscreenCanvas(width, height);
    if (this.#canvas.width !== width) this.#canvas.width = width;
    if (this.#canvas.height !== height) this.#canvas.height = height;
    const context = this.#canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new Error("this browser has no canvas in a worker");
    context.drawImage(frame, 0, 0, width, height);
    this.#encoder.picture(width, height).set(context.getImageData(0, 0, width, height).data);
  }
}
