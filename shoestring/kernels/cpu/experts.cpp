// Rows to experts and back, by the positions of every token's K copies. M = N * K rows.
#include "vec.h"

constexpr int64_t WORTH_THREADS = 1 << 15;  // values: with fewer, waking another thread takes longer than the work

// rows (M, D): row positions[n, k] is token n, times weights[n, k] if there are weights.
extern "C" void dispatch_rows(int64_t N, int64_t K, int64_t D, const int64_t* positions, const float* tokens,
                              const float* weights, float* rows) {
#pragma omp parallel for schedule(static) if (N * K * D > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++)
    for (int k = 0; k < K; k++) {
      const float* from = tokens + n * D;
      float* to = rows + positions[n * K + k] * D;
      if (!weights) {
        std::memcpy(to, from, D * sizeof(float));
        continue;
      }
      const float w = weights[n * K + k];
      for (int i = 0; i < D; i++) to[i] = from[i] * w;
    }
}

// tokens (N, D): the sum over k of row positions[n, k], times weights[n, k] if there are weights.
extern "C" void combine_rows(int64_t N, int64_t K, int64_t D, const int64_t* positions, const float* rows,
                             const float* weights, float* tokens) {
#pragma omp parallel for schedule(static) if (N * K * D > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++) {
    float* to = tokens + n * D;
    std::fill(to, to + D, 0.0f);
    for (int k = 0; k < K; k++) {
      const float* from = rows + positions[n * K + k] * D;
      const float w = weights ? weights[n * K + k] : 1.0f;
      for (int i = 0; i < D; i++) to[i] += w * from[i];
    }
  }
}

// dweights (N, K): the dot product of token n's gradient with row positions[n, k].
extern "C" void combine_weights_backward(int64_t N, int64_t K, int64_t D, const int64_t* positions, const float* rows,
                                         const float* dtokens, float* dweights) {
#pragma omp parallel for schedule(static) if (N * K * D > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++)
    for (int k = 0; k < K; k++) {
      const float *a = rows + positions[n * K + k] * D, *b = dtokens + n * D;
      vec total = {};
      int i = 0;
      for (; i + W <= D; i += W) total += load(a + i) * load(b + i);
      float dot = sum(total);
      for (; i < D; i++) dot += a[i] * b[i];
      dweights[n * K + k] = dot;
    }
}
