// Cross-entropy of rows of logits; their gradient replaces them.
#include "vec.h"

constexpr int64_t WORTH_THREADS = 1 << 12;  // values: with fewer, starting another thread takes longer than their exponentials

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
