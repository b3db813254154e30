/* The encoder K for WebAssembly with SIMD. No library and no allocator.
 *
 *     picture (RGBA bytes) --cut.c--> crop (256 x 256 RGB bytes) --encode--> 10 keypoints with Jacobians, presence
 *
 * `encode` computes what encoder.onnx computes (DeployedEncoder in training/mien_training/encoder_network.py), within
 * rounding; tests/js compares them.
 *
 * MEMORY. Every address but the last is fixed when this is built:
 *
 *     tape      the weights in the order in which `encode` reads them; the host writes them once
 *     arena     the tensors of one call, one behind the other; a block gives back its inner ones
 *     result    10 rows of x, y, j00, j01, j10, j11, then the presence: 61 floats
 *     crop      256 x 256 x 3 bytes, row after row (cut.c writes it)
 *     columns, small    of cut.c
 *     picture   of cut.c, behind everything else, where memory can grow
 *
 * TENSORS lie pixel after pixel, and the channels of one pixel lie side by side (NHWC). The number of channels is a
 * multiple of 4: four channels are one vector. The file of the weights pads with zeros.
 *
 * THE TAPE holds floats only; a count is a float too. tools/browser_encoder.py writes it:
 *
 *     dense        outputs, biases [outputs], then for every 8 outputs (the last may be 4) weights [inputs][8]
 *     depthwise    biases [channels], weights [9][channels]
 *     block        hidden, stride, dense if `hidden` differs from the input's channels, depthwise, dense
 *     stage        number of blocks, the blocks
 *     row          bias, weights [inputs]: one output of a linear layer
 *     K            stem (dense of 27 inputs), to_16, to_8, tail (stages), from_4, from_8, from_16 (dense),
 *                  mix (depthwise, dense), heatmaps (dense), readings (60 rows), presence (row)
 */

#include "kernel.h"

enum {
  KEYPOINTS = 10,
  VALUES = 6, /* of a keypoint */
  TAPE_FLOATS = 1 << 17,
  ARENA_FLOATS = 1 << 19,
  MOST_CHANNELS = 1024,
  LINE = 3 * (CROP + 2), /* a row of the crop with a pixel of border on both sides */
};

_Alignas(16) byte crop[CROP * CROP * 3];
static _Alignas(16) float tape[TAPE_FLOATS];
static _Alignas(16) float arena[ARENA_FLOATS];
static _Alignas(16) float result[KEYPOINTS * VALUES + 1];

static const float *head; /* where the tape is read */
static int arena_used;

INLINE v4 load(const float *from) { return *(const v4_unaligned *)from; }
INLINE void store(float *to, v4 value) { *(v4_unaligned *)to = value; }
INLINE v4 at_least_0(v4 value) { return larger(value, all(0)); }

/* Where the host writes the weights, and how many floats there is room for. */
EXPORT float *tape_at(void) { return tape; }
EXPORT int tape_room(void) { return TAPE_FLOATS; }

/* ---- the layers ---- */

typedef struct { float *values; int side, channels; } tensor;

/* A file that describes no network traps here or in `take`: nothing beyond the tape or the arena is touched. */
static const float *read_floats(int count) {
  const float *from = head;
  if (count > tape + TAPE_FLOATS - head) __builtin_trap();
  head += count;
  return from;
}

static int read_count(void) {
  float count = *read_floats(1);
  if (!(count >= 1 && count <= MOST_CHANNELS)) __builtin_trap();
  return (int)count;
}

static float *take(int floats) {
  float *taken = arena + arena_used;
  arena_used += floats;
  if (arena_used > ARENA_FLOATS) __builtin_trap(); /* the network is wider than this kernel's arena */
  return taken;
}

static tensor new_tensor(int side, int channels) {
  return (tensor){take(side * side * channels), side, channels};
}

/* sums[p][v] += inputs of pixel p x weights, for 4 pixels and 4 * `vectors` outputs: 8 sums stay in registers.
 * Pixel p's inputs begin at from + p * step. */
INLINE void multiply_add(v4 sums[4][2], int vectors, const float *from, int step, int inputs, const float *weights) {
  for (int i = 0; i < inputs; i++)
    for (int v = 0; v < vectors; v++) {
      v4 weight = load(weights + 4 * (i * vectors + v));
      for (int p = 0; p < 4; p++) sums[p][v] += all(from[p * step + i]) * weight;
    }
}

INLINE void begin_sums(v4 sums[4][2], int vectors, const float *biases) {
  for (int p = 0; p < 4; p++)
    for (int v = 0; v < vectors; v++) sums[p][v] = load(biases + 4 * v);
}

INLINE void store_sums(float *to, int channels, int vectors, v4 sums[4][2], int relu) {
  for (int p = 0; p < 4; p++)
    for (int v = 0; v < vectors; v++) store(to + p * channels + 4 * v, relu ? at_least_0(sums[p][v]) : sums[p][v]);
}

/* A 1x1 convolution of 4 pixels to 4 * `vectors` outputs. */
INLINE void dense_tile(const float *from, int inputs, const float *biases, const float *weights, float *to, int outputs,
                       int vectors, int relu) {
  v4 sums[4][2];
  begin_sums(sums, vectors, biases);
  multiply_add(sums, vectors, from, inputs, inputs, weights);
  store_sums(to, outputs, vectors, sums, relu);
}

/* A 1x1 convolution. */
static tensor dense(tensor x, int relu) {
  int outputs = read_count();
  const float *biases = read_floats(outputs), *weights = read_floats(outputs * x.channels);
  tensor y = new_tensor(x.side, outputs);
  for (int pixel = 0; pixel < x.side * x.side; pixel += 4) {
    const float *from = x.values + pixel * x.channels;
    float *to = y.values + pixel * outputs;
    int o = 0;
    for (; o + 8 <= outputs; o += 8)
      dense_tile(from, x.channels, biases + o, weights + o * x.channels, to + o, outputs, 2, relu);
    if (o < outputs) dense_tile(from, x.channels, biases + o, weights + o * x.channels, to + o, outputs, 1, relu);
  }
  return y;
}

/* One row of a depthwise convolution, for four channels. rows[ky]: a row of the input, 0 outside of it. */
INLINE void filter_row(const float *rows[3], int side, int channels, int stride, const v4 weights[9], v4 bias,
                       float *to) {
  for (int x = 0; x < side / stride; x++, to += channels) {
    v4 sum = bias;
    for (int kx = 0; kx < 3; kx++) {
      int column = x * stride + kx - 1;
      if (column < 0 || column >= side) continue;
      for (int ky = 0; ky < 3; ky++)
        if (rows[ky]) sum += load(rows[ky] + column * channels) * weights[3 * ky + kx];
    }
    store(to, at_least_0(sum));
  }
}

/* A 3x3 convolution of each channel alone, with a border of zeros, then ReLU. */
static tensor depthwise(tensor x, int stride) {
  const float *biases = read_floats(x.channels), *weights = read_floats(9 * x.channels);
  tensor y = new_tensor(x.side / stride, x.channels);
  for (int row = 0; row < y.side; row++)
    for (int c = 0; c < x.channels; c += 4) {
      const float *rows[3];
      v4 taps[9];
      for (int ky = 0; ky < 3; ky++) {
        int from = row * stride + ky - 1;
        rows[ky] = from < 0 || from >= x.side ? 0 : x.values + from * x.side * x.channels + c;
      }
      for (int tap = 0; tap < 9; tap++) taps[tap] = load(weights + tap * x.channels + c);
      filter_row(rows, x.side, x.channels, stride, taps, load(biases + c), y.values + row * y.side * x.channels + c);
    }
  return y;
}

/* x += y, where y may have half the side of x: then each of its pixels counts for four. */
static tensor add(tensor x, tensor y, int relu) {
  int halved = x.side != y.side;
  for (int row = 0; row < x.side; row++)
    for (int column = 0; column < x.side; column++) {
      float *to = x.values + (row * x.side + column) * x.channels;
      const float *from = y.values + ((row >> halved) * y.side + (column >> halved)) * x.channels;
      for (int c = 0; c < x.channels; c += 4) {
        v4 sum = load(to + c) + load(from + c);
        store(to + c, relu ? at_least_0(sum) : sum);
      }
    }
  return x;
}

/* An inverted residual (Sandler et al. 2018): widen, filter, narrow; add the input where the shapes allow.
 * The result is moved to where the widened tensor began, so the arena holds no more than one block's inner tensors. */
static tensor block(tensor x) {
  int hidden = read_count(), stride = read_count(), used = arena_used;
  tensor wide = hidden == x.channels ? x : dense(x, 1);
  tensor y = dense(depthwise(wide, stride), 0);
  if (stride == 1 && y.channels == x.channels) add(y, x, 0);
  arena_used = used;
  tensor kept = new_tensor(y.side, y.channels);
  __builtin_memmove(kept.values, y.values, sizeof(float) * y.side * y.side * y.channels);
  return kept;
}

static tensor stage(tensor x) {
  for (int blocks = read_count(); blocks > 0; blocks--) x = block(x);
  return x;
}

/* One row of the crop as centred floats; a row outside of it, and the pixels left and right of it, are 0. */
static void read_line(int row, float line[LINE]) {
  for (int i = 0; i < LINE; i++) line[i] = 0;
  if (row < 0) return;
  const byte *pixels = crop + row * CROP * 3;
  for (int i = 0; i < CROP * 3; i++) line[3 + i] = (float)pixels[i] - 127.5f;
}

/* The first convolution: 3x3, stride 2, over the crop. Three lines of it are 27 inputs, 9 of each line. */
static tensor stem(void) {
  static float lines[3][LINE];
  int outputs = read_count();
  const float *biases = read_floats(outputs), *weights = read_floats(27 * outputs);
  tensor y = new_tensor(CROP / 2, outputs);
  for (int row = 0; row < y.side; row++) {
    for (int ky = 0; ky < 3; ky++) read_line(2 * row + ky - 1, lines[ky]);
    for (int x = 0; x < y.side; x += 4)
      for (int o = 0; o < outputs; o += 8) { /* the stem has a multiple of 8 outputs */
        v4 sums[4][2];
        begin_sums(sums, 2, biases + o);
        for (int ky = 0; ky < 3; ky++)
          multiply_add(sums, 2, lines[ky] + 6 * x, 6, 9, weights + 27 * o + 9 * 8 * ky);
        store_sums(y.values + (row * y.side + x) * outputs + o, outputs, 2, sums, 1);
      }
  }
  return y;
}

/* ---- the heads ---- */

/* exp(x) for x <= 0 within 2 units of the last place: 2^n times the Taylor polynomial on [-ln 2 / 2, ln 2 / 2]. */
static v4 exponential(v4 x) {
  x = larger(x, all(-87)); /* below, 2^n would be no normal float */
  v4 n = nearest(x * 1.44269504f);
  v4 r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts, the first of few bits */
  v4 sum = all(1.f / 5040);
  sum = sum * r + 1.f / 720;
  sum = sum * r + 1.f / 120;
  sum = sum * r + 1.f / 24;
  sum = sum * r + 1.f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1;
  sum = sum * r + 1;
  i4 power = (__builtin_convertvector(n, i4) + 127) << 23;
  return sum * (v4)power;
}

static float sigmoid(float x) {
  float small_share = exponential(all(x < 0 ? x : -x))[0]; /* exp(-|x|) */
  return x < 0 ? small_share / (1 + small_share) : 1 / (1 + small_share);
}

/* One output of a linear layer. */
static float row_of(const float *x, int inputs) {
  float sum = *read_floats(1);
  const float *weights = read_floats(inputs);
  for (int i = 0; i < inputs; i++) sum += x[i] * weights[i];
  return sum;
}

/* In place: each channel becomes the softmax over its pixels, but for the division by the returned sums [channels]. */
static float *unscaled_softmax(tensor heat) {
  float *sums = take(heat.channels);
  int pixels = heat.side * heat.side;
  for (int c = 0; c < heat.channels; c += 4) {
    v4 largest = load(heat.values + c), sum = all(0);
    for (int p = 1; p < pixels; p++)
      largest = larger(largest, load(heat.values + p * heat.channels + c));
    for (int p = 0; p < pixels; p++) {
      float *value = heat.values + p * heat.channels + c;
      v4 weight = exponential(load(value) - largest);
      store(value, weight);
      sum += weight;
    }
    store(sums + c, sum);
  }
  return sums;
}

/* The mean of the features under heatmap k, and of the pixels' places (-1 to 1) as mean[-2], mean[-1]. */
static void average_under(tensor heat, int k, float sum, tensor features, float *mean) {
  for (int c = -2; c < features.channels; c++) mean[c] = 0;
  for (int p = 0; p < heat.side * heat.side; p++) {
    float share = heat.values[p * heat.channels + k] / sum;
    mean[-2] += share * ((2 * (p % heat.side) + 1.f) / heat.side - 1);
    mean[-1] += share * ((2 * (p / heat.side) + 1.f) / heat.side - 1);
    for (int c = 0; c < features.channels; c += 4)
      store(mean + c, load(mean + c) + share * load(features.values + p * features.channels + c));
  }
}

/* Every reading is a linear map of the features, averaged under a heatmap. A map of an average is the average of the
 * map and far cheaper: 60 rows are computed once and not for each of 256 pixels. */
static void read_keypoints(tensor heat, tensor features) {
  float *sums = unscaled_softmax(heat), *mean = take(features.channels + 2) + 2;
  for (int k = 0; k < KEYPOINTS; k++) {
    average_under(heat, k, sums[k], features, mean);
    for (int v = 0; v < VALUES; v++)
      result[k * VALUES + v] = row_of(mean, features.channels) + (v < 2 ? mean[v - 2] : 0);
  }
}

static float read_presence(tensor at_4) {
  int pixels = at_4.side * at_4.side;
  float *mean = take(at_4.channels);
  for (int c = 0; c < at_4.channels; c++) {
    mean[c] = 0;
    for (int p = 0; p < pixels; p++) mean[c] += at_4.values[p * at_4.channels + c] / pixels;
  }
  return sigmoid(row_of(mean, at_4.channels));
}

/* Compute K on the crop. Returns the address of 61 floats: the keypoints and the presence. */
EXPORT const float *encode(void) {
  head = tape;
  arena_used = 0;
  tensor at_16 = stage(stem());
  tensor at_8 = stage(at_16);
  tensor at_4 = stage(at_8);
  tensor up_8 = add(at_8, dense(at_4, 0), 1);
  tensor from_8 = dense(up_8, 0);
  tensor features = add(dense(at_16, 0), from_8, 1);
  features = dense(depthwise(features, 1), 1);
  read_keypoints(dense(features, 0), features);
  result[KEYPOINTS * VALUES] = read_presence(at_4);
  return result;
}

/* How many floats the last call of `encode` has read: the host compares it with the length of the file. */
EXPORT int tape_read(void) { return (int)(head - tape); }
