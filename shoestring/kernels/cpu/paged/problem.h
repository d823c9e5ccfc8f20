// A call of attention over pages, its tasks, and the softmax of a task's rows.
#pragma once
#include "tiles.h"

#include <memory>

constexpr int64_t MOST_ROWS = 12 * W;  // of a task
constexpr int64_t PART = 512;          // keys whose softmax is merged with that of the keys before

struct Problem {
  int64_t N, H, per_key_head, page_size, table_row;
  const float *q, *q2;
  Part first, second, value;
  int64_t first_head, second_head, value_head;  // distances between key heads; 0 if all heads share one
  const int32_t *tables, *sequences, *lengths;
  float scale;
  float* out;
  int64_t width() const { return first.width + second.width; }
};

struct Block {  // the rows of one task: new tokens n0 to n1 of one sequence, each with heads h0 to h1 of one key head
  int64_t n0, n1, h0, h1;
  int64_t heads() const { return h1 - h0; }
  int64_t rows() const { return (n1 - n0) * heads(); }
  int64_t row_of(const Problem& p, int64_t r) const { return (n0 + r / heads()) * p.H + h0 + r % heads(); }
};

struct Keys {  // of a block's key head, in its sequence's pages
  Part first, second, value;
  const int32_t* table;
  Keys(const Problem& p, const Block& block)
      : first(p.first), second(p.second), value(p.value), table(p.tables + p.sequences[block.n0] * p.table_row) {
    const int64_t head = block.h0 / p.per_key_head;
    first.data += head * p.first_head, value.data += head * p.value_head;
    if (second.data) second.data += head * p.second_head;
  }
};

struct Mix {  // softmax so far: each row's largest score, sum of weights, and sum of weighted values (rows, width)
  float most[MOST_ROWS], total[MOST_ROWS];
  int64_t width;
  std::unique_ptr<float[]> out;
  Mix(int64_t rows, int64_t width) : width(width), out(new float[rows * width]) {}
  void clear(int64_t rows) {
    std::fill(most, most + MOST_ROWS, -INFINITY);
    std::fill(total, total + MOST_ROWS, 0.0f);
    std::fill(out.get(), out.get() + rows * width, 0.0f);
  }
};

// visible (count): how many of the keys from `start` on each of the block's rows from r on sees
inline void visible_keys(const Problem& p, const Block& block, int64_t r, int64_t count, int64_t start, int32_t* visible) {
  for (int64_t i = 0; i < count; i++) visible[i] = p.lengths[block.n0 + (r + i) / block.heads()] - start;
}
