// The mouth by voice and the reactions, held to Python by the vectors in tests/shared/wire/vectors.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Judgement } from "../../clients/js/motion/judgement.js";
import { atRest } from "../../clients/js/motion/keypoints.js";
import { opened } from "../../clients/js/motion/mouth.js";
import { OutgoingMotion } from "../../clients/js/motion/outgoing.js";
import { MotionFlags, pack } from "../../clients/js/motion/packet.js";
import { FACE_REACTIONS, Reactions } from "../../clients/js/motion/reactions.js";
import { VoiceBands, VoiceMouth } from "../../clients/js/motion/voice_mouth.js";
import { furthest, json, wireVectors } from "./files.mjs";

const keypointsOf = (rows) => Float32Array.from(rows.flat(), (value) => value ?? NaN);

/** The lips' distance in a packet's motion, more than at rest. */
const gap = (motion) => motion[6 * 6 + 1] - motion[5 * 6 + 1];

/** The sound that the vectors describe; see `voice` in make.py. */
function voice(rateHz, parts) {
  const samples = [];
  for (const { seconds, tones } of parts) {
    const end = samples.length + Math.round(seconds * rateHz);
    while (samples.length < end) {
      const timeS = samples.length / rateHz;
      samples.push(tones.reduce((sum, [hertz, amplitude]) => sum + amplitude * Math.sin(2 * Math.PI * hertz * timeS), 0));
    }
  }
  return Float32Array.from(samples);
}

test("a mouth opens as in Python, and camera and voice are one face", async () => {
  const vectors = await json(wireVectors("mouth.json"));
  for (const { opening, motion } of vectors.openings) {
    assert.ok(furthest(opened(keypointsOf(vectors.moving), opening), motion.flat()) < 2e-5);
  }
  const judgement = new Judgement(keypointsOf(vectors.source), vectors.seed);
  for (const { time_s, found, mouth, motion } of vectors.frames) {
    const judged = judgement.judge(found && keypointsOf(found), time_s, mouth);
    assert.ok(furthest(judged.motion, motion.flat()) < 2e-4, `at ${time_s} s`);
  }
});

test("a voice opens the mouth as in Python, at both rates, however the samples come", async () => {
  const vectors = await json(wireVectors("voice_mouth.json"));
  for (const { rate_hz, bands_db, openings, after } of vectors.series) {
    const [bands, mouth, samples] = [new VoiceBands(rate_hz), new VoiceMouth(), voice(rate_hz, vectors.parts)];
    const measured = [];
    for (let at = 0; at < samples.length; at += 128) measured.push(...bands.push(samples.subarray(at, at + 128)));
    assert.equal(measured.length, bands_db.length);
    measured.forEach((levels, i) => {
      assert.ok(furthest(levels, bands_db[i]) < 0.01, `${rate_hz} Hz, ${i}: ${levels} ${bands_db[i]}`);
      const timeS = vectors.begins_s + i * vectors.hop_s;
      mouth.hear(levels, timeS);
      assert.ok(Math.abs(mouth.opening(timeS) - openings[i]) < 1e-3, `${rate_hz} Hz, ${i}`);
    });
    for (const [timeS, opening] of after) assert.ok(Math.abs(mouth.opening(timeS) - opening) < 1e-3);
  }
});

test("a rate too low for the bands is refused", () => {
  assert.throws(() => new VoiceBands(8000), { message: "a voice needs 16000 samples a second or more, not 8000" });
});

test("reactions are those of Python", async () => {
  const vectors = await json(wireVectors("reactions.json"));
  assert.deepEqual(FACE_REACTIONS, vectors.names);
  const moving = keypointsOf(vectors.moving);
  for (const { begun, shown } of vectors.calls) {
    const [reactions, waiting] = [new Reactions(), [...begun]];
    for (const [timeS, motion] of shown) {
      while (waiting.length > 0 && waiting[0][1] <= timeS) reactions.begin(...waiting.shift());
      assert.ok(furthest(reactions.appliedTo(moving, timeS), motion.flat()) < 2e-5, `${begun} at ${timeS} s`);
    }
  }
  const message = /there is no reaction "wink": choose one of nod, shake/;
  assert.throws(() => new Reactions().begin("wink", 0), { name: "UnknownReaction", message });
});

test("packets of a participant without a camera speak", () => {
  const outgoing = new OutgoingMotion(atRest());
  const bands = new VoiceBands(48_000);
  const vowel = voice(48_000, [{ seconds: 1, tones: [[150, 0.2], [750, 0.15], [1150, 0.1]] }]);
  const levels = bands.push(vowel);
  const gaps = [];
  for (let frame = 0; frame < 60; frame++) {
    const timeS = 5 + frame / 30;
    for (let hop = 0; hop < levels.length; hop++) {
      const heardS = 5 + hop * 0.02;
      if (heardS > timeS - 1 / 30 && heardS <= timeS) outgoing.hear(levels[hop], heardS);
    }
    const packet = outgoing.packet(null, timeS, Math.floor(timeS * 1000));
    assert.equal(packet.flags, MotionFlags.DEFAULT_MOTION);
    gaps.push(gap(packet.keypoints));
  }
  assert.ok(Math.max(...gaps.slice(5, 30)) > 0.03, "open at speech");
  assert.ok(Math.max(...gaps.slice(45)) < 0.005, "shut at silence");
});

test("a reaction begins with the next packet, and a packet can always carry it", () => {
  const outgoing = new OutgoingMotion(atRest());
  outgoing.react("nod");
  outgoing.react("nod");
  assert.throws(() => outgoing.react("wink"), { name: "UnknownReaction" });
  const noses = [];
  for (let frame = 0; frame < 60; frame++) {
    const packet = outgoing.packet(null, 1 + frame / 30, 0);
    assert.equal(pack(packet).length, 128);
    noses.push(packet.keypoints[4 * 6 + 1]);
  }
  assert.ok(noses[0] < 0.001 && Math.max(...noses) > 0.06 && Math.abs(noses[40]) < 0.02, `${noses}`);
});
