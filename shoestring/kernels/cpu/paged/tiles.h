// What all tiles of attention over pages have in common. Every score and every mixed value is one sum whose additions happen in the
// order of the depth, or of the keys, whatever the tile, so that a row's result does not depend on the rows computed beside it.
#pragma once
#include "../vec.h"

constexpr int64_t LONGEST_PAGE = 64;
constexpr int VALUE_ROWS = W == 16 ? 8 : 6;  // rows in a tile of values, PANEL wide

struct Part {  // a token's entry: one head's vector of `width` floats; tokens are `row` apart, pages `page` apart
  const float* data;
  int64_t width, row, page;
  const float* at(int64_t which, int64_t token) const { return data + which * page + token * row; }
  void fetch(int64_t which, int64_t tokens) const {  // into the second-level cache, while others are computed
    for (int64_t i = 0; i < tokens; i++)
      for (int64_t d = 0; d < width; d += 16) __builtin_prefetch(at(which, i) + d, 0, 2);
  }
};

struct Weights {  // of keys and rows
  const float* data;
  int64_t key, row;  // distances
  float at(int64_t c, int64_t r) const { return data[c * key + r * row]; }
  Weights from(int64_t r) const { return {data + r * row, key, row}; }
};

// x[c * distance] (W values each) = exp(x - base). One compiled function for all: else the compiler may fuse multiplications and
// additions in one place and not in another, and round differently.
__attribute__((noinline)) inline void exponentials(int64_t count, int64_t distance, vec base, float* x) {
  for (int64_t c = 0; c < count; c++) store(x + c * distance, vexp(load(x + c * distance) - base));
}

inline vec finite_base(vec top) { return top == splat(-INFINITY) ? vec{} : top; }  // a row may see no key of a part

// W rows' largest score so far becomes `top`, and their sum of weights takes in `sum`, that of this page. What was summed so far is
// to be multiplied by `shrink`.
inline void go_on(vec top, vec base, vec sum, float* most, float* total, float* shrink) {
  store(shrink, load(most));
  exponentials(1, W, base, shrink);
  store(total, multiply_add(load(total), load(shrink), sum));
  store(most, top);
}

// out (R, PANEL) = out * shrink + weights (keys, R) transposed times v (keys, PANEL)
template <int R>
inline void value_tile(int64_t keys, const Weights& weights, const float* shrink, const float* v, int64_t v_row,
                       float* out, int64_t width) {
  vec total[R][2];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) total[r][h] = load(out + r * width + h * W) * splat(shrink[r]);
  for (int64_t c = 0; c < keys; c++) {
    const vec v0 = load(v + c * v_row), v1 = load(v + c * v_row + W);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const vec x = splat(weights.at(c, r));
      total[r][0] = multiply_add(x, v0, total[r][0]);
      total[r][1] = multiply_add(x, v1, total[r][1]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) store(out + r * width + h * W, total[r][h]);
}

// The same for `rows` rows, at most VALUE_ROWS.
inline void value_rows(int64_t rows, int64_t keys, const Weights& weights, const float* shrink, const float* v,
                       int64_t v_row, float* out, int64_t width) {
  switch (rows) {
    case 8: return value_tile<8>(keys, weights, shrink, v, v_row, out, width);
    case 7: return value_tile<7>(keys, weights, shrink, v, v_row, out, width);
    case 6: return value_tile<6>(keys, weights, shrink, v, v_row, out, width);
    case 5: return value_tile<5>(keys, weights, shrink, v, v_row, out, width);
    case 4: return value_tile<4>(keys, weights, shrink, v, v_row, out, width);
    case 3: return value_tile<3>(keys, weights, shrink, v, v_row, out, width);
    case 2: return value_tile<2>(keys, weights, shrink, v, v_row, out, width);
    case 1: return value_tile<1>(keys, weights, shrink, v, v_row, out, width);
  }
}

// out (rows, value width) = out * shrink + weights times the values of one page
inline void add_values(int64_t rows, int64_t keys, const Weights& weights, const float* shrink, const Part& value,
                       int64_t page, float* out) {
  const float* v = value.at(page, 0);
  const int64_t width = value.width, whole = width / PANEL * PANEL;
  for (int64_t d = 0; d < whole; d += PANEL)
    for (int64_t r = 0; r < rows; r += VALUE_ROWS)
      value_rows(std::min<int64_t>(VALUE_ROWS, rows - r), keys, weights.from(r), shrink + r, v + d, value.row,
                 out + r * width + d, width);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t d = whole; d < width; d++) {
      float total = out[r * width + d] * shrink[r];
      for (int64_t c = 0; c < keys; c++) total = std::fma(weights.at(c, r), v[c * value.row + d], total);
      out[r * width + d] = total;
    }
}
