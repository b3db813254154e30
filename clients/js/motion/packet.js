// @ts-check
/**
 * Motion packet version 1: 128 bytes, little-endian. The Python side is `mien_shared/wire/motion_v1.py`.
 *
 * | offset | type | field |
 * |---|---|---|
 * | 0 | u8 | version = 1 |
 * | 1 | u8 | flags, see MotionFlags |
 * | 2 | u16 | sequence, wraps |
 * | 4 | u32 | capture time in milliseconds, wraps |
 * | 8 | 10 x 6 f16 | x, y, j00, j01, j10, j11 of each keypoint |
 *
 * Pure.
 * @import { Keypoints } from "./keypoints.js"
 */

import { ROW, areFinite } from "./keypoints.js";

export const VERSION = 1;
export const PACKET_BYTES = 128;
/** The largest absolute value of a coordinate. The crop spans [-1, 1]; a face may be half outside it. */
export const MAX_COORDINATE = 4;
/** The largest absolute value of a Jacobian's entry. */
export const MAX_JACOBIAN = 8;

const HEADER_BYTES = 8;

/** Properties of a packet's motion. */
export const MotionFlags = Object.freeze({
  NONE: 0,
  /** the keypoints are positions in the crop, not relative to the initial frame */
  ABSOLUTE: 1,
  /** the sender's judgement replaced this frame */
  DEFAULT_MOTION: 2,
  /** this frame and those after it are relative to another initial frame */
  NEW_INITIAL_FRAME: 4,
});

/**
 * One frame of motion. sequence and captureMs (Unix milliseconds of the sender's clock) may have any whole value: the
 * packet carries their low 16 and 32 bits.
 * @typedef {{sequence: number, captureMs: number, flags: number, keypoints: Keypoints}} MotionPacket
 */

/** A packet cannot carry this motion. */
export class MotionPacketError extends RangeError {
  name = "MotionPacketError";
}

/**
 * The 128 bytes on the wire.
 * @param {MotionPacket} packet
 * @returns {Uint8Array<ArrayBuffer>}
 * @throws {MotionPacketError} a value is not finite, or outside the limits that every receiver checks
 */
export function pack(packet) {
  if (!areFinite(packet.keypoints)) throw new MotionPacketError("a motion packet holds a value that is not finite");
  const flaw = outOfRange(packet.keypoints);
  if (flaw !== null) throw new MotionPacketError(flaw);
  const bytes = new Uint8Array(PACKET_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, VERSION);
  view.setUint8(1, packet.flags);
  view.setUint16(2, packet.sequence, true);
  view.setUint32(4, packet.captureMs, true);
  packet.keypoints.forEach((value, i) => view.setUint16(HEADER_BYTES + 2 * i, halfBits(value), true));
  return bytes;
}

/**
 * What lies outside a packet's limits, as a sentence; null if nothing does. The values must be finite.
 * @param {Keypoints} keypoints
 * @returns {string|null}
 */
export function outOfRange(keypoints) {
  const isPoint = (/** @type {number} */ i) => i % ROW < 2;
  if (keypoints.some((value, i) => isPoint(i) && Math.abs(value) > MAX_COORDINATE)) {
    return `a keypoint lies outside [-${MAX_COORDINATE}, ${MAX_COORDINATE}]`;
  }
  if (keypoints.some((value, i) => !isPoint(i) && Math.abs(value) > MAX_JACOBIAN)) {
    return `a Jacobian entry lies outside [-${MAX_JACOBIAN}, ${MAX_JACOBIAN}]`;
  }
  return null;
}

const float = new Float32Array(1);
const floatBits = new Uint32Array(float.buffer);

/**
 * The bits of the nearest half float (IEEE 754 binary16), ties to even.
 * @param {number} value within [-65504, 65504]
 * @returns {number} 16 bits
 */
export function halfBits(value) {
  float[0] = value;
  const sign = (floatBits[0] >>> 16) & 0x8000;
  const bits = floatBits[0] & 0x7fff_ffff;
  if (bits < 0x3880_0000) {
    // Below 2^-14 halves are multiples of 2^-24, which is the last bit of a float between 0.5 and 1: so the addition
    // rounds as needed.
    float[0] = Math.abs(value) + 0.5;
    return sign | (floatBits[0] - 0x3f00_0000);
  }
  // A half has 13 bits less of fraction, and an exponent that is less by 112.
  return sign | (((bits + 0x0fff + ((bits >>> 13) & 1)) >>> 13) - (112 << 10));
}
