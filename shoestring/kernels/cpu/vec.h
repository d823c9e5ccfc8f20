// Vectors of the widest float type this CPU has, their exp, and a small matrix product for operands that fit in cache.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__FMA__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int W = 16;  // floats in a vector
#else
constexpr int W = 8;
#endif
constexpr int PANEL = 2 * W;  // columns that one pass of the product keeps in registers
constexpr int ROWS = 6;       // rows of the same pass: 6 x 2 accumulators fit the 16 registers of AVX2

typedef float vec __attribute__((vector_size(W * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(W * 4), aligned(4), may_alias));

inline vec load(const float* p) { return *reinterpret_cast<const vec*>(p); }
inline void store(float* p, vec x) { *reinterpret_cast<vec*>(p) = x; }
inline vec splat(float x) { return x - vec{}; }
inline vec vmax(vec a, vec b) { return a > b ? a : b; }

// Intrinsics, so that every tile rounds in the same way: else the compiler may fuse in one and not in another.
inline vec multiply_add(vec a, vec b, vec c) {
#if defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(__aarch64__)
  for (int i = 0; i < W; i++) c[i] = __builtin_fmaf(a[i], b[i], c[i]);  // four at a time
  return c;
#else
  return a * b + c;
#endif
}

inline float sum(vec x) {
  float total = 0;
  for (int i = 0; i < W; i++) total += x[i];
  return total;
}

inline float maximum(vec x) {
  float best = x[0];
  for (int i = 1; i < W; i++) best = std::max(best, x[i]);
  return best;
}

// The same in pairs, in a fifth of the time.
inline float pairwise_sum(vec x) {
  float part[W];
  store(part, x);
  for (int half = W / 2; half; half /= 2)
    for (int i = 0; i < half; i++) part[i] += part[i + half];
  return part[0];
}

inline float pairwise_maximum(vec x) {
  float part[W];
  store(part, x);
  for (int half = W / 2; half; half /= 2)
    for (int i = 0; i < half; i++) part[i] = std::max(part[i], part[i + half]);
  return part[0];
}

// exp(x) within 2 units in the last place for x in [-87, 88]; smaller x give exactly 0, NaN stays NaN.
// Range reduction x = n ln 2 + r with a degree-6 polynomial for exp(r) (Taylor, |r| <= ln 2 / 2). Adding 1.5 * 2^23
// rounds to an integer and leaves it in the low bits; a shift moves it to the exponent.
inline vec vexp(vec x) {
  const vec low = splat(-87.0f), high = splat(88.0f), magic = splat(12582912.0f);
  const ivec underflow = x < low;
  x = low > x ? low : x;  // in this order NaN stays NaN
  x = high < x ? high : x;
  const vec shifted = x * 1.44269504f + magic;
  const vec n = shifted - magic;
  const vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
  vec p = r * (1.0f / 720) + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  ivec bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + (127 << 23);
  vec power;
  std::memcpy(&power, &bits, sizeof power);
  return underflow ? vec{} : p * power;
}

// R rows of C vectors of c = [c +] a (R x depth) b (depth x C * W).
template <int R, int C>
inline void tile(int64_t depth, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, float* c,
                 int64_t c_row, bool accumulate) {
  vec acc[R][C];
#pragma GCC unroll 12
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < C; v++) acc[r][v] = accumulate ? load(c + r * c_row + v * W) : vec{};
  for (int64_t k = 0; k < depth; k++, a += a_col, b += b_row) {
    vec right[C];
#pragma GCC unroll 4
    for (int v = 0; v < C; v++) right[v] = load(b + v * W);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      const vec left = splat(a[r * a_row]);
#pragma GCC unroll 4
      for (int v = 0; v < C; v++) acc[r][v] = multiply_add(left, right[v], acc[r][v]);
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < C; v++) store(c + r * c_row + v * W, acc[r][v]);
}

template <int C>
inline void tile_rows(int64_t rows, int64_t depth, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                      float* c, int64_t c_row, bool accumulate) {
  constexpr int MOST = C == 1 ? 2 * ROWS : ROWS;  // enough sums that do not wait for each other
  int64_t i = 0;
  for (; i + MOST <= rows; i += MOST)
    tile<MOST, C>(depth, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, accumulate);
  for (; i + 2 <= rows; i += 2) tile<2, C>(depth, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, accumulate);
  for (; i < rows; i++) tile<1, C>(depth, a + i * a_row, a_row, a_col, b, b_row, c + i * c_row, c_row, accumulate);
}

// c (rows x panels * PANEL) = [c +] a (rows x depth) b (depth x panels * PANEL). The strides of `a` may transpose it;
// panel p of b starts at b + p * b_panel, its rows b_row apart.
inline void product(int64_t rows, int64_t panels, int64_t depth, const float* a, int64_t a_row, int64_t a_col, const float* b,
                  int64_t b_row, int64_t b_panel, float* c, int64_t c_row, bool accumulate) {
  for (int64_t p = 0; p < panels; p++)
    tile_rows<2>(rows, depth, a, a_row, a_col, b + p * b_panel, b_row, c + p * PANEL, c_row, accumulate);
}

// The same with all columns of b beside each other, `width` of them: a multiple of W.
inline void columns(int64_t rows, int64_t width, int64_t depth, const float* a, int64_t a_row, int64_t a_col, const float* b,
                    int64_t b_row, float* c, int64_t c_row, bool accumulate) {
  product(rows, width / PANEL, depth, a, a_row, a_col, b, b_row, PANEL, c, c_row, accumulate);
  const int64_t rest = width / PANEL * PANEL;
  if (rest < width) tile_rows<1>(rows, depth, a, a_row, a_col, b + rest, b_row, c + rest, c_row, accumulate);
}

inline int padded(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }
