// Row-wise operations of the model: RMSNorm, SwiGLU, rotary embedding, each read and written once.
#include <algorithm>
#include <vector>

#include "vec.h"

constexpr int64_t WORTH_THREADS = 1 << 15;  // values: with fewer, waking another thread takes longer than the work
constexpr int64_t BLOCK_ROWS = 16, MOST_BLOCKS = 64;  // of the sums over rows

// y = x * rsqrt(mean(x^2) + eps) * weight for D floats; `inverse` becomes the rsqrt, for the backward pass.
extern "C" void rms_norm_row(int64_t D, float eps, const float* x, const float* weight, float* y, float* inverse) {
  vec squares = {};
  int i = 0;
  for (; i + W <= D; i += W) squares += load(x + i) * load(x + i);
  float total = sum(squares);
  for (; i < D; i++) total += x[i] * x[i];
  const float r = 1.0f / std::sqrt(total / D + eps);
  *inverse = r;
  for (i = 0; i < D; i++) y[i] = x[i] * r * weight[i];
}

// The same for N rows; inverse (N).
extern "C" void rms_norm_forward(int64_t N, int64_t D, float eps, const float* x, const float* weight, float* y,
                                 float* inverse) {
#pragma omp parallel for schedule(static) if (N * D > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++) rms_norm_row(D, eps, x + n * D, weight, y + n * D, inverse + n);
}

// dx and dweight of the above. A block of rows sums its part of dweight, and the parts are added in order: the blocks depend on N
// alone, so the bits are the same with any number of threads.
extern "C" void rms_norm_backward(int64_t N, int64_t D, const float* x, const float* weight, const float* inverse,
                                  const float* dy, float* dx, float* dweight) {
  const int64_t blocks = std::min<int64_t>(MOST_BLOCKS, (N + BLOCK_ROWS - 1) / BLOCK_ROWS);
  std::vector<float> parts(static_cast<size_t>(blocks) * D, 0.0f);
#pragma omp parallel for schedule(static) if (N * D > WORTH_THREADS)
  for (int64_t b = 0; b < blocks; b++) {
    float* part = &parts[static_cast<size_t>(b) * D];
    for (int64_t n = N * b / blocks; n < N * (b + 1) / blocks; n++) {
      const float* row = x + n * D;
      const float* up = dy + n * D;
      const float r = inverse[n];
      vec dots = {};
      int i = 0;
      for (; i + W <= D; i += W) {
        const vec g = load(up + i) * load(row + i) * r;
        store(part + i, load(part + i) + g);
        dots += g * load(weight + i);
      }
      float dot = sum(dots);
      for (; i < D; i++) {
        const float g = up[i] * row[i] * r;
        part[i] += g;
        dot += g * weight[i];
      }
      const float mean = dot / D;
      for (i = 0; i < D; i++) dx[n * D + i] = r * (up[i] * weight[i] - row[i] * r * mean);
    }
  }
  std::fill(dweight, dweight + D, 0.0f);
  for (int64_t b = 0; b < blocks; b++)
    for (int i = 0; i < D; i++) dweight[i] += parts[static_cast<size_t>(b) * D + i];
}

// y (N, F) = silu(gate) * up; rows of gate and up are `stride` floats apart, so they may be halves of one matrix.
extern "C" void swiglu_forward(int64_t N, int64_t F, int64_t stride, const float* gate, const float* up, float* y) {
#pragma omp parallel for schedule(static) if (N * F > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++) {
    const float *g = gate + n * stride, *u = up + n * stride;
    int i = 0;
    for (; i + W <= F; i += W) {
      const vec x = load(g + i);
      store(y + n * F + i, x / (1.0f + vexp(-x)) * load(u + i));
    }
    for (; i < F; i++) y[n * F + i] = g[i] / (1.0f + std::exp(-g[i])) * u[i];
  }
}

extern "C" void swiglu_backward(int64_t N, int64_t F, int64_t stride, const float* gate, const float* up, const float* dy,
                                float* dgate, float* dup) {
#pragma omp parallel for schedule(static) if (N * F > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++) {
    const float *g = gate + n * stride, *u = up + n * stride, *d = dy + n * F;
    float *dg = dgate + n * stride, *du = dup + n * stride;
    int i = 0;
    for (; i + W <= F; i += W) {
      const vec x = load(g + i), s = 1.0f / (1.0f + vexp(-x)), up_grad = load(d + i);
      store(du + i, up_grad * x * s);
      store(dg + i, up_grad * load(u + i) * s * (1.0f + x * (1.0f - s)));
    }
    for (; i < F; i++) {
      const float s = 1.0f / (1.0f + std::exp(-g[i]));
      du[i] = d[i] * g[i] * s;
      dg[i] = d[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
    }
  }
}

// y = x (D) with its last R values rotated by angles (cos, sin: A = R / 2). Pairs are neighbors (interleave) or half a width
// apart. `direction` -1 rotates back: the gradient of the rotation.
extern "C" void rotate_head(int64_t D, int64_t R, int64_t interleave, float direction, const float* x, const float* cos,
                            const float* sin, float* y) {
  const int half = R / 2;
  std::memcpy(y, x, (D - R) * sizeof(float));
  x += D - R, y += D - R;
  for (int i = 0; i < half; i++) {
    const int a = interleave ? 2 * i : i, b = interleave ? 2 * i + 1 : i + half;
    const float c = cos[i], s = direction * sin[i], u = x[a], v = x[b];
    y[a] = u * c - v * s;
    y[b] = v * c + u * s;
  }
}

// The same for H heads of N rows: x and y (N, H, D), cos and sin (N, A).
extern "C" void rotate(int64_t N, int64_t H, int64_t D, int64_t R, int64_t interleave, float direction, const float* x,
                       const float* cos, const float* sin, float* y) {
#pragma omp parallel for schedule(static) if (N * H * D > WORTH_THREADS)
  for (int64_t i = 0; i < N * H; i++)
    rotate_head(D, R, interleave, direction, x + i * D, cos + i / H * (R / 2), sin + i / H * (R / 2), y + i * D);
}
