// Products of matrices that are in the cache, for any number of columns in whole vectors; and sums of a vector in pairs.
#pragma once
#include "vec.h"

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
inline void tiles(int64_t rows, int64_t panels, int64_t depth, const float* a, int64_t a_row, int64_t a_col, const float* b,
                  int64_t b_row, int64_t b_panel, float* c, int64_t c_row, bool accumulate) {
  for (int64_t p = 0; p < panels; p++)
    tile_rows<2>(rows, depth, a, a_row, a_col, b + p * b_panel, b_row, c + p * PANEL, c_row, accumulate);
}

// The same with all columns of b beside each other, `width` of them: a multiple of W.
inline void columns(int64_t rows, int64_t width, int64_t depth, const float* a, int64_t a_row, int64_t a_col, const float* b,
                    int64_t b_row, float* c, int64_t c_row, bool accumulate) {
  tiles(rows, width / PANEL, depth, a, a_row, a_col, b, b_row, PANEL, c, c_row, accumulate);
  const int64_t rest = width / PANEL * PANEL;
  if (rest < width) tile_rows<1>(rows, depth, a, a_row, a_col, b + rest, b_row, c + rest, c_row, accumulate);
}
