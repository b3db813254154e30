// The encoder K in plain JavaScript, slow and short: what kernel.c is compared with. Tensors are
// [row][column][channel].

/** Reads the tape that kernel.c describes. */
class Tape {
  constructor(values) {
    this.values = values;
    this.at = 0;
  }
  floats(count) {
    this.at += count;
    return this.values.subarray(this.at - count, this.at);
  }
  count() {
    return this.floats(1)[0];
  }
}

/** Keypoints and presence, 61 numbers, of a crop of 256 x 256 x 3 bytes. */
export function encodeSlowly(values, crop) {
  const tape = new Tape(values);
  const pixel = (x, y) => [0, 1, 2].map((c) => crop[(y * 256 + x) * 3 + c] - 127.5);
  const picture = range(256).map((y) => range(256).map((x) => pixel(x, y)));
  const at16 = stage(tape, dense(tape, neighbourhoods(picture, 2), relu));
  const at8 = stage(tape, at16);
  const at4 = stage(tape, at8);
  const up8 = map(add(at8, doubled(dense(tape, at4))), relu);
  const from8 = doubled(dense(tape, up8));
  const mixed = depthwise(tape, map(add(dense(tape, at16), from8), relu), 1);
  const features = dense(tape, mixed, relu);
  const heat = dense(tape, features).flat();
  const result = range(10).flatMap((k) => ({ k, weights: softmax(heat.map((values) => values[k])) }));
  const keypoints = result.flatMap(({ weights }) => {
    const place = [0, 1].map((axis) =>
      sum(weights.map((w, i) => w * ((2 * (axis ? Math.floor(i / 16) : i % 16) + 1) / 16 - 1))),
    );
    const mean = range(features[0][0].length).map((c) => sum(features.flat().map((f, i) => weights[i] * f[c])));
    return range(6).map((v) => row(tape, mean) + (place[v] ?? 0));
  });
  const cells = at4.flat();
  const presence = row(tape, range(cells[0].length).map((c) => sum(cells.map((cell) => cell[c])) / cells.length));
  return Float32Array.from([...keypoints, 1 / (1 + Math.exp(-presence))]);
}

/** A tape of a network whose layers have other widths than K's: as a pruned or a wider K would have. */
export function crossCheckNetwork() {
  let state = 1;
  const random = (scale) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31 - 1) * scale;
  };
  const tape = [];
  const weights = (count, inputs) => tape.push(...range(count).map(() => random(1.5 / Math.sqrt(inputs))));
  const denseLayer = (inputs, outputs) => {
    tape.push(outputs);
    weights(outputs, 100);
    weights(outputs * inputs, inputs);
  };
  const depthwiseLayer = (channels) => {
    weights(channels, 100);
    weights(9 * channels, 9);
  };
  const block = (inputs, hidden, outputs, stride) => {
    tape.push(hidden, stride);
    if (hidden !== inputs) denseLayer(inputs, hidden);
    depthwiseLayer(hidden);
    denseLayer(hidden, outputs);
  };
  tape.push(16);
  weights(16, 100);
  tape.push(...range(16 * 27).map(() => random(0.003)));
  tape.push(3);
  block(16, 16, 8, 2), block(8, 20, 12, 2), block(12, 44, 28, 2);
  tape.push(3);
  block(28, 28, 28, 1), block(28, 40, 36, 2), block(36, 52, 36, 1);
  tape.push(1);
  block(36, 60, 20, 2);
  denseLayer(20, 36), denseLayer(36, 24), denseLayer(28, 24);
  depthwiseLayer(24), denseLayer(24, 24), denseLayer(24, 12);
  for (const _ of range(60)) weights(25, 24);
  weights(21, 20);
  return Float32Array.from(tape);
}

const range = (count) => [...Array(count).keys()];
const sum = (values) => values.reduce((a, b) => a + b, 0);
const relu = (value) => Math.max(0, value);
const map = (tensor, f) => tensor.map((line) => line.map((pixel) => pixel.map(f)));
const add = (a, b) => a.map((line, y) => line.map((pixel, x) => pixel.map((value, c) => value + b[y][x][c])));
const twice = (list) => list.flatMap((item) => [item, item]);
const doubled = (tensor) => twice(tensor.map(twice));

/** For each pixel of a convolution its 9 inputs' channels side by side; 0 beyond the border. */
function neighbourhoods(tensor, stride) {
  const zeros = tensor[0][0].map(() => 0);
  const nine = (x, y) => range(9).flatMap((i) => tensor[y + Math.floor(i / 3) - 1]?.[x + (i % 3) - 1] ?? zeros);
  const places = range(tensor.length / stride).map((i) => i * stride);
  return places.map((y) => places.map((x) => nine(x, y)));
}

function dense(tape, x, after = (value) => value) {
  const [inputs, outputs] = [x[0][0].length, tape.count()];
  const biases = tape.floats(outputs);
  const rows = [];
  for (let first = 0; first < outputs; first += 8) {
    const width = Math.min(8, outputs - first);
    const group = tape.floats(inputs * width);
    for (const o of range(width)) rows.push(range(inputs).map((i) => group[i * width + o]));
  }
  const outputOf = (pixel) =>
    rows.map((weights, o) => after(weights.reduce((total, weight, i) => total + weight * pixel[i], biases[o])));
  return x.map((line) => line.map(outputOf));
}

function depthwise(tape, x, stride) {
  const channels = x[0][0].length;
  const [biases, weights] = [tape.floats(channels), tape.floats(9 * channels)];
  const outputOf = (nine, c) => biases[c] + sum(range(9).map((i) => nine[i * channels + c] * weights[i * channels + c]));
  const filtered = (nine) => range(channels).map((c) => relu(outputOf(nine, c)));
  return neighbourhoods(x, stride).map((line) => line.map(filtered));
}

function stage(tape, x) {
  for (const _ of range(tape.count())) {
    const [hidden, stride] = [tape.count(), tape.count()];
    const wide = hidden === x[0][0].length ? x : dense(tape, x, relu);
    const y = dense(tape, depthwise(tape, wide, stride));
    x = stride === 1 && y[0][0].length === x[0][0].length ? add(x, y) : y;
  }
  return x;
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const weights = logits.map((logit) => Math.exp(logit - largest));
  return weights.map((weight) => weight / sum(weights));
}

function row(tape, x) {
  const bias = tape.count();
  return tape.floats(x.length).reduce((total, weight, i) => total + weight * x[i], bias);
}
