// Linear layers without gradients on float32 or bfloat16 weights. Every output is one dot product whose additions always happen
// in the same order, so that a row's result does not depend on the rows that are computed beside it.
#include "dots.h"

#include <memory>

namespace {

template <int R, int C, class T>
inline void dots(int64_t depth, const float* x, int64_t x_row, const T* w, const float* bias, float* y, int64_t y_row) {
  Dots<R, C> tile;
  tile.add(depth, x, x_row, w, depth);
  for (int r = 0; r < R; r++) {
    float products[C];
    tile.values(r, products);
    for (int c = 0; c < C; c++) y[r * y_row + c] = products[c] + (bias ? bias[c] : 0.0f);
  }
}

template <int C, class T>
inline void rows(int64_t count, int64_t depth, const float* x, int64_t x_row, const T* w, const float* bias, float* y,
                 int64_t y_row) {
  int64_t i = 0;
  for (; i + 3 <= count; i += 3) dots<3, C>(depth, x + i * x_row, x_row, w, bias, y + i * y_row, y_row);
  if (count - i == 2) dots<2, C>(depth, x + i * x_row, x_row, w, bias, y + i * y_row, y_row);
  if (count - i == 1) dots<1, C>(depth, x + i * x_row, x_row, w, bias, y + i * y_row, y_row);
}

constexpr int64_t ROWS_AT_ONCE = 48, OUTPUTS_AT_ONCE = 16, WIDE = 4, WORTH_WIDENING = 8;

inline const float* widened(const float* w, int64_t, float*) { return w; }
inline const float* widened(const uint16_t* w, int64_t count, float* to) {  // once for many rows
  for (int64_t i = 0; i < count; i++) to[i] = one(w[i]);
  return to;
}

// A stack of matrices (F, D). Matrix b has the rows ends[b - 1] to ends[b] of x; without `ends` every matrix has N rows.
template <class T>
void linear(int64_t stack, const int64_t* ends, int64_t N, int64_t D, int64_t F, const float* x, int64_t x_batch, int64_t x_row,
            const T* w, const float* bias, float* y, int64_t y_batch, int64_t y_row) {
#pragma omp parallel
  {
    std::unique_ptr<float[]> wide(sizeof(T) == 2 ? new float[WIDE * D] : nullptr);
    for (int64_t b = 0; b < stack; b++) {
      const int64_t begin = ends && b ? ends[b - 1] : 0, end = ends ? ends[b] : N;
      for (int64_t first = begin; first < end; first += ROWS_AT_ONCE) {
        const int64_t count = std::min(ROWS_AT_ONCE, end - first);
        const float* from = x + b * x_batch + first * x_row;
        float* to = y + b * y_batch + first * y_row;
#pragma omp for schedule(static) nowait
        for (int64_t block = 0; block < F; block += OUTPUTS_AT_ONCE) {
          const T* matrix = w + b * F * D;
          const int64_t stop = std::min(F, block + OUTPUTS_AT_ONCE);
          int64_t o = block;
          for (; o + WIDE <= stop; o += WIDE) {
            const float* shift = bias ? bias + o : nullptr;
            if (count >= WORTH_WIDENING)
              rows<WIDE>(count, D, from, x_row, widened(matrix + o * D, WIDE * D, wide.get()), shift, to + o, y_row);
            else
              rows<WIDE>(count, D, from, x_row, matrix + o * D, shift, to + o, y_row);
          }
          for (; o < stop; o++) rows<1>(count, D, from, x_row, matrix + o * D, bias ? bias + o : nullptr, to + o, y_row);
        }
      }
    }
  }
}

}  // namespace

extern "C" void linear_rows(int64_t is_bf16, int64_t stack, const int64_t* ends, int64_t N, int64_t D, int64_t F,
                            const float* x, int64_t x_batch, int64_t x_row, const void* w, const float* bias, float* y,
                            int64_t y_batch, int64_t y_row) {
  if (is_bf16)
    linear(stack, ends, N, D, F, x, x_batch, x_row, static_cast<const uint16_t*>(w), bias, y, y_batch, y_row);
  else
    linear(stack, ends, N, D, F, x, x_batch, x_row, static_cast<const float*>(w), bias, y, y_batch, y_row);
}
