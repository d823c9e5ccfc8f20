// Tiles of dot products whose additions always happen in the same order, whatever the tile: so that a row's result never
// depends on which rows are computed beside it.
#pragma once
#include "vec.h"

typedef uint16_t bf16_lanes __attribute__((vector_size(W * 2), aligned(2), may_alias));
typedef uint32_t word_lanes __attribute__((vector_size(W * 4)));

inline vec load_any(const float* p) { return load(p); }
inline vec load_any(const uint16_t* p) {  // bfloat16 is the upper half of a float32
  const word_lanes bits = __builtin_convertvector(*reinterpret_cast<const bf16_lanes*>(p), word_lanes) << 16;
  vec x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline float one(float x) { return x; }
inline float one(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// A call, so that all tiles share one order of additions.
__attribute__((noinline)) inline float ordered_sum(vec x) { return sum(x); }

// R rows of x against C rows of w, `depth` long; what does not fill a vector is added to `rest`.
template <int R, int C>
struct Dots {
  vec total[R][C];
  float rest[R][C];
  Dots() {
    for (int r = 0; r < R; r++)
      for (int c = 0; c < C; c++) total[r][c] = vec{}, rest[r][c] = 0;
  }
  template <class T>
  inline void add(int64_t depth, const float* x, int64_t x_row, const T* w, int64_t w_row) {
    int64_t k = 0;
    for (; k + W <= depth; k += W) {
      vec wide[C];
      for (int c = 0; c < C; c++) wide[c] = load_any(w + c * w_row + k);
      for (int r = 0; r < R; r++) {
        const vec a = load(x + r * x_row + k);
        for (int c = 0; c < C; c++) total[r][c] = multiply_add(a, wide[c], total[r][c]);
      }
    }
    for (; k < depth; k++)
      for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++) rest[r][c] = std::fma(x[r * x_row + k], one(w[c * w_row + k]), rest[r][c]);
  }
  inline float value(int r, int c) const { return ordered_sum(total[r][c]) + rest[r][c]; }
};
