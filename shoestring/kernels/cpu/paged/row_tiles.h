// Scores of many rows of queries and the keys of one page, in tiles of registers. Queries and scores are transposed, a row for each
// lane, so that keys are read as they lie.
#pragma once
#include "tiles.h"

constexpr int VECS = 3;           // vectors of rows in a tile of scores
constexpr int LANES = VECS * W;   // rows of one panel of queries
constexpr int KEYS = W / 2;       // keys in a tile of scores: KEYS x VECS accumulators, twice as many keys for one vector

template <int K, int V>
inline void add_depth(int64_t depth, const float* q, const float* k, int64_t k_row, vec (&total)[K][V]) {
  for (int64_t d = 0; d < depth; d++) {
    vec x[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) x[v] = load(q + (d * V + v) * W);
#pragma GCC unroll 16
    for (int c = 0; c < K; c++) {
      const vec y = splat(k[c * k_row + d]);
#pragma GCC unroll 3
      for (int v = 0; v < V; v++) total[c][v] = multiply_add(y, x[v], total[c][v]);
    }
  }
}

// scores (K, V * W) of K keys from panel q (first + second width, V * W)
template <int K, int V>
inline void score_tile(const float* q, const Part& first, const float* k, const Part& second, const float* k2, float* scores) {
  vec total[K][V];
#pragma GCC unroll 16
  for (int c = 0; c < K; c++)
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) total[c][v] = vec{};
  add_depth<K, V>(first.width, q, k, first.row, total);
  if (second.width) add_depth<K, V>(second.width, q + first.width * V * W, k2, second.row, total);
#pragma GCC unroll 16
  for (int c = 0; c < K; c++)
#pragma GCC unroll 3
    for (int v = 0; v < V; v++) store(scores + (c * V + v) * W, total[c][v]);
}

// scores (keys, V * W) of one page, whose keys are `size`; a tile may pass the end of `keys`, never that of the page.
template <int V>
inline void panel_scores(int64_t keys, int64_t size, const float* q, const Part& first, const Part& second, int64_t page,
                         float* scores) {
  constexpr int K = V == 1 ? 2 * KEYS : KEYS;
  int64_t c = 0;
  for (; c < keys && c + K <= size; c += K)
    score_tile<K, V>(q, first, first.at(page, c), second, second.at(page, c), scores + c * V * W);
  for (; c < keys; c++)
    score_tile<1, V>(q, first, first.at(page, c), second, second.at(page, c), scores + c * V * W);
}

// Scores of so many vectors of rows.
inline void page_scores(int64_t vecs, int64_t keys, int64_t size, const float* q, const Part& first, const Part& second,
                        int64_t page, float* scores) {
  switch (vecs) {
    case 3: return panel_scores<3>(keys, size, q, first, second, page, scores);
    case 2: return panel_scores<2>(keys, size, q, first, second, page, scores);
    case 1: return panel_scores<1>(keys, size, q, first, second, page, scores);
  }
}

// Turns scores (keys, lanes) into weights, of 0 from each row's `visible` keys on; the other arguments as in tiles.h.
inline void row_softmax(int64_t lanes, int64_t keys, const int32_t* visible, float* scores, float* most, float* total,
                        float* shrink) {
  const vec none = splat(-INFINITY);
  for (int64_t i = 0; i < lanes; i += W) {
    ivec seen;
    std::memcpy(&seen, visible + i, sizeof seen);
    vec top = load(most + i), sum = {};
    for (int64_t c = 0; c < keys; c++) {
      const vec x = seen > static_cast<int32_t>(c) - ivec{} ? load(scores + c * lanes + i) : none;
      store(scores + c * lanes + i, x);
      top = vmax(x, top);
    }
    const vec base = finite_base(top);
    exponentials(keys, lanes, base, scores + i);
    for (int64_t c = 0; c < keys; c++) sum += load(scores + c * lanes + i);
    go_on(top, base, sum, most + i, total + i, shrink + i);
  }
}
