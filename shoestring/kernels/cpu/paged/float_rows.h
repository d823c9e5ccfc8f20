// Attention of a block's rows in vectors of floats.
#pragma once
#include "key_tiles.h"
#include "problem.h"
#include "row_tiles.h"

class FloatRows {
 public:
  static constexpr int64_t ROWS_AT_ONCE = 6 * W;
  static int64_t value_width(const Problem& p) { return p.value.width; }

  explicit FloatRows(const Problem& p) : p(p), q(new float[ROWS_AT_ONCE * p.width()]) {}

  // The block's queries, scaled: few as rows (rows, width), many as panels (width, at most LANES). Lanes without a row repeat the last.
  void gather(const Block& block) {
    const int64_t rows = block.rows(), C = p.first.width, R = p.second.width;
    const float *x[ROWS_AT_ONCE], *x2[ROWS_AT_ONCE];
    for (int64_t i = 0; i < padded(static_cast<int>(rows), W); i++) {
      const int64_t row = block.row_of(p, std::min(i, rows - 1));
      x[i] = p.q + row * C, x2[i] = p.q2 + row * R;
    }
    float* to = q.get();
    if (rows <= FEW_ROWS) {
      for (int64_t r = 0; r < rows; r++)
        std::copy(x[r], x[r] + C, to + r * p.width()), std::copy(x2[r], x2[r] + R, to + r * p.width() + C);
      for (int64_t i = 0; i < rows * p.width(); i++) to[i] *= p.scale;
      return;
    }
    for (int64_t first = 0; first < rows; first += LANES) {
      const int64_t lanes = padded(static_cast<int>(std::min<int64_t>(LANES, rows - first)), W);
      for (int64_t i = 0; i < lanes; i += W) {
        transpose(0, C, x + first + i, to + i, lanes);
        transpose(0, R, x2 + first + i, to + C * lanes + i, lanes);
      }
      for (int64_t i = 0; i < p.width() * lanes; i++) to[i] *= p.scale;
      to += p.width() * lanes;
    }
  }

  // The gathered rows over keys `begin` to `end`, as far as each may see them.
  void attend(const Block& block, int64_t begin, int64_t end, Mix& mix) {
    const Keys k(p, block);
    const int64_t rows = block.rows();
    float scores[LONGEST_PAGE * LANES], shrink[LANES];
    int32_t visible[LANES] = {};
    mix.clear(rows);
    for (int64_t start = begin; start < end; start += p.page_size) {
      const int64_t page = k.table[start / p.page_size], keys = std::min(p.page_size, end - start);
      for (int64_t i = 0; i < rows; i += LANES) {
        const int64_t count = std::min<int64_t>(LANES, rows - i), lanes = padded(static_cast<int>(count), W);
        const bool few = rows <= FEW_ROWS;
        if (few && start + p.page_size < end) {
          const int64_t next = k.table[start / p.page_size + 1], count = std::min(p.page_size, end - start - p.page_size);
          k.first.fetch(next, count), k.second.fetch(next, count);
          if (k.value.data != k.first.data) k.value.fetch(next, count);
        }
        visible_keys(p, block, i, count, start, visible);
        if (few) {
          few_scores(rows, keys, q.get(), k.first, k.second, page, scores);
          few_softmax(rows, keys, visible, scores, mix.most, mix.total, shrink);
        } else {
          page_scores(lanes / W, keys, p.page_size, q.get() + i * p.width(), k.first, k.second, page, scores);
          row_softmax(lanes, keys, visible, scores, mix.most + i, mix.total + i, shrink);
        }
        const Weights weights{scores, few ? 1 : lanes, few ? LONGEST_PAGE : 1};
        add_values(count, keys, weights, shrink, k.value, page, mix.out.get() + i * mix.width);
      }
    }
  }

 private:
  const Problem& p;
  std::unique_ptr<float[]> q;
};
