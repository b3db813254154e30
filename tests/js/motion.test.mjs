// Smoothing, judgement, default motion and packets, held to Python by the vectors in tests/shared/wire/vectors.

import assert from "node:assert/strict";
import { test } from "node:test";

import { defaultMotion } from "../../clients/js/motion/default_motion.js";
import { Judgement, POLICY, l2 } from "../../clients/js/motion/judgement.js";
import { atRest, leastStretch, relativeTo } from "../../clients/js/motion/keypoints.js";
import { OutgoingMotion } from "../../clients/js/motion/outgoing.js";
import { halfBits, pack } from "../../clients/js/motion/packet.js";
import { DeadZones, OneEuro } from "../../clients/js/motion/smoothing.js";
import { furthest, json, read, wireVectors } from "./files.mjs";

/** Keypoints of ten rows; null is NaN. */
const keypointsOf = (rows) => Float32Array.from(rows.flat(), (value) => value ?? NaN);

function halfOf(bits) {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

test("L2 is eq. 2", async () => {
  const vectors = await json(wireVectors("l2.json"));
  assert.deepEqual([POLICY.alpha, POLICY.beta], [vectors.alpha, vectors.beta]);
  for (const entry of vectors.l2) assert.ok(Math.abs(l2(keypointsOf(entry.motion)) - entry.l2) < 1e-3);
});

test("the judgement decides and shows the same in a call in which everything happens", async () => {
  const vectors = await json(wireVectors("judgement.json"));
  const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  const policy = Object.fromEntries(Object.entries(POLICY).map(([name, value]) => [snake(name), value]));
  assert.deepEqual(policy, vectors.policy);
  const judgement = new Judgement(keypointsOf(vectors.source), vectors.seed);
  for (const frame of vectors.frames) {
    const judged = judgement.judge(frame.found && keypointsOf(frame.found), frame.time_s);
    const at = `at ${frame.time_s} s`;
    assert.equal(judged.verdict, frame.verdict, at);
    assert.equal(judged.flags, frame.flags, at);
    assert.equal(judged.l2 === null, frame.l2 === null, at);
    assert.ok(Math.abs((judged.l2 ?? 0) - (frame.l2 ?? 0)) < 1e-3, at);
    assert.ok(furthest(judged.motion, frame.motion.flat()) < 2e-4, at);
  }
  const { accepted, rejected, lost, initialFrames } = judgement;
  assert.equal(accepted + rejected + lost, vectors.frames.length);
  assert.ok(initialFrames > 1);
});

test("the default motion is the generator's", async () => {
  const vectors = await json(wireVectors("default_motion.json"));
  const source = keypointsOf(vectors.source);
  for (const { seed, seconds, motion } of vectors.motions) {
    assert.ok(furthest(defaultMotion(source, seed, seconds), motion.flat()) < 2e-5, `seed ${seed} at ${seconds} s`);
  }
});

test("smoothing gives the same values", async () => {
  const { inputs, outputs } = await json(wireVectors("smoothing.json"));
  for (const [name, smoother] of Object.entries({
    "one-euro": new OneEuro(),
    "one-euro with dead zones": new DeadZones(new OneEuro()),
  })) {
    assert.equal(outputs[name].delay_frames, 0);
    inputs.forEach(({ time_s, value }, i) => {
      const off = furthest(smoother.filter(value.flat(), time_s), outputs[name].values[i].flat());
      assert.ok(off < 2e-6, `${name}, value ${i}: ${off}`);
    });
  }
});

test("smoothers refuse what would corrupt them, and go on", () => {
  const smoother = new DeadZones(new OneEuro());
  const still = Float64Array.from(atRest());
  smoother.filter(still, 0);
  const spoilt = still.slice();
  spoilt[7] = NaN;
  assert.throws(() => smoother.filter(spoilt, 0.03), {
    name: "UnsmoothableValue",
    message: "the value to smooth is not finite",
  });
  assert.throws(() => smoother.filter(still.slice(6), 0.03), {
    name: "UnsmoothableValue",
    message: "dead zones need ten rows of six values, not 54 values",
  });
  assert.equal(furthest(smoother.filter(still, 0.06), still), 0);
});

test("the judgement refuses a time that runs backwards and a source that is no pose", () => {
  const judgement = new Judgement(atRest());
  judgement.judge(null, 2);
  assert.throws(() => judgement.judge(null, 1.5), {
    name: "TimeRanBackwards",
    message: "a frame was captured 0.500 s before the previous frame",
  });
  assert.equal(judgement.lost, 1);
  const refusal = { message: "the source pose has a singular Jacobian or a value that is not finite" };
  assert.throws(() => new Judgement(new Float32Array(60)), refusal);
  assert.throws(() => new Judgement(new Float32Array(60).fill(NaN)), refusal);
});

test("every half float is packed as itself, and what lies between two as the nearer or the even one", () => {
  for (let bits = 0; bits < 0x7bff; bits++) {
    const [value, next] = [halfOf(bits), halfOf(bits + 1)];
    const middle = (value + next) / 2;
    assert.equal(halfBits(value), bits);
    assert.equal(halfBits(middle), bits + (bits & 1), "ties go to the even one");
    assert.equal(halfBits(Math.fround(middle + (next - value) / 8)), bits + 1);
    assert.equal(halfBits(Math.fround(middle - (next - value) / 8)), bits);
    assert.equal(halfBits(-next), (bits + 1) | 0x8000);
  }
});

test("a packet is the captured one, byte for byte", async () => {
  const captured = new Uint8Array(await read(new URL("../shared/wire/captured/packet_v1.bin", import.meta.url)));
  const view = new DataView(captured.buffer);
  const keypoints = Float32Array.from({ length: 60 }, (_, i) => halfOf(view.getUint16(8 + 2 * i, true)));
  const header = { flags: captured[1], sequence: view.getUint16(2, true), captureMs: view.getUint32(4, true) };
  assert.deepEqual(pack({ ...header, keypoints }), captured);
});

test("sequence and capture time wrap", () => {
  const view = new DataView(pack({ sequence: 65_537, captureMs: 2 ** 32 + 5, flags: 0, keypoints: atRest() }).buffer);
  assert.deepEqual([view.getUint16(2, true), view.getUint32(4, true)], [1, 5]);
});

test("a packet never carries what a receiver would refuse", () => {
  const packed = (i, value) => {
    const keypoints = atRest();
    keypoints[i] = value;
    return pack({ sequence: 0, captureMs: 0, flags: 0, keypoints });
  };
  const refusals = [
    [3, NaN, "a motion packet holds a value that is not finite"],
    [0, -Infinity, "a motion packet holds a value that is not finite"],
    [6, 4.01, "a keypoint lies outside [-4, 4]"],
    [59, -8.01, "a Jacobian entry lies outside [-8, 8]"],
  ];
  for (const [i, value, message] of refusals) {
    assert.throws(() => packed(i, value), { name: "MotionPacketError", message });
  }
  assert.equal(packed(0, 4).length, 128);
  assert.equal(packed(59, -8).length, 128);
});

test("whatever K says, every packet can be packed", () => {
  let state = 12345;
  const random = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32;
  const wild = [NaN, Infinity, -Infinity, 0, 1e-40, 3.4e38, -3.4e38, 4, 8, 1000];
  const outgoing = new OutgoingMotion(atRest(), 3);
  for (let frame = 0; frame < 5000; frame++) {
    const found = atRest().map((value) => value + 0.1 * random());
    const spoilt = random();
    if (spoilt < 0.3) found[Math.floor(60 * random())] = wild[Math.floor(wild.length * random())];
    if (spoilt < 0.05) found.fill(wild[Math.floor(wild.length * random())]);
    const packet = outgoing.packet(random() < 0.1 ? null : found, frame / 30, frame * 33);
    assert.equal(pack(packet).length, 128);
    assert.equal(packet.sequence, frame & 0xffff);
  }
  const { accepted, rejected, lost } = outgoing.judgement;
  assert.ok(accepted > 100 && rejected > 100 && lost > 100, `${accepted} ${rejected} ${lost}`);
});

test("the smallest singular value is that of the definition", () => {
  const keypoints = atRest();
  keypoints.set([3, 1, -2, 0.5], 20); // J^T J has the eigenvalues s1^2 and s2^2
  const [trace, determinant] = [9 + 1 + 4 + 0.25, 3 * 0.5 + 2];
  const smallest = Math.sqrt((trace - Math.sqrt(trace ** 2 - 4 * determinant ** 2)) / 2);
  keypoints.fill(0, 20, 24);
  assert.equal(leastStretch(keypoints), 0);
  keypoints.set([3, 1, -2, 0.5], 20);
  assert.ok(Math.abs(leastStretch(keypoints) - Math.min(1, smallest)) < 1e-6);
});

test("relative motion is (v - v_i, J J_i^-1)", () => {
  const initial = atRest();
  initial.set([0.5, -0.5, 2, 1, 0.5, 1], 0);
  const found = atRest();
  found.set([0.75, 0, 4, 2, 1, 2], 0); // twice the Jacobian
  assert.deepEqual([...relativeTo(found, initial).subarray(0, 6)], [0.25, 0.5, 2, 0, 0, 2]);
});
