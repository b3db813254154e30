// @ts-check
/** `npm run bench`: how long one picture takes in node, in milliseconds (median, 95th percentile of 500). */

import { readFile } from "node:fs/promises";

import { KeypointEncoder } from "./encoder/kernel.js";

/** @param {URL} url */
async function read(url) {
  const data = await readFile(url);
  return new Uint8Array(data).buffer;
}

/**
 * @param {string} name
 * @param {() => unknown} work
 */
function measure(name, work) {
  const times = [];
  for (let i = 0; i < 700; i++) {
    const beganMs = performance.now();
    work();
    if (i >= 200) times.push(performance.now() - beganMs);
  }
  times.sort((a, b) => a - b);
  console.log(`${name.padEnd(44)} ${times[250].toFixed(2)}  ${times[475].toFixed(2)}`);
}

const encoder = await KeypointEncoder.load(read);
encoder.picture(1280, 720).forEach((_, i, pixels) => (pixels[i] = (i * 7 + (i >> 9)) & 255));
measure("K on a crop", () => encoder.encodeCrop());
measure("cut, 200 pixels", () => encoder.cut({ x: 200.5, y: 100.5, size: 200.3 }));
measure("cut, 300 pixels", () => encoder.cut({ x: 200.5, y: 100.5, size: 300.3 }));
measure("cut, 600 pixels, averaged", () => encoder.cut({ x: 200.5, y: 60.5, size: 600.3 }));
measure("cut and K, 300 pixels", () => encoder.encode({ x: 200.5, y: 100.5, size: 300.3 }));
