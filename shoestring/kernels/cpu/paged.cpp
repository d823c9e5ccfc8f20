// Attention of new tokens over pages of keys and values, in one pass with online softmax (arXiv 2205.14135). Pages are taken
// whole and in order, so that a row's result does not depend on the rows that are computed beside it.
#include "dots.h"

#include <memory>

namespace {

constexpr int64_t ROWS_AT_ONCE = 48, HEADS_AT_ONCE = 8, LONGEST_PAGE = 64, KEYS = 4;

struct Part {  // a token's entry: one head's vector of `width` floats; tokens are `row` apart, pages `page` apart
  const float* data;
  int64_t width, row, page;
};

struct Rows {  // the queries of one task: new tokens of one sequence, each with some heads
  int64_t tokens, heads;
  const int32_t* lengths;
  const int32_t* table;
  int64_t count() const { return tokens * heads; }
};

template <int R, int C>
inline void score_tile(const float* q, int64_t q_row, const Part& first, const float* k, const Part& second, const float* k2,
                       float* scores) {
  Dots<R, C> tile;
  tile.add(first.width, q, q_row, k, first.row);
  if (second.width) tile.add(second.width, q + first.width, q_row, k2, second.row);
  for (int r = 0; r < R; r++) tile.values(r, scores + r * LONGEST_PAGE);
}

// scores (count, LONGEST_PAGE) of `keys` keys of one page
inline void page_scores(int64_t count, int64_t keys, const float* q, int64_t q_row, const Part& first, const Part& second,
                        int64_t page, float* scores) {
  const float *k = first.data + page * first.page, *k2 = second.width ? second.data + page * second.page : nullptr;
  for (int64_t c = 0; c < keys;) {
    const bool four = c + KEYS <= keys;
    const float *kc = k + c * first.row, *k2c = k2 + c * second.row;
    int64_t i = 0;
    for (; i + 3 <= count; i += 3)
      if (four)
        score_tile<3, KEYS>(q + i * q_row, q_row, first, kc, second, k2c, scores + i * LONGEST_PAGE + c);
      else
        score_tile<3, 1>(q + i * q_row, q_row, first, kc, second, k2c, scores + i * LONGEST_PAGE + c);
    for (; i < count; i++)
      if (four)
        score_tile<1, KEYS>(q + i * q_row, q_row, first, kc, second, k2c, scores + i * LONGEST_PAGE + c);
      else
        score_tile<1, 1>(q + i * q_row, q_row, first, kc, second, k2c, scores + i * LONGEST_PAGE + c);
    c += four ? KEYS : 1;
  }
}

// Turns one row's scores into weights and rescales the sums so far. Keys from `visible` on get weight 0.
inline void row_softmax(float* scores, int64_t visible, int64_t keys, float* most, vec* total, float* out, int64_t width) {
  const int64_t wide = padded(static_cast<int>(keys), W);
  for (int64_t c = std::max<int64_t>(visible, 0); c < wide; c++) scores[c] = -INFINITY;
  if (visible <= 0) {
    std::fill(scores, scores + wide, 0.0f);
    return;
  }
  vec top = load(scores);
  for (int64_t c = W; c < wide; c += W) top = vmax(load(scores + c), top);
  const float now = std::max(*most, maximum(top)), shrink = *most == -INFINITY ? 0.0f : std::exp(*most - now);
  if (shrink != 1) {
    *total *= splat(shrink);
    for (int64_t i = 0; i < width; i++) out[i] *= shrink;
  }
  for (int64_t c = 0; c < wide; c += W) {
    const vec p = vexp(load(scores + c) - splat(now));
    store(scores + c, p);
    *total += p;
  }
  *most = now;
}

inline void add_values(int64_t count, int64_t keys, const float* weights, const Part& value, int64_t page, float* out) {
  const float* v = value.data + page * value.page;
  const int64_t panels = value.width / PANEL;
  product(static_cast<int>(count), static_cast<int>(panels), static_cast<int>(keys), weights, LONGEST_PAGE, 1, v,
          static_cast<int>(value.row), PANEL, out, static_cast<int>(value.width), true);
  for (int64_t i = 0; i < count; i++)
    for (int64_t d = panels * PANEL; d < value.width; d++)
      for (int64_t c = 0; c < keys; c++)
        out[i * value.width + d] = std::fma(weights[i * LONGEST_PAGE + c], v[c * value.row + d], out[i * value.width + d]);
}

// out (rows, value width) of scaled queries q (rows, first + second width)
inline void attend(const Rows& rows, int64_t page_size, const float* q, const Part& first, const Part& second,
                   const Part& value, float* out) {
  const int64_t count = rows.count(), q_row = first.width + second.width, longest = rows.lengths[rows.tokens - 1];
  float scores[ROWS_AT_ONCE * LONGEST_PAGE], most[ROWS_AT_ONCE];
  vec total[ROWS_AT_ONCE];
  for (int64_t i = 0; i < count; i++) most[i] = -INFINITY, total[i] = vec{};
  std::fill(out, out + count * value.width, 0.0f);
  for (int64_t start = 0, index = 0; start < longest; start += page_size, index++) {
    const int64_t page = rows.table[index], keys = std::min(page_size, longest - start);
    page_scores(count, keys, q, q_row, first, second, page, scores);
    for (int64_t i = 0; i < count; i++)
      row_softmax(scores + i * LONGEST_PAGE, std::min(keys, rows.lengths[i / rows.heads] - start), keys, most + i, total + i,
                  out + i * value.width, value.width);
    add_values(count, keys, scores, value, page, out);
  }
  for (int64_t i = 0; i < count; i++) {
    const float inverse = 1 / sum(total[i]);
    for (int64_t d = 0; d < value.width; d++) out[i * value.width + d] *= inverse;
  }
}

struct Problem {
  int64_t N, H, per_key_head, page_size, table_row;
  const float *q, *q2;
  Part first, second, value;
  int64_t first_head, second_head, value_head;  // distances between key heads; 0 if all heads share one
  const int32_t *tables, *sequences, *lengths;
  float scale;
  float* out;
};

// Attention of tokens n0 to n1 and heads h0 to h1, whose rows are gathered first and scattered afterwards.
inline void task(const Problem& p, int64_t n0, int64_t n1, int64_t h0, int64_t h1, float* q, float* out) {
  const int64_t heads = h1 - h0, width = p.first.width + p.second.width;
  for (int64_t n = n0; n < n1; n++)
    for (int64_t h = h0; h < h1; h++) {
      float* to = q + ((n - n0) * heads + h - h0) * width;
      const float *from = p.q + (n * p.H + h) * p.first.width, *from2 = p.q2 + (n * p.H + h) * p.second.width;
      for (int64_t i = 0; i < p.first.width; i++) to[i] = from[i] * p.scale;
      for (int64_t i = 0; i < p.second.width; i++) to[p.first.width + i] = from2[i] * p.scale;
    }
  Part first = p.first, second = p.second, value = p.value;
  const int64_t head = h0 / p.per_key_head;
  first.data += head * p.first_head, second.data += head * p.second_head, value.data += head * p.value_head;
  const Rows rows{n1 - n0, heads, p.lengths + n0, p.tables + p.sequences[n0] * p.table_row};
  attend(rows, p.page_size, q, first, second, value, out);
  for (int64_t n = n0; n < n1; n++)
    std::memcpy(p.out + (n * p.H + h0) * value.width, out + (n - n0) * heads * value.width,
                heads * value.width * sizeof(float));
}

void run(const Problem& p) {
  const int64_t heads = std::min(p.per_key_head, HEADS_AT_ONCE), blocks = (p.per_key_head + heads - 1) / heads;
  const int64_t tokens = std::max<int64_t>(1, ROWS_AT_ONCE / heads), key_heads = p.H / p.per_key_head;
  std::unique_ptr<int64_t[]> starts(new int64_t[p.N + 1]);
  int64_t count = 0;
  for (int64_t n = 0; n < p.N;) {
    starts[count++] = n;
    int64_t end = n + 1;
    while (end < p.N && end < n + tokens && p.sequences[end] == p.sequences[n]) end++;
    n = end;
  }
  starts[count] = p.N;
  const int64_t width = p.first.width + p.second.width;
#pragma omp parallel
  {
    std::unique_ptr<float[]> q(new float[ROWS_AT_ONCE * width]), out(new float[ROWS_AT_ONCE * p.value.width]);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < count * key_heads * blocks; i++) {
      const int64_t run = count - 1 - i / (key_heads * blocks), rest = i % (key_heads * blocks);  // the longest first
      const int64_t h0 = rest / blocks * p.per_key_head + rest % blocks * heads;
      const int64_t h1 = std::min(h0 + heads, (rest / blocks + 1) * p.per_key_head);
      task(p, starts[run], starts[run + 1], h0, h1, q.get(), out.get());
    }
  }
}

}  // namespace

// Latents (U, S, C) and rotary keys (U, S, R), shared by all heads; queries (N, H, C) and (N, H, R).
extern "C" void paged_latent(int64_t N, int64_t H, int64_t C, int64_t R, int64_t S, int64_t U, const float* q,
                             const float* q_rope, const float* latent, const float* k_rope, const int32_t* tables,
                             const int32_t* sequences, const int32_t* lengths, float scale, float* out) {
  const Part first{latent, C, C, S * C}, second{k_rope, R, R, S * R};
  run({N, H, H, S, U, q, q_rope, first, second, first, 0, 0, 0, tables, sequences, lengths, scale, out});
}

// Keys (U, S, G, D) and values (U, S, G, V); queries (N, H, D), H / G of them for each key head.
extern "C" void paged_heads(int64_t N, int64_t H, int64_t G, int64_t D, int64_t V, int64_t S, int64_t U, const float* q,
                            const float* key, const float* value, const int32_t* tables, const int32_t* sequences,
                            const int32_t* lengths, float scale, float* out) {
  const Part first{key, D, G * D, S * G * D}, none{nullptr, 0, 0, 0}, last{value, V, G * V, S * G * V};
  run({N, H, H / G, S, U, q, q, first, none, last, D, 0, V, tables, sequences, lengths, scale, out});
}
