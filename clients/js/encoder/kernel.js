// @ts-check
/**
 * The encoder K in a browser or in node: a picture's crop in, ten keypoints with Jacobians and the probability of a
 * face out. kernel.c and cut.c do the work; this module loads them and moves bytes in and out.
 * @import { Keypoints } from "../motion/keypoints.js"
 * @import { CropSquare } from "./crop.js"
 */

import { NUM_KEYPOINTS, ROW } from "../motion/keypoints.js";
import { CROP_SIZE } from "./crop.js";
import { KERNEL, WEIGHTS } from "./manifest.js";

/**
 * What the kernel exports. Addresses are offsets in `memory`, in bytes.
 * @typedef {object} Exports
 * @property {WebAssembly.Memory} memory
 * @property {() => number} tape_at where the weights go
 * @property {() => number} tape_room how many floats fit there
 * @property {() => number} tape_read how many floats the last `encode` read
 * @property {() => number} crop_at
 * @property {(width: number, height: number) => number} picture_at 0 if there is no memory
 * @property {(x: number, y: number, size: number) => void} cut
 * @property {() => number} encode address of 61 floats
 */

/**
 * The encoder's result for one crop. presence: 0 to 1, how likely the crop shows a correctly framed face.
 * @typedef {{keypoints: Keypoints, presence: number}} EncodedFace
 */

/**
 * A file as the manifest describes it.
 * @typedef {{file: string, bytes: number, sha256: string}} Entry
 */

/** The encoder cannot be used; the text says why. */
export class EncoderFileError extends Error {
  name = "EncoderFileError";
}
/** A file does not exist or cannot be read. */
export class EncoderFileMissing extends EncoderFileError {
  name = "EncoderFileMissing";
}
/** A file is shorter or longer than the manifest says. */
export class EncoderFileTruncated extends EncoderFileError {
  name = "EncoderFileTruncated";
}
/** A file's SHA-256 differs from the one in the manifest. */
export class EncoderFileTampered extends EncoderFileError {
  name = "EncoderFileTampered";
}
/** The kernel and the weights do not belong together. */
export class EncoderFileMismatch extends EncoderFileError {
  name = "EncoderFileMismatch";
}
/** This browser cannot run the kernel. */
export class EncoderNotSupported extends EncoderFileError {
  name = "EncoderNotSupported";
}
/** A picture has no pixels, or there is no memory for it. */
export class PictureTooLarge extends RangeError {
  name = "PictureTooLarge";
}

/** A module of one function that splats a number: what has no SIMD does not accept it. */
const SIMD_PROBE = Uint8Array.of(
  ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
);

/** @returns {boolean} whether this browser can run the kernel (all since 2021, Safari since 16.4) */
export function isSupported() {
  return typeof WebAssembly === "object" && WebAssembly.validate(SIMD_PROBE);
}

/**
 * The bytes of a file beside this module, checked against the manifest.
 * @param {Entry} entry
 * @param {(url: URL) => Promise<ArrayBuffer>} [read]
 * @returns {Promise<ArrayBuffer>}
 * @throws {EncoderFileError}
 */
export async function readChecked(entry, read = download) {
  // Bundlers follow this form only for literal names.
  const urls = {
    [KERNEL.file]: new URL("./kernel.wasm", import.meta.url),
    [WEIGHTS.file]: new URL("./encoder.weights", import.meta.url),
  };
  const data = await read(urls[entry.file]);
  if (data.byteLength !== entry.bytes) {
    throw new EncoderFileTruncated(`${entry.file} has ${data.byteLength} bytes, its manifest says ${entry.bytes}`);
  }
  const digest = hex(await crypto.subtle.digest("SHA-256", data));
  if (digest !== entry.sha256) {
    throw new EncoderFileTampered(`${entry.file} has SHA-256 ${digest}, its manifest says ${entry.sha256}`);
  }
  return data;
}

/**
 * @param {URL} url
 * @returns {Promise<ArrayBuffer>}
 */
async function download(url) {
  const file = url.pathname.split("/").pop();
  const response = await fetch(url).catch((error) => {
    throw new EncoderFileMissing(`${file} cannot be read: ${error.message}`);
  });
  if (!response.ok) throw new EncoderFileMissing(`${file} cannot be read: HTTP ${response.status}`);
  return response.arrayBuffer();
}

/** @param {ArrayBuffer} digest */
function hex(digest) {
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The encoder with its files loaded. It holds one picture and one crop. */
export class KeypointEncoder {
  #exports;

  /** @param {Exports} exports of the kernel, with the weights in its memory */
  constructor(exports) {
    this.#exports = exports;
    this.width = 0;
    this.height = 0;
  }

  /**
   * Load kernel and weights.
   * @param {(url: URL) => Promise<ArrayBuffer>} [read] reads a file; by default it is fetched
   * @returns {Promise<KeypointEncoder>}
   * @throws {EncoderFileError}
   */
  static async load(read = download) {
    if (!isSupported()) throw new EncoderNotSupported("this browser has no WebAssembly with SIMD");
    if (!globalThis.crypto?.subtle) {
      throw new EncoderNotSupported("the encoder needs a secure page: https or localhost");
    }
    const [kernel, weights] = await Promise.all([readChecked(KERNEL, read), readChecked(WEIGHTS, read)]);
    return KeypointEncoder.of(kernel, new Float32Array(weights));
  }

  /**
   * An encoder of files that are already here.
   * @param {ArrayBuffer} kernel
   * @param {Float32Array} weights
   * @returns {Promise<KeypointEncoder>}
   * @throws {EncoderFileMismatch}
   */
  static async of(kernel, weights) {
    const { instance } = await WebAssembly.instantiate(kernel);
    const exports = /** @type {Exports} */ (/** @type {unknown} */ (instance.exports));
    const room = exports.tape_room();
    if (weights.length > room) {
      throw new EncoderFileMismatch(`the weights are ${weights.length} floats, the kernel has room for ${room}`);
    }
    new Float32Array(exports.memory.buffer, exports.tape_at(), room).set(weights);
    try {
      exports.encode(); // also compiles it, so that the first picture does not wait
    } catch (error) {
      const message = "the weights describe no network that the kernel can run";
      throw new EncoderFileMismatch(message, { cause: error });
    }
    const needed = exports.tape_read();
    if (needed !== weights.length) {
      throw new EncoderFileMismatch(`the weights are ${weights.length} floats, the kernel reads ${needed}`);
    }
    return new KeypointEncoder(exports);
  }

  /**
   * Room for the next picture: the caller writes RGBA pixels there, row after row. Valid until the next call.
   * @param {number} width
   * @param {number} height
   * @returns {Uint8Array<ArrayBuffer>} width * height * 4 bytes
   * @throws {PictureTooLarge}
   */
  picture(width, height) {
    const at = width > 0 && height > 0 ? this.#exports.picture_at(width, height) : 0;
    if (at === 0) throw new PictureTooLarge(`a picture of ${width}x${height} pixels cannot be held`);
    this.width = width;
    this.height = height;
    return new Uint8Array(this.#buffer, at, 4 * width * height);
  }

  /**
   * Cut a square out of the picture and encode it.
   * @param {CropSquare} square
   * @returns {EncodedFace}
   */
  encode(square) {
    this.cut(square);
    return this.encodeCrop();
  }

  /**
   * Cut a square out of the picture.
   * @param {CropSquare} square
   * @returns {Uint8Array<ArrayBuffer>} 256 x 256 x 3 bytes, RGB; writing there changes the crop
   */
  cut(square) {
    this.#exports.cut(square.x, square.y, square.size);
    return this.crop;
  }

  /** The crop, 256 x 256 x 3 bytes, RGB. */
  get crop() {
    return new Uint8Array(this.#buffer, this.#exports.crop_at(), CROP_SIZE * CROP_SIZE * 3);
  }

  /** @returns {EncodedFace} of the crop as it is */
  encodeCrop() {
    const count = NUM_KEYPOINTS * ROW;
    const values = new Float32Array(this.#buffer, this.#exports.encode(), count + 1);
    return { keypoints: values.slice(0, count), presence: values[count] };
  }

  get #buffer() {
    return /** @type {ArrayBuffer} */ (this.#exports.memory.buffer);
  }
}
