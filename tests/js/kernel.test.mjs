// K and the cut, held to what ONNX Runtime and OpenCV compute in Python, and to plain JavaScript.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import * as kernelModule from "../../clients/js/encoder/kernel.js";
import { KERNEL, WEIGHTS } from "../../clients/js/encoder/manifest.js";
import { draw, pose } from "./drawn_face.mjs";
import { furthest, json, kernel, loadEncoder, read, vectors, weights } from "./files.mjs";
import { crossCheckNetwork, encodeSlowly } from "./oracle.mjs";

const { KeypointEncoder, isSupported, readChecked } = kernelModule;
const { picture_sha256: pictureSha256, block, crops } = await json(vectors("crops.json"));

async function encoderWithFace() {
  const encoder = await loadEncoder();
  encoder.picture(640, 480).set(draw(pose()));
  return encoder;
}

function blockSums(crop) {
  const side = 256 / block;
  const sums = new Array(side * side * 3).fill(0);
  crop.forEach((value, i) => {
    const [pixel, channel] = [Math.floor(i / 3), i % 3];
    const [row, column] = [Math.floor(pixel / 256 / block), Math.floor((pixel % 256) / block)];
    sums[(row * side + column) * 3 + channel] += value;
  });
  return sums;
}

test("this node runs the kernel", () => assert.equal(isSupported(), true));

test("the drawn face has the pixels that Python draws", () => {
  const rgb = draw(pose()).filter((_, i) => i % 4 !== 3);
  assert.equal(createHash("sha256").update(rgb).digest("hex"), pictureSha256);
});

test("crops are those of Python: framed, close, far, beyond the edges, small, unscaled", async () => {
  const encoder = await encoderWithFace();
  for (const { square, block_sums } of crops) {
    assert.ok(furthest(blockSums(encoder.cut(square)), block_sums) <= 8, JSON.stringify(square));
  }
});

test("keypoints and presence are ONNX Runtime's within 1e-3; in fact within 2e-5", async () => {
  const encoder = await encoderWithFace();
  for (const { square, keypoints, presence } of crops) {
    const face = encoder.encode(square);
    assert.ok(furthest(face.keypoints, keypoints) < 2e-5, JSON.stringify(square));
    assert.ok(Math.abs(face.presence - presence) < 2e-5, JSON.stringify(square));
  }
});

test("a second picture of another size replaces the first", async () => {
  const encoder = await encoderWithFace();
  const { square, keypoints } = crops[0];
  encoder.picture(2560, 1440).fill(90);
  assert.ok(encoder.encode(square).presence < 0.3);
  encoder.picture(640, 480).set(draw(pose()));
  assert.ok(furthest(encoder.encode(square).keypoints, keypoints) < 2e-5);
});

test("plain JavaScript computes the same from the same tape", async () => {
  const encoder = await encoderWithFace();
  encoder.cut(crops[0].square);
  const { keypoints, presence } = encoder.encodeCrop();
  const slow = encodeSlowly(await weights(), encoder.crop);
  assert.ok(furthest(keypoints, slow.subarray(0, 60)) < 2e-5);
  assert.ok(Math.abs(presence - slow[60]) < 2e-5);
});

test("a network of other widths needs other weights, not another kernel", async () => {
  const tape = crossCheckNetwork();
  const encoder = await KeypointEncoder.of(await kernel(), tape);
  encoder.crop.forEach((_, i, crop) => (crop[i] = (i * 37 + (i >> 8) * 11) % 256));
  const { keypoints, presence } = encoder.encodeCrop();
  const slow = encodeSlowly(tape, encoder.crop);
  assert.ok(furthest(keypoints, slow.subarray(0, 60)) < 1e-4);
  assert.ok(Math.abs(presence - slow[60]) < 1e-4);
  assert.ok(furthest(slow, new Float32Array(61)) > 0.01, "the network says something");
});

test("files are checked against the manifest", async () => {
  const whole = await read(new URL("../../clients/js/encoder/encoder.weights", import.meta.url));
  assert.equal((await readChecked(WEIGHTS, async () => whole)).byteLength, WEIGHTS.bytes);
  await assert.rejects(readChecked(WEIGHTS, async () => whole.slice(0, -1000)), {
    name: "EncoderFileTruncated",
    message: `encoder.weights has ${WEIGHTS.bytes - 1000} bytes, its manifest says ${WEIGHTS.bytes}`,
  });
  const tampered = whole.slice(0);
  new Uint8Array(tampered)[WEIGHTS.bytes >> 1] ^= 1;
  const digest = createHash("sha256").update(new Uint8Array(tampered)).digest("hex");
  await assert.rejects(readChecked(WEIGHTS, async () => tampered), {
    name: "EncoderFileTampered",
    message: `encoder.weights has SHA-256 ${digest}, its manifest says ${WEIGHTS.sha256}`,
  });
  await assert.rejects(readChecked(KERNEL, async () => new ArrayBuffer(0)), {
    name: "EncoderFileTruncated",
    message: `kernel.wasm has 0 bytes, its manifest says ${KERNEL.bytes}`,
  });
});

test("both files are loaded from beside the module", async () => {
  const encoder = await KeypointEncoder.load(read);
  encoder.picture(640, 480).set(draw(pose()));
  assert.ok(encoder.encode(crops[0].square).presence > 0.99);
});

test("a missing file is named", async (t) => {
  t.mock.method(globalThis, "fetch", async () => new Response("", { status: 404 }));
  await assert.rejects(KeypointEncoder.load(), {
    name: "EncoderFileMissing",
    message: /^(kernel\.wasm|encoder\.weights) cannot be read: HTTP 404$/,
  });
});

test("a page that is not secure has no digests, and is told so", async (t) => {
  t.mock.getter(globalThis, "crypto", () => undefined);
  await assert.rejects(KeypointEncoder.load(read), {
    name: "EncoderNotSupported",
    message: "the encoder needs a secure page: https or localhost",
  });
});

test("a browser without SIMD is told so", async (t) => {
  t.mock.method(WebAssembly, "validate", () => false);
  assert.equal(isSupported(), false);
  await assert.rejects(KeypointEncoder.load(read), {
    name: "EncoderNotSupported",
    message: "this browser has no WebAssembly with SIMD",
  });
});

test("weights of another network are refused", async () => {
  const tape = await weights();
  const longer = new Float32Array(tape.length + 1);
  longer.set(tape);
  await assert.rejects(KeypointEncoder.of(await kernel(), longer), {
    name: "EncoderFileMismatch",
    message: `the weights are ${tape.length + 1} floats, the kernel reads ${tape.length}`,
  });
  await assert.rejects(KeypointEncoder.of(await kernel(), new Float32Array(200_000)), {
    name: "EncoderFileMismatch",
    message: "the weights are 200000 floats, the kernel has room for 131072",
  });
});

test("weights that make no network are refused", async () => {
  for (const value of [NaN, 0, -3, 1e9, Infinity, 900]) {
    await assert.rejects(KeypointEncoder.of(await kernel(), new Float32Array(5000).fill(value)), {
      name: "EncoderFileMismatch",
      message: "the weights describe no network that the kernel can run",
    });
  }
});

test("a picture without pixels, or of more than memory holds, is refused", async () => {
  const encoder = await loadEncoder();
  for (const [width, height] of [[0, 480], [640, 0], [-1, -1], [65_536, 65_536]]) {
    assert.throws(() => encoder.picture(width, height), {
      name: "PictureTooLarge",
      message: `a picture of ${width}x${height} pixels cannot be held`,
    });
  }
});
