// Scores of few rows of queries and the keys of one page: a key for each lane, so that no lane is empty. Keys are transposed on the
// way. The additions are those of row_tiles.h in the same order, and so are the bits.
#pragma once
#include "tiles.h"

constexpr int FEW_ROWS = W == 16 ? 8 : 2;
constexpr int64_t DEPTH = 32;  // of the keys that are transposed at a time

// Exchanges the lanes of `a` that have bit S with those of `b` that do not.
template <int S>
inline void exchange(vec& a, vec& b) {
#if defined(__clang__)
  for (int l = 0; l < W; l++)
    if (l & S) {
      const float x = a[l];
      a[l] = b[l - S], b[l - S] = x;
    }
#else
  ivec to_a, to_b;
#pragma GCC unroll 16
  for (int l = 0; l < W; l++) to_a[l] = l & S ? W + l - S : l, to_b[l] = l & S ? W + l : l + S;
  const vec before = a;
  a = __builtin_shuffle(before, b, to_a), b = __builtin_shuffle(before, b, to_b);
#endif
}

template <int S>
inline void exchange_all(vec* x) {
#pragma GCC unroll 16
  for (int i = 0; i < W; i++)
    if (!(i & S)) exchange<S>(x[i], x[i | S]);
}

// to (count, W), rows `distance` apart = values from `begin` on of W vectors, transposed
inline void transpose(int64_t begin, int64_t count, const float* const* from, float* to, int64_t distance) {
  int64_t d = 0;
  for (; d + W <= count; d += W) {
    vec x[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) x[i] = load(from[i] + begin + d);
    exchange_all<1>(x), exchange_all<2>(x), exchange_all<4>(x);
    if (W > 8) exchange_all<8 % W>(x);
#pragma GCC unroll 16
    for (int i = 0; i < W; i++) store(to + (d + i) * distance, x[i]);
  }
  for (; d < count; d++)
    for (int i = 0; i < W; i++) to[d * distance + i] = from[i][begin + d];
}

// P times W keys: one sum at a time would wait for each addition.
template <int R, int P>
inline void add_keys(int64_t depth, const float* q, int64_t q_row, const float* const* keys, vec (&total)[R][P]) {
  float transposed[P][DEPTH * W];
  for (int64_t begin = 0; begin < depth; begin += DEPTH) {
    const int64_t count = std::min(DEPTH, depth - begin);
    for (int p = 0; p < P; p++) transpose(begin, count, keys + p * W, transposed[p], W);
    for (int64_t d = 0; d < count; d++) {
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const vec x = splat(q[r * q_row + begin + d]);
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) total[r][p] = multiply_add(x, load(transposed[p] + d * W), total[r][p]);
      }
    }
  }
}

// scores (R, LONGEST_PAGE) of one page; past its `keys` they have no meaning.
template <int R>
inline void key_tiles(int64_t keys, const float* q, const Part& first, const Part& second, int64_t page, float* scores) {
  constexpr int P = R <= 4 ? 2 : 1;
  const int64_t q_row = first.width + second.width;
  for (int64_t c = 0; c < keys; c += P * W) {
    const float *k[P * W], *k2[P * W];
    for (int64_t i = 0; i < P * W; i++) {
      const int64_t key = std::min(c + i, keys - 1);
      k[i] = first.at(page, key), k2[i] = second.at(page, key);
    }
    vec total[R][P];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
      for (int p = 0; p < P; p++) total[r][p] = vec{};
    add_keys<R, P>(first.width, q, q_row, k, total);
    if (second.width) add_keys<R, P>(second.width, q + first.width, q_row, k2, total);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 2
      for (int p = 0; p < P; p++) store(scores + r * LONGEST_PAGE + c + p * W, total[r][p]);
  }
}

// Scores of so many rows, at most FEW_ROWS.
inline void few_scores(int64_t rows, int64_t keys, const float* q, const Part& first, const Part& second, int64_t page,
                       float* scores) {
  switch (rows) {
    case 8: return key_tiles<8>(keys, q, first, second, page, scores);
    case 7: return key_tiles<7>(keys, q, first, second, page, scores);
    case 6: return key_tiles<6>(keys, q, first, second, page, scores);
    case 5: return key_tiles<5>(keys, q, first, second, page, scores);
    case 4: return key_tiles<4>(keys, q, first, second, page, scores);
    case 3: return key_tiles<3>(keys, q, first, second, page, scores);
    case 2: return key_tiles<2>(keys, q, first, second, page, scores);
    case 1: return key_tiles<1>(keys, q, first, second, page, scores);
  }
}

// sums (R) of `keys` weights of each row, in their order; of one row at a time each addition would wait for the last.
template <int R>
inline void sum_weights(int64_t keys, const float* weights, float* sums) {
  float total[R] = {};
  for (int64_t c = 0; c < keys; c++)
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) total[r] += weights[r * LONGEST_PAGE + c];
  for (int r = 0; r < R; r++) sums[r] = total[r];
}

// Turns scores (rows, LONGEST_PAGE) into weights, as row_softmax does.
inline void few_softmax(int64_t rows, int64_t keys, const int32_t* visible, float* scores, float* most, float* total,
                        float* shrink) {
  const int64_t wide = padded(static_cast<int>(keys), W);
  float tops[W], sums[W] = {};
  std::fill(tops, tops + W, -INFINITY);
  for (int64_t r = 0; r < rows; r++) {
    float* row = scores + r * LONGEST_PAGE;
    for (int64_t c = std::min<int64_t>(std::max(visible[r], 0), keys); c < wide; c++) row[c] = -INFINITY;
    vec top = splat(most[r]);
    for (int64_t c = 0; c < wide; c += W) top = vmax(load(row + c), top);
    tops[r] = pairwise_maximum(top);
    exponentials(wide / W, W, finite_base(splat(tops[r])), row);
  }
  int64_t r = 0;  // weights of keys that a row does not see are 0
  for (; r + 4 <= rows; r += 4) sum_weights<4>(keys, scores + r * LONGEST_PAGE, sums + r);
  for (; r < rows; r++) sum_weights<1>(keys, scores + r * LONGEST_PAGE, sums + r);
  const vec top = load(tops);
  go_on(top, finite_base(top), load(sums), most, total, shrink);
}
