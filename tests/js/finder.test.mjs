// The grid, the framing and the search, held to what Python does in vectors/finder.json.

import assert from "node:assert/strict";
import { test } from "node:test";

import { changeOf, fitLayout, framingOf } from "../../clients/js/encoder/crop.js";
import { GridFinder, gridOf } from "../../clients/js/encoder/finder.js";
import { draw, pose } from "./drawn_face.mjs";
import { furthest, json, loadEncoder, vectors } from "./files.mjs";

const { grids, framings, searches, answers } = await json(vectors("finder.json"));

const numbers = ({ x, y, size }) => [x, y, size];
/** Ten keypoints at places, each with the unit matrix. */
const keypointsAt = (places) =>
  Float32Array.from({ length: 60 }, (_, i) => (i % 6 < 2 ? places[2 * Math.floor(i / 6) + (i % 6)] : [1, 0, 0, 1][(i % 6) - 2]));

/** Drive a finder until it has found faces or begins anew: what it looked at in each picture, and what it found. */
function searchWith({ width, height, encode }) {
  let looks = [];
  const finder = new GridFinder({ width, height, encode: (square) => (looks.push(numbers(square)), encode(square)) });
  const steps = [];
  for (let picture = 0; picture < 100; picture++) {
    looks = [];
    const found = finder.find(picture / 1000); // too early for a second search
    if (looks.length === 0) break;
    steps.push(looks);
    if (found.length > 0) return { steps, found: found.map(numbers) };
  }
  return { steps, found: [] };
}

test("the grid has the crops of Python's, in its order", () => {
  for (const { width, height, squares } of grids) {
    const ours = gridOf(width, height).map(numbers);
    assert.equal(ours.length, squares.length, `${width}x${height}`);
    assert.ok(furthest(ours.flat(), squares.flat()) < 1e-3, `${width}x${height}`);
  }
});

test("keypoints lead to the crop to which they lead in Python", () => {
  for (const { points, box, framed, misfit, shift, growth } of framings) {
    const from = { x: box[0], y: box[1], size: box[2] };
    const fit = fitLayout(keypointsAt(points));
    const to = framingOf(fit, from);
    const change = changeOf(from, to);
    assert.ok(furthest(numbers(to), framed) < 1e-2);
    assert.ok(furthest([fit.misfit, change.shift, change.growth], [misfit, shift, growth]) < 1e-5);
  }
});

test("a search looks at what Python looks at, step by step, and finds the same faces", async () => {
  const encoder = await loadEncoder();
  for (const { pose: changes, steps, found } of searches) {
    encoder.picture(640, 480).set(draw(changes === null ? null : pose(changes)));
    const ours = searchWith({ width: 640, height: 480, encode: (square) => encoder.encode(square) });
    assert.deepEqual(ours.steps.map((looks) => looks.length), steps.map((looks) => looks.length));
    assert.equal(ours.found.length, found.length);
    // Of two crops of the grid that see one face equally well, rounding decides which leads to it.
    for (const [i, look] of [...ours.steps.flat(), ...ours.found].entries()) {
      const theirs = [...steps.flat(), ...found][i];
      assert.ok(furthest(look, theirs) < 0.02 * theirs[2], `${look} and ${theirs}`);
    }
  }
});

test("the same answers of an encoder lead to the same faces", () => {
  for (const { name, answers: given, found } of answers) {
    let next = 0;
    const encode = () => {
      const [presence, ...places] = given[next++];
      return { presence, keypoints: keypointsAt(places) };
    };
    const ours = searchWith({ width: 480, height: 480, encode });
    assert.equal(next, given.length, `${name}: the search ends with the last answer`);
    assert.equal(ours.found.length, found.length, name);
    assert.ok(furthest(ours.found.flat(), found.flat()) < 1e-2, name);
  }
});
