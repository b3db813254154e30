// What several tests read: the encoder's files and the vectors.

import { readFile } from "node:fs/promises";

import { webcrypto } from "node:crypto";

import { KeypointEncoder } from "../../clients/js/encoder/kernel.js";

// node 18 has it, but not as a global, which browsers have.
globalThis.crypto ??= webcrypto;

/** The bytes of a file as an ArrayBuffer of their own. */
export async function read(url) {
  const data = await readFile(url);
  return data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
}

export async function json(url) {
  return JSON.parse(await readFile(url, "utf8"));
}

export const vectors = (name) => new URL(`./vectors/${name}`, import.meta.url);
export const wireVectors = (name) => new URL(`../shared/wire/vectors/${name}`, import.meta.url);

const bundled = (name) => new URL(`../../clients/js/encoder/${name}`, import.meta.url);

/** The kernel to test: MIEN_KERNEL names another one than the committed one. */
export const kernel = () => read(process.env.MIEN_KERNEL ?? bundled("kernel.wasm"));
export const weights = async () => new Float32Array(await read(bundled("encoder.weights")));

/** An encoder of the kernel to test; no file is fetched. */
export async function loadEncoder() {
  return KeypointEncoder.of(await kernel(), await weights());
}

/** The largest difference between two sequences of numbers. */
export function furthest(a, b) {
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}
