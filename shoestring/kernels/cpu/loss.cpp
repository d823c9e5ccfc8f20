// Cross-entropy of rows of logits, whose gradient replaces them.
#include "vec.h"

// nll[n] = -log softmax(logits[n])[targets[n]]; a negative target gives 0. If weights are given, logits (N, V) become
// weights[n] * (softmax - one_hot), else they are left unspecified. A NaN reaches nll whatever the target is.
extern "C" void cross_entropy(int64_t N, int64_t V, float* logits, const int64_t* targets, const float* weights,
                              float* nll) {
#pragma omp parallel for schedule(static)
  for (int64_t n = 0; n < N; n++) {
    float* row = logits + n * V;
    float peak = row[0];
    int i = 0;
    if (V >= W) {
      vec top = load(row);
      for (i = W; i + W <= V; i += W) top = vmax(top, load(row + i));
      peak = maximum(top);
    }
    for (; i < V; i++) peak = std::max(peak, row[i]);
    const int64_t target = targets[n];
    const float wanted = target < 0 ? 0.0f : row[target];
    vec totals = {};
    for (i = 0; i + W <= V; i += W) {
      const vec e = vexp(load(row + i) - peak);
      totals += e;
      store(row + i, e);
    }
    float total = sum(totals);
    for (; i < V; i++) total += row[i] = std::exp(row[i] - peak);
    nll[n] = target < 0 ? 0.0f * total : peak + std::log(total) - wanted;
    if (!weights) continue;
    const float factor = (target < 0 ? 0.0f * weights[n] : weights[n]) / total;
    for (i = 0; i < V; i++) row[i] *= factor;
    if (target >= 0) row[target] -= weights[n];
  }
}
