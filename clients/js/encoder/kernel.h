/* What kernel.c and cut.c share: vectors of four, and the crop. */

typedef unsigned char byte;
typedef float v4 __attribute__((vector_size(16)));
typedef float v4_unaligned __attribute__((vector_size(16), aligned(4)));
typedef int i4 __attribute__((vector_size(16)));
typedef byte b4 __attribute__((vector_size(4)));

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

enum { CROP = 256 };

extern byte crop[CROP * CROP * 3];

INLINE v4 all(float value) { return (v4){value, value, value, value}; }
INLINE v4 larger(v4 a, v4 b) { return __builtin_wasm_pmax_f32x4(a, b); }
/* The nearest whole number, of two the even one. */
INLINE v4 nearest(v4 value) { return __builtin_wasm_nearest_f32x4(value); }
