// Attention of new tokens over pages of keys and values, in one pass with online softmax (arXiv 2205.14135). Keys are taken in parts
// of PART, whose results are merged in order, and a part's pages whole and in order: a row's result depends neither on the rows
// computed beside it nor on the threads.
#include "paged/amx_rows.h"
#include "paged/float_rows.h"

#include <vector>
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace {

constexpr int64_t WORTH_THREADS = 1 << 18;  // products of two numbers: fewer take less time than starting threads

// sum = the softmax over the keys of both
void merge(int64_t rows, const Mix& part, Mix& sum) {
  const int64_t width = sum.width;
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
  const int64_t width = p.value.width;
  for (int64_t r = 0; r < block.rows(); r++) {
    const float inverse = 1 / mix.total[r];
    float* to = p.out + block.row_of(p, r) * width;
    for (int64_t d = 0; d < width; d++) to[d] = mix.out[r * mix.width + d] * inverse;
  }
}

// All tasks, the longest first where tokens of one sequence follow each other. Few of them are cut smaller, for all threads.
std::vector<Block> blocks_of(const Problem& p, int64_t most_rows, int64_t threads) {
  const int64_t cuts = (p.per_key_head + most_rows - 1) / most_rows, heads = (p.per_key_head + cuts - 1) / cuts;
  const int64_t enough = p.N * (p.H / p.per_key_head) * cuts / (4 * threads);
  const int64_t tokens = std::min(std::max<int64_t>(1, enough), most_rows / heads);
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
template <class Rows>
void run_blocks(const Problem& p, const std::vector<Block>& blocks, int64_t threads) {
#pragma omp parallel if (threads > 1)
  {
    Rows rows(p);
    Mix sum(Rows::ROWS_AT_ONCE, Rows::value_width(p)), part(Rows::ROWS_AT_ONCE, Rows::value_width(p));
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < blocks.size(); i++) {
      const Block& block = blocks[i];
      const int64_t end = p.lengths[block.n1 - 1];
      rows.gather(block);
      rows.attend(block, 0, std::min(PART, end), sum);
      for (int64_t begin = PART; begin < end; begin += PART) {
        rows.attend(block, begin, std::min(begin + PART, end), part);
        merge(block.rows(), part, sum);
      }
      scatter(p, block, sum);
    }
  }
}

// A thread for each part of a block's keys: one long sequence keeps all threads busy.
template <class Rows>
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
    Rows rows(p);
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < jobs.size(); i++) {
      const Block& block = blocks[jobs[i].first];
      const int64_t begin = jobs[i].second, end = std::min<int64_t>(begin + PART, p.lengths[block.n1 - 1]);
      rows.gather(block);
      mixes[i].reset(new Mix(padded(static_cast<int>(block.rows()), W), Rows::value_width(p)));
      rows.attend(block, begin, end, *mixes[i]);
    }
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < blocks.size(); i++) {
      Mix& sum = *mixes[starts[i]];
      for (size_t j = starts[i] + 1; j < starts[i + 1]; j++) merge(blocks[i].rows(), *mixes[j], sum);
      scatter(p, blocks[i], sum);
    }
  }
}

// Whether threads would wait for one that has a long block: few blocks, or one with more than a thread's share of all keys.
bool are_uneven(const Problem& p, const std::vector<Block>& blocks, int64_t threads) {
  int64_t all = 0, most = 0;
  for (const Block& block : blocks) {
    const int64_t pairs = block.rows() * p.lengths[block.n1 - 1];
    all += pairs, most = std::max(most, pairs);
  }
  return static_cast<int64_t>(blocks.size()) < 2 * threads || most * threads > all;
}

template <class Rows>
void run_rows(const Problem& p) {
  int64_t keys = 0, longest = 0, threads = 1;
  for (int64_t n = 0; n < p.N; n++) keys += p.lengths[n], longest = std::max<int64_t>(longest, p.lengths[n]);
#if defined(_OPENMP)
  if (keys * p.H * (p.width() + p.value.width) > WORTH_THREADS) threads = omp_get_max_threads();
#endif
  const std::vector<Block> blocks = blocks_of(p, Rows::ROWS_AT_ONCE, threads);
  if (threads > 1 && longest > PART && are_uneven(p, blocks, threads))
    run_parts<Rows>(p, blocks);
  else
    run_blocks<Rows>(p, blocks, threads);
}

void run(const Problem& p) {
#if defined(AMX_INT8)
  if (AmxRows::serves(p)) return run_rows<AmxRows>(p);
#endif
  run_rows<FloatRows>(p);
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
