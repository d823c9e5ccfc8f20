// Attention of new tokens over pages of keys and values, in one pass with online softmax (arXiv 2205.14135). Keys are taken in parts
// of PART, whose results are merged in order, and a part's pages whole and in order: a row's result depends neither on the rows
// computed beside it nor on the threads.
#include "key_tiles.h"
#include "row_tiles.h"

#include <memory>
#include <vector>
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

constexpr int64_t ROWS_AT_ONCE = 2 * LANES, PART = 512;
constexpr int64_t WORTH_THREADS = 1 << 18;  // products of two numbers: fewer take less time than starting threads

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
};

struct Mix {  // softmax so far: each row's largest score, sum of weights, and sum of weighted values (rows, value width)
  float most[ROWS_AT_ONCE], total[ROWS_AT_ONCE];
  std::unique_ptr<float[]> out;
  explicit Mix(int64_t rows, int64_t width) : out(new float[rows * width]) {}
  void clear(int64_t rows, int64_t width) {
    std::fill(most, most + ROWS_AT_ONCE, -INFINITY);
    std::fill(total, total + ROWS_AT_ONCE, 0.0f);
    std::fill(out.get(), out.get() + rows * width, 0.0f);
  }
};

// The block's queries, scaled: few as rows (rows, width), many as panels (width, at most LANES). Lanes without a row repeat the last.
void gather(const Problem& p, const Block& block, float* q) {
  const int64_t rows = block.rows(), C = p.first.width, R = p.second.width;
  const float *x[ROWS_AT_ONCE], *x2[ROWS_AT_ONCE];
  for (int64_t i = 0; i < padded(static_cast<int>(rows), W); i++) {
    const int64_t row = std::min(i, rows - 1), n = block.n0 + row / block.heads(), h = block.h0 + row % block.heads();
    x[i] = p.q + (n * p.H + h) * C, x2[i] = p.q2 + (n * p.H + h) * R;
  }
  if (rows <= FEW_ROWS) {
    for (int64_t r = 0; r < rows; r++)
      std::copy(x[r], x[r] + C, q + r * p.width()), std::copy(x2[r], x2[r] + R, q + r * p.width() + C);
    for (int64_t i = 0; i < rows * p.width(); i++) q[i] *= p.scale;
    return;
  }
  for (int64_t first = 0; first < rows; first += LANES) {
    const int64_t lanes = padded(static_cast<int>(std::min<int64_t>(LANES, rows - first)), W);
    for (int64_t i = 0; i < lanes; i += W) {
      transpose(0, C, x + first + i, q + i, lanes);
      transpose(0, R, x2 + first + i, q + C * lanes + i, lanes);
    }
    for (int64_t i = 0; i < p.width() * lanes; i++) q[i] *= p.scale;
    q += p.width() * lanes;
  }
}

Part of_head(Part part, int64_t distance) {
  if (part.data) part.data += distance;
  return part;
}

// The block's rows over keys `begin` to `end`, as far as each may see them.
void attend(const Problem& p, const Block& block, const float* q, int64_t begin, int64_t end, Mix& mix) {
  const int64_t rows = block.rows(), head = block.h0 / p.per_key_head;
  const Part first = of_head(p.first, head * p.first_head), second = of_head(p.second, head * p.second_head);
  const Part value = of_head(p.value, head * p.value_head);
  const int32_t* table = p.tables + p.sequences[block.n0] * p.table_row;
  float scores[LONGEST_PAGE * LANES], shrink[LANES];
  int32_t visible[LANES] = {};
  mix.clear(rows, value.width);
  for (int64_t start = begin; start < end; start += p.page_size) {
    const int64_t page = table[start / p.page_size], keys = std::min(p.page_size, end - start);
    for (int64_t i = 0; i < rows; i += LANES) {
      const int64_t count = std::min<int64_t>(LANES, rows - i), lanes = padded(static_cast<int>(count), W);
      const bool few = rows <= FEW_ROWS;
      for (int64_t r = 0; r < count; r++) visible[r] = p.lengths[block.n0 + (i + r) / block.heads()] - start;
      if (few) {
        few_scores(rows, keys, q, first, second, page, scores);
        few_softmax(rows, keys, visible, scores, mix.most, mix.total, shrink);
      } else {
        page_scores(lanes / W, keys, p.page_size, q + i * p.width(), first, second, page, scores);
        row_softmax(lanes, keys, visible, scores, mix.most + i, mix.total + i, shrink);
      }
      const Weights weights{scores, few ? 1 : lanes, few ? LONGEST_PAGE : 1};
      add_values(count, keys, weights, shrink, value, page, mix.out.get() + i * value.width);
    }
  }
}

// sum = the softmax over the keys of both
void merge(int64_t rows, int64_t width, const Mix& part, Mix& sum) {
  for (int64_t r = 0; r < rows; r++) {
    const float most = std::max(sum.most[r], part.most[r]);
    const float base = most == -INFINITY ? 0.0f : most;
    const vec old = splat(std::exp(sum.most[r] - base)), added = splat(std::exp(part.most[r] - base));
    float *to = sum.out.get() + r * width;
    const float* from = part.out.get() + r * width;
    int64_t d = 0;
    for (; d + W <= width; d += W) store(to + d, multiply_add(load(from + d), added, load(to + d) * old));
    for (; d < width; d++) to[d] = std::fma(from[d], added[0], to[d] * old[0]);
    sum.total[r] = std::fma(part.total[r], added[0], sum.total[r] * old[0]);
    sum.most[r] = most;
  }
}

void scatter(const Problem& p, const Block& block, const Mix& mix) {
  const int64_t width = p.value.width, heads = block.heads();
  for (int64_t r = 0; r < block.rows(); r++) {
    const float inverse = 1 / mix.total[r];
    float* to = p.out + ((block.n0 + r / heads) * p.H + block.h0 + r % heads) * width;
    for (int64_t d = 0; d < width; d++) to[d] = mix.out[r * width + d] * inverse;
  }
}

// All tasks, the longest first where tokens of one sequence follow each other. Few of them are cut smaller, for all threads.
std::vector<Block> blocks_of(const Problem& p, int64_t threads) {
  const int64_t cuts = (p.per_key_head + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE, heads = (p.per_key_head + cuts - 1) / cuts;
  const int64_t enough = p.N * (p.H / p.per_key_head) * cuts / (4 * threads);
  const int64_t tokens = std::min(std::max<int64_t>(1, enough), ROWS_AT_ONCE / heads);
  std::vector<Block> blocks;
  for (int64_t n = 0; n < p.N;) {
    int64_t end = n + 1;
    while (end < p.N && end < n + tokens && p.sequences[end] == p.sequences[n]) end++;
    for (int64_t first = 0; first < p.H; first += p.per_key_head)
      for (int64_t h = 0; h < p.per_key_head; h += heads)
        blocks.push_back({n, end, first + h, first + std::min(h + heads, p.per_key_head)});
    n = end;
  }
  std::reverse(blocks.begin(), blocks.end());
  return blocks;
}

// A thread for each block.
void run_blocks(const Problem& p, const std::vector<Block>& blocks, int64_t threads) {
#pragma omp parallel if (threads > 1)
  {
    std::unique_ptr<float[]> q(new float[ROWS_AT_ONCE * p.width()]);
    Mix sum(ROWS_AT_ONCE, p.value.width), part(ROWS_AT_ONCE, p.value.width);
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < blocks.size(); i++) {
      const Block& block = blocks[i];
      const int64_t end = p.lengths[block.n1 - 1];
      gather(p, block, q.get());
      attend(p, block, q.get(), 0, std::min(PART, end), sum);
      for (int64_t begin = PART; begin < end; begin += PART) {
        attend(p, block, q.get(), begin, std::min(begin + PART, end), part);
        merge(block.rows(), p.value.width, part, sum);
      }
      scatter(p, block, sum);
    }
  }
}

// A thread for each part of a block's keys: one long sequence keeps all threads busy.
void run_parts(const Problem& p, const std::vector<Block>& blocks) {
  std::vector<std::pair<size_t, int64_t>> jobs;  // block, first key
  std::vector<size_t> starts;
  for (size_t i = 0; i < blocks.size(); i++) {
    starts.push_back(jobs.size());
    for (int64_t begin = 0; begin < p.lengths[blocks[i].n1 - 1]; begin += PART) jobs.push_back({i, begin});
  }
  starts.push_back(jobs.size());
  std::vector<std::unique_ptr<Mix>> mixes(jobs.size());
#pragma omp parallel
  {
    std::unique_ptr<float[]> q(new float[ROWS_AT_ONCE * p.width()]);
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < jobs.size(); i++) {
      const Block& block = blocks[jobs[i].first];
      const int64_t begin = jobs[i].second, end = std::min<int64_t>(begin + PART, p.lengths[block.n1 - 1]);
      gather(p, block, q.get());
      mixes[i].reset(new Mix(block.rows(), p.value.width));
      attend(p, block, q.get(), begin, end, *mixes[i]);
    }
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < blocks.size(); i++) {
      Mix& sum = *mixes[starts[i]];
      for (size_t j = starts[i] + 1; j < starts[i + 1]; j++) merge(blocks[i].rows(), p.value.width, *mixes[j], sum);
      scatter(p, blocks[i], sum);
    }
  }
}

void run(const Problem& p) {
  int64_t keys = 0, longest = 0, threads = 1;
  for (int64_t n = 0; n < p.N; n++) keys += p.lengths[n], longest = std::max<int64_t>(longest, p.lengths[n]);
#if defined(_OPENMP)
  if (keys * p.H * (p.width() + p.value.width) > WORTH_THREADS) threads = omp_get_max_threads();
#endif
  const std::vector<Block> blocks = blocks_of(p, threads);
  const bool few = static_cast<int64_t>(blocks.size()) < 2 * threads;
  if (threads > 1 && few && longest > PART)
    run_parts(p, blocks);
  else
    run_blocks(p, blocks, threads);
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
