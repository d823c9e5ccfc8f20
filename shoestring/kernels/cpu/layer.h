// A packed model's layer: structs of its weights, which kernels/layer_weights.py builds, and declarations of the operations
// that a whole layer calls one after another. A layer in one call therefore gives the same bits as these calls from Python.
#pragma once
#include "packed.h"

#ifdef PACKED_KERNELS
#include <memory>

struct Norm {
  const float* weight;
  float eps;
};

struct Matrix {  // `stack` of them, each (outputs, depth); blocks is null for a matrix that the layer does not have
  const uint8_t* blocks;
  const float* bias;
  int64_t bits, stack, outputs, depth;
};

extern "C" {
void rms_norm_forward(int64_t N, int64_t D, float eps, const float* x, const float* weight, float* y, float* inverse);
void rms_norm_row(int64_t D, float eps, const float* x, const float* weight, float* y, float* inverse);
void rotate_head(int64_t D, int64_t R, int64_t interleave, float direction, const float* x, const float* cos, const float* sin,
                 float* y);
void linear_rows(int64_t is_bf16, int64_t stack, const int64_t* ends, int64_t N, int64_t D, int64_t F, const float* x,
                 int64_t x_batch, int64_t x_row, const void* w, const float* bias, float* y, int64_t y_batch, int64_t y_row);
void packed_linear(int64_t bits, int64_t stack, int64_t N, int64_t D, int64_t F, const float* x, int64_t x_batch, int64_t x_row,
                   const uint8_t* weights, const float* bias, float* y, int64_t y_batch, int64_t y_row);
void packed_experts(int64_t bits, int64_t N, int64_t K, int64_t D, int64_t F, int64_t E, const float* x, const int64_t* experts,
                    const float* weights, const uint8_t* gate_up, const uint8_t* down, float* y);
void paged_latent(int64_t N, int64_t H, int64_t C, int64_t R, int64_t S, int64_t U, const float* q, const float* q_rope,
                  const float* latent, const float* k_rope, const int32_t* tables, const int32_t* sequences,
                  const int32_t* lengths, float scale, float* out);
void paged_heads(int64_t N, int64_t H, int64_t G, int64_t D, int64_t V, int64_t S, int64_t U, const float* q, const float* key,
                 const float* value, const int32_t* tables, const int32_t* sequences, const int32_t* lengths, float scale,
                 float* out);
}

// Memory of one call, not cleared; malloc gives the few kilobytes of a decoding step again and again.
typedef std::unique_ptr<float[]> Floats;
inline Floats floats(int64_t count) { return Floats(new float[count]); }

inline Floats normalized(const Norm& norm, int64_t N, int64_t width, const float* x) {
  Floats y = floats(N * width), inverse = floats(N);
  rms_norm_forward(N, width, norm.eps, x, norm.weight, y.get(), inverse.get());
  return y;
}

inline void multiply(const Matrix& m, int64_t N, const float* x, float* y) {
  packed_linear(m.bits, 1, N, m.depth, m.outputs, x, 0, m.depth, m.blocks, m.bias, y, 0, m.outputs);
}
inline Floats product_of(const Matrix& m, int64_t N, const float* x) {
  Floats y = floats(N * m.outputs);
  multiply(m, N, x, y.get());
  return y;
}

constexpr int64_t WORTH_THREADS = 1 << 15;  // values: with fewer, starting another thread takes longer than the work

// sum (count) = x + y; `sum` may be x or y
inline void add(int64_t count, const float* x, const float* y, float* sum) {
#pragma omp parallel for schedule(static) if (count > WORTH_THREADS)
  for (int64_t i = 0; i < count; i++) sum[i] = x[i] + y[i];
}
#endif
