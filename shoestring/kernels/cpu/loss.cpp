// Rows of logits: their cross-entropy, whose gradient replaces them, and a token for each, drawn by the row's own number.
#include <limits>
#include <vector>

#include "vec.h"

constexpr int64_t WORTH_THREADS = 1 << 13;  // values: with fewer, waking another thread takes longer than their exponentials

// nll[n] = -log softmax(logits[n])[targets[n]]; 0 for an ignored target (negative). With weights, logits (N, vocabulary) become
// weights[n] * (softmax - one_hot), else their values are unspecified afterwards. A NaN reaches nll whatever the target is.
extern "C" void cross_entropy(int64_t N, int64_t vocab, float* logits, const int64_t* targets, const float* weights,
                              float* nll) {
#pragma omp parallel for schedule(static) if (N * vocab > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++) {
    float* row = logits + n * vocab;
    float peak = row[0];
    int i = 0;
    if (vocab >= W) {
      vec top = load(row);
      for (i = W; i + W <= vocab; i += W) top = vmax(top, load(row + i));
      peak = maximum(top);
    }
    for (; i < vocab; i++) peak = std::max(peak, row[i]);
    const int64_t target = targets[n];
    const float target_logit = target < 0 ? 0.0f : row[target];
    vec totals = {};
    for (i = 0; i + W <= vocab; i += W) {
      const vec e = vexp(load(row + i) - peak);
      totals += e;
      store(row + i, e);
    }
    float total = sum(totals);
    for (; i < vocab; i++) total += row[i] = std::exp(row[i] - peak);
    nll[n] = target < 0 ? 0.0f * total : peak + std::log(total) - target_logit;
    if (!weights) continue;
    const float factor = (target < 0 ? 0.0f * weights[n] : weights[n]) / total;
    for (i = 0; i < vocab; i++) row[i] *= factor;
    if (target >= 0) row[target] -= weights[n];
  }
}

namespace {

// weights = exp((x - peak) / temperature), zeros up to a whole vector; returns their sum.
inline double exponentials(const float* x, int64_t count, float peak, float factor, float* weights) {
  double total = 0;
  int64_t i = 0;
  for (; i < count; i += W) {
    float padded[W];
    const int64_t left = std::min<int64_t>(W, count - i);
    if (left < W) {
      std::fill(padded, padded + W, -std::numeric_limits<float>::infinity());
      std::copy(x + i, x + i + left, padded);
    }
    store(weights + i, vexp((load(left < W ? padded : x + i) - peak) * factor));
  }
  for (i = 0; i < count; i++) total += weights[i];
  return total;
}

// The first token at which the cumulated weights are over number * total; the last one with any weight at the latest.
inline int64_t drawn(const float* weights, int64_t count, double target) {
  double cumulated = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < count; i++) {
    if (weights[i] > 0) last = i;
    cumulated += weights[i];
    if (cumulated > target) return i;
  }
  return last;
}

}  // namespace

// ids (N): the likeliest token where the temperature is 0, else the one that number (0 to 1) draws; -1 where the largest logit is
// not finite. logp (N): its log-probability at temperature 1.
extern "C" void sample_tokens(int64_t N, int64_t vocab, const float* logits, const double* temperatures, const double* numbers,
                              int64_t* ids, float* logp) {
#pragma omp parallel if (N * vocab > WORTH_THREADS)
  {
    std::vector<float> weights(static_cast<size_t>(padded(static_cast<int>(vocab), W)));
#pragma omp for schedule(static)
    for (int64_t n = 0; n < N; n++) {
      const float* row = logits + n * vocab;
      int64_t best = 0;
      bool has_nan = false;
      for (int64_t i = 0; i < vocab; i++) {
        has_nan |= row[i] != row[i];
        if (row[i] > row[best]) best = i;
      }
      const float peak = row[best];
      ids[n] = has_nan || !std::isfinite(peak) ? -1 : best;
      logp[n] = 0;
      if (ids[n] < 0) continue;
      const double whole = exponentials(row, vocab, peak, 1.0f, weights.data());
      if (temperatures[n] > 0) {
        const float factor = static_cast<float>(1 / temperatures[n]);
        const double total = factor == 1.0f ? whole : exponentials(row, vocab, peak, factor, weights.data());
        ids[n] = drawn(weights.data(), vocab, numbers[n] * total);
      }
      logp[n] = static_cast<float>(static_cast<double>(row[ids[n]] - peak) - std::log(whole));
    }
  }
}
