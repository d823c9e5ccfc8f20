// Tiles of dot products. The additions happen in the same order in every tile, so that a row's result does not depend on the
// rows that are computed beside it.
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

// The sums of four vectors, each in the same order.
inline void four_sums(const vec* x, float* sums) {
#if defined(__AVX2__)
  __m256 part[4];
  for (int i = 0; i < 4; i++) {
#if defined(__AVX512F__)
    part[i] = _mm256_add_ps(_mm512_castps512_ps256((__m512)x[i]), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd((__m512)x[i]), 1)));
#else
    part[i] = (__m256)x[i];
#endif
  }
  const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(part[0], part[1]), _mm256_hadd_ps(part[2], part[3]));
  _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
  for (int i = 0; i < 4; i++) sums[i] = sum(x[i]);
#endif
}

// R rows of x against C rows of w, `depth` long; values that do not fill a vector are added to `rest`.
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
  // The C products of row r.
  inline void values(int r, float* out) const {
    vec four[4] = {};
    float sums[4];
    static_assert(C <= 4);
    for (int c = 0; c < C; c++) four[c] = total[r][c];
    four_sums(four, sums);
    for (int c = 0; c < C; c++) out[c] = sums[c] + rest[r][c];
  }
};
