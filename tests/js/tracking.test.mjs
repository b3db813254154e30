// From pictures to packets: the same performance gives the packets that Python makes; faces are found by the grid.

import assert from "node:assert/strict";
import { test } from "node:test";

import { CaptureClock } from "../../clients/js/encoder/capture_clock.js";
import { GridFinder, SEARCH_INTERVAL_S, gridOf } from "../../clients/js/encoder/finder.js";
import { MotionSource } from "../../clients/js/encoder/motion_source.js";
import { FaceTracker } from "../../clients/js/encoder/tracker.js";
import { MotionFlags, PACKET_BYTES, pack } from "../../clients/js/motion/packet.js";
import { OutgoingMotion } from "../../clients/js/motion/outgoing.js";
import { draw, pose, speaking } from "./drawn_face.mjs";
import { json, loadEncoder, read, vectors } from "./files.mjs";

const call = await json(vectors("call.json"));
const avatar = Float32Array.from(call.avatar);
const FRAME_MS = 1000 / 30;

/** vectors/make.py, performance(). */
function performance() {
  const frames = (start, end) => Array.from({ length: end - start }, (_, i) => speaking(start + i));
  return [...frames(0, 150), ...Array(12).fill(null), ...frames(0, 30), ...Array(3).fill(null), ...frames(30, 45)];
}

/** A finder that claims one face in every search, as vectors/make.py has it. */
class ClaimingFinder {
  #searchedAtS = -Infinity;
  find(timeS) {
    if (timeS - this.#searchedAtS < SEARCH_INTERVAL_S) return [];
    this.#searchedAtS = timeS;
    return [call.claimed];
  }
}

/** Distance of two half floats in units of the last place. */
function unitsApart(a, b) {
  const ordered = (bits) => (bits & 0x8000 ? -(bits & 0x7fff) : bits);
  return Math.abs(ordered(a) - ordered(b));
}

function valueOf(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  return (bits & 0x8000 ? -1 : 1) * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

async function sourceWith(finderOf, send) {
  const encoder = await loadEncoder();
  const tracker = new FaceTracker(encoder, finderOf(encoder));
  return { encoder, tracker, source: new MotionSource(tracker, new OutgoingMotion(avatar, call.seed), send) };
}

test("the same pictures give the same packets as in Python", async () => {
  const packets = [];
  const { encoder, source } = await sourceWith(() => new ClaimingFinder(), (packet) => packets.push(pack(packet)));
  performance().forEach((pose, frame) => {
    encoder.picture(640, 480).set(draw(pose));
    source.see(call.start_ms + Math.round(frame * FRAME_MS));
  });
  const expected = new Uint8Array(await read(vectors("call.motion")));
  assert.equal(expected.length, packets.length * PACKET_BYTES);
  let values = 0;
  let equal = 0;
  packets.forEach((packet, number) => {
    const wanted = expected.subarray(number * PACKET_BYTES, (number + 1) * PACKET_BYTES);
    assert.deepEqual(packet.subarray(0, 8), wanted.subarray(0, 8), `header of packet ${number}`);
    const [ours, theirs] = [packet, wanted].map((bytes) => new DataView(bytes.buffer, bytes.byteOffset));
    for (let at = 8; at < PACKET_BYTES; at += 2) {
      const [a, b] = [ours.getUint16(at, true), theirs.getUint16(at, true)];
      const close = unitsApart(a, b) <= 1 || Math.abs(valueOf(a) - valueOf(b)) <= 1e-4;
      assert.ok(close, `packet ${number}, byte ${at}: ${valueOf(a)} and ${valueOf(b)}`);
      values++;
      equal += a === b ? 1 : 0;
    }
  });
  assert.ok(equal / values > 0.7, `${equal} of ${values} values are equal`);
});

test("the grid covers the picture with two sizes", () => {
  for (const [width, height] of [[640, 480], [480, 640], [1280, 720], [300, 300]]) {
    const squares = gridOf(width, height);
    assert.ok(squares.length <= 40);
    assert.equal(new Set(squares.map(({ size }) => size)).size, 2);
    const small = squares.at(-1).size;
    for (let x = small / 2; x <= width - small / 2; x += 7) {
      for (let y = small / 2; y <= height - small / 2; y += 7) {
        const off = ({ x: left, y: top, size }) =>
          Math.max(Math.abs(left + size / 2 - x), Math.abs(top + size / 2 - y)) / size;
        assert.ok(squares.some((square) => square.size === small && off(square) <= 0.251), `${x}, ${y}`);
      }
    }
  }
});

test("a face of any usual size and place is found by the grid within a second", async () => {
  const { encoder } = await sourceWith((encoder) => new GridFinder(encoder));
  for (const changes of [
    {},
    { height: 330, y: 250 },
    { height: 110, x: 140, y: 120, lids: 4, lips: 2 },
    { height: 90, x: 520, y: 330, lids: 3, lips: 1 },
    { height: 200, x: 120, y: 300 },
    { height: 150, x: 450, y: 130, lids: 6 },
  ]) {
    const shown = pose(changes);
    const tracker = new FaceTracker(encoder, new GridFinder(encoder));
    encoder.picture(640, 480).set(draw(shown));
    const faces = Array.from({ length: 30 }, (_, i) => tracker.find(i / 30));
    const face = faces.at(-1);
    assert.ok(face, `not found: ${JSON.stringify(changes)}`);
    assert.ok(Math.abs(face.box.x + face.box.size / 2 - shown.x) < 0.1 * shown.height, "beside the face");
    assert.ok(face.box.size > 1.2 * shown.height && face.box.size < 1.7 * shown.height, "of the face's size");
  }
});

test("what is no face is not found: a wall, noise, stripes, letters", async () => {
  const { encoder } = await sourceWith((encoder) => new GridFinder(encoder));
  let state = 1;
  const noise = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 24;
  const paint = (colourAt) => {
    const pixels = encoder.picture(640, 480);
    for (let i = 0; i < pixels.length; i++) pixels[i] = colourAt((i >> 2) % 640, Math.floor((i >> 2) / 640), i & 3);
  };
  const pictures = {
    wall: () => 127,
    noise,
    stripes: (x, y) => (((x + 2 * y) >> 4) & 1) * 200,
    checks: (x, y) => (((x >> 5) ^ (y >> 5)) & 1) * 255,
    letters: (x, y) => ((x % 24) * (y % 36) % 7 < 2 ? 20 : 235),
    circle: (x, y) => ((x - 320) ** 2 + (y - 240) ** 2 < 150 ** 2 ? 220 : 60),
  };
  for (const [name, colourAt] of Object.entries(pictures)) {
    const tracker = new FaceTracker(encoder, new GridFinder(encoder));
    paint(colourAt);
    for (let frame = 0; frame < 40; frame++) assert.equal(tracker.find(frame / 30), null, name);
  }
});

test("of two faces the larger one is followed", async () => {
  const { encoder } = await sourceWith((encoder) => new GridFinder(encoder));
  const [large, small] = [draw(pose({ x: 200, height: 220 })), draw(pose({ x: 500, height: 130, lids: 5 }))];
  const both = encoder.picture(640, 480);
  both.set(small);
  for (let y = 0; y < 480; y++) both.set(large.subarray(4 * 640 * y, 4 * (640 * y + 370)), 4 * 640 * y);
  const tracker = new FaceTracker(encoder, new GridFinder(encoder));
  const faces = Array.from({ length: 30 }, (_, i) => tracker.find(i / 30));
  assert.ok(Math.abs(faces.at(-1).box.x + faces.at(-1).box.size / 2 - 200) < 20);
});

test("a face that leaves is lost, and found again when it comes back", async () => {
  const { encoder, tracker } = await sourceWith((encoder) => new GridFinder(encoder));
  const seen = (shown, start, count) =>
    Array.from({ length: count }, (_, i) => {
      encoder.picture(640, 480).set(draw(shown));
      return tracker.find((start + i) / 30) !== null;
    });
  assert.equal(seen(pose(), 0, 20).at(-1), true);
  const gone = seen(null, 20, 30);
  assert.deepEqual([gone[2], gone.at(-1)], [true, false]);
  assert.equal(seen(pose({ x: 250 }), 50, 30).at(-1), true);
});

test("a search costs at most four looks a picture, one look while a face is followed", async () => {
  const { encoder } = await sourceWith((encoder) => new GridFinder(encoder));
  let looks = 0;
  const counting = {
    get width() { return encoder.width; },
    get height() { return encoder.height; },
    encode: (square) => (looks++, encoder.encode(square)),
  };
  const tracker = new FaceTracker(counting, new GridFinder(counting));
  const looksOf = (frame) => {
    looks = 0;
    encoder.picture(640, 480).set(draw(speaking(frame)));
    tracker.find(frame / 30);
    return looks;
  };
  const spent = Array.from({ length: 40 }, (_, frame) => looksOf(frame));
  assert.ok(Math.max(...spent) <= 5, spent.join(" ")); // the last claims, and the tracker's own two
  assert.deepEqual(spent.slice(-10), Array(10).fill(1));
});

test("default motion is sent 150 ms after the last picture, and while the camera is muted", async () => {
  const packets = [];
  const { encoder, source } = await sourceWith(() => new ClaimingFinder(), (packet) => packets.push(packet));
  const isDefault = () => packets.map(({ flags }) => (flags & MotionFlags.DEFAULT_MOTION) !== 0);
  const ticks = (fromMs, toMs) => {
    for (let ms = fromMs; ms < toMs; ms += FRAME_MS) source.tick(call.start_ms + ms);
  };
  const see = (frame, ms) => {
    encoder.picture(640, 480).set(draw(speaking(frame)));
    source.see(call.start_ms + ms);
  };
  for (let frame = 0; frame < 10; frame++) {
    see(frame, frame * FRAME_MS);
    ticks(frame * FRAME_MS, frame * FRAME_MS + 10);
  }
  assert.deepEqual(isDefault(), Array(10).fill(false));
  ticks(310, 440);
  assert.equal(packets.length, 10, "140 ms of silence are a slow camera");
  ticks(460, 1000);
  assert.ok(packets.length >= 26 && isDefault().slice(10).every(Boolean), "each tick sends a packet");
  packets.length = 0;
  see(11, 990); // captured before the last tick
  see(12, 1033);
  assert.deepEqual(packets.map(({ captureMs }) => captureMs - call.start_ms >= 990), [true, true]);
  assert.equal(source.seesFace, true);
  packets.length = 0;
  source.muted = true;
  see(13, 1066);
  assert.equal(packets.length, 0, "a muted camera's pictures are ignored");
  ticks(1070, 1110);
  assert.deepEqual(isDefault(), [true, true]);
  assert.equal(source.seesFace, false);
});

test("without any picture default motion begins after 150 ms", async () => {
  const packets = [];
  const { source } = await sourceWith(() => new ClaimingFinder(), (packet) => packets.push(packet));
  source.tick(call.start_ms);
  source.tick(call.start_ms + 140);
  assert.equal(packets.length, 0);
  source.tick(call.start_ms + 150);
  assert.equal(packets[0].flags, MotionFlags.DEFAULT_MOTION);
});

test("a picture that repeats for 0.2 s is no face", async () => {
  const packets = [];
  const { encoder, source } = await sourceWith(() => new ClaimingFinder(), (packet) => packets.push(packet));
  encoder.picture(640, 480).set(draw(pose()));
  for (let frame = 0; frame < 20; frame++) {
    source.see(call.start_ms + frame * FRAME_MS);
    assert.equal(source.seesFace, frame * FRAME_MS < 200, `picture ${frame}`);
  }
  encoder.picture(640, 480).set(draw(pose({ lips: 8 })));
  source.see(call.start_ms + 20 * FRAME_MS);
  assert.equal(source.seesFace, true);
});

test("capture time is the time stamp plus the smallest delay", () => {
  const clock = new CaptureClock();
  const delays = [40, 22, 9, 30, 9, 60];
  const late = (delay, i) => clock.captureMs(500 + i * 33, 1_000_000 + i * 33 + delay) - 1_000_000 - i * 33;
  assert.deepEqual(delays.map(late), [40, 22, 9, 9, 9, 9]);
});

test("capture time follows clocks that drift apart, and never runs backwards", () => {
  const clock = new CaptureClock();
  let last = -Infinity;
  for (let frame = 0; frame < 30 * 600; frame++) {
    const trueMs = frame * 33.3;
    const found = clock.captureMs(trueMs * 0.9998, 5_000_000 + trueMs + 8 + (frame % 7));
    assert.ok(found >= last);
    last = found;
    if (frame > 300) assert.ok(Math.abs(found - 5_000_000 - trueMs - 8) < 8);
  }
});

test("another camera's time stamps begin elsewhere", () => {
  const clock = new CaptureClock();
  clock.captureMs(9_000_000, 1000);
  assert.equal(clock.captureMs(33, 1033), 1033);
  assert.equal(clock.captureMs(66, 1066), 1066);
});
