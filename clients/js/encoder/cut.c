/* Cuts a face's crop out of a picture: mien_encoder/crop.py, `cut`, as OpenCV 5 computes it.
 *
 * A square larger than the crop is first averaged by an integer factor, to between one and two times the crop's side,
 * then resampled. Small networks see aliasing as motion. Outside the picture its edge pixels are repeated.
 */

#include "kernel.h"

enum {
  SMALL_SIDE = 3 * CROP / 2 + 3, /* the most that an average by 2 leaves of a square below 3 * CROP */
  PAGE_BYTES = 1 << 16,
  MOST_PAGES = 1 << 12, /* 256 MB: a picture of 64 million pixels */
};

/* Pixels, RGBA. Pixel (0, 0) of what is cut from lies at (left, top) of it. */
typedef struct {
  const b4 *pixels;
  int width, height, left, top;
} image;

/* Where a column of the crop lies: between these two columns of the image, at this share of the way. */
typedef struct {
  int before, after;
  float share;
} place;

extern byte __heap_base; /* the linker's: the first byte behind every static variable */

static _Alignas(16) b4 small[SMALL_SIDE * SMALL_SIDE];
static place columns[CROP];
static v4 lines[2][CROP]; /* rows of the image at the crop's columns: an even and an odd one */
static int kept[2];       /* which */
static image picture;

INLINE v4 floats(b4 pixel) { return __builtin_convertvector(pixel, v4); }
INLINE v4 between(v4 a, v4 b, float share) { return a + (b - a) * share; }
INLINE int clamped(int value, int count) { return value < 0 ? 0 : value >= count ? count - 1 : value; }

EXPORT const byte *crop_at(void) { return crop; }

/* Where the host writes a picture of this size, RGBA. 0 if there is no memory for it; the previous picture is gone. */
EXPORT byte *picture_at(int width, int height) {
  unsigned long start = ((unsigned long)&__heap_base + 15) & ~15ul, present = __builtin_wasm_memory_size(0);
  unsigned long long pages = (start + 4ull * width * height + PAGE_BYTES - 1) / PAGE_BYTES;
  if (pages > MOST_PAGES) return 0;
  if (pages > present && __builtin_wasm_memory_grow(0, pages - present) == (unsigned long)-1) return 0;
  picture = (image){(const b4 *)start, width, height, 0, 0};
  return (byte *)start;
}

/* The mean of step x step pixels. OpenCV rounds halves up for a step of 2, otherwise to even. */
INLINE b4 mean_of(image from, int x, int y, int step) {
  i4 sum = {0, 0, 0, 0};
  for (int row = y; row < y + step; row++) {
    const b4 *pixels = from.pixels + clamped(from.top + row, from.height) * from.width;
    for (int column = x; column < x + step; column++)
      sum += __builtin_convertvector(pixels[clamped(from.left + column, from.width)], i4);
  }
  if (step == 2) return __builtin_convertvector((sum + 2) >> 2, b4);
  v4 mean = nearest(__builtin_convertvector(sum, v4) * (1.f / (step * step)));
  return __builtin_convertvector(mean, b4);
}

/* A square of side * step pixels of an image, averaged to side x side. */
static image averaged(image from, int side, int step) {
  for (int y = 0; y < side; y++)
    for (int x = 0; x < side; x++) small[y * side + x] = mean_of(from, x * step, y * step, step);
  return (image){small, side, side, 0, 0};
}

/* Where pixel i of the crop lies on an axis of an image: pixel centres lie at half coordinates. */
INLINE place place_of(int i, float scale, float offset, int origin, int count) {
  float at = i * scale + offset, before = __builtin_floorf(at);
  return (place){clamped(origin + (int)before, count), clamped(origin + (int)before + 1, count), at - before};
}

/* A row of an image at the crop's columns. The last two rows are kept: the crop's next row mostly needs one again. */
static const v4 *line_of(image from, int row) {
  v4 *line = lines[row & 1];
  if (kept[row & 1] == row) return line;
  kept[row & 1] = row;
  const b4 *pixels = from.pixels + row * from.width;
  for (int i = 0; i < CROP; i++)
    line[i] = between(floats(pixels[columns[i].before]), floats(pixels[columns[i].after]), columns[i].share);
  return line;
}

/* The square of `size` pixels at (x, y) of an image, resampled to the crop. */
static void resample(image from, double x, double y, double size) {
  double scale = size / CROP, half = 0.5 * scale - 0.5;
  for (int i = 0; i < CROP; i++) columns[i] = place_of(i, scale, x + half, from.left, from.width);
  kept[0] = kept[1] = -1;
  byte *to = crop;
  for (int i = 0; i < CROP; i++) {
    place row = place_of(i, scale, y + half, from.top, from.height);
    const v4 *above = line_of(from, row.before), *below = line_of(from, row.after);
    for (int j = 0; j < CROP; j++, to += 3) {
      i4 pixel = __builtin_convertvector(nearest(between(above[j], below[j], row.share)), i4);
      to[0] = pixel[0], to[1] = pixel[1], to[2] = pixel[2];
    }
  }
}

/* Cut the square of `size` pixels at (x, y) of the picture; it may reach beyond the picture's edges. */
EXPORT void cut(double x, double y, double size) {
  if (size <= CROP) {
    resample(picture, x, y, size);
    return;
  }
  int step = (int)(size / CROP), left = (int)__builtin_floor(x), top = (int)__builtin_floor(y);
  int side = ((int)__builtin_ceil(size) + step) / step + 1;
  image window = {picture.pixels, picture.width, picture.height, left, top};
  resample(step == 1 ? window : averaged(window, side, step), (x - left) / step, (y - top) / step, size / step);
}
