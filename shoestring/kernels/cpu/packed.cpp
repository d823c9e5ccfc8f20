// Linear layers and routed experts on packed weights (packed.h).
#include "packed.h"

#include <omp.h>

#include <memory>
#include <vector>

#ifdef PACKED_KERNELS
#ifdef PACKED_AMX
UnpackedGroup* amx_scratch(int64_t groups) {
  thread_local std::vector<UnpackedGroup> scratch;
  if (static_cast<int64_t>(scratch.size()) < groups) scratch.resize(groups);
  return scratch.data();
}
#endif

namespace {

constexpr int64_t ROWS_AT_ONCE = 96;  // rows of activations that fit the second-level cache; whole blocks of any height

template <class Format>
struct Scratch {
  static constexpr int64_t SLACK = 1024;  // a tile of fewer than 16 rows reads on
  std::unique_ptr<typename Format::Act[]> values;
  std::unique_ptr<float[]> scales, quarters;
  Rows<Format> rows;
  Scratch(int64_t count, int64_t depth)
      : values(new typename Format::Act[count * depth + SLACK]),
        scales(new float[count * depth / GROUP + SLACK]),
        quarters(new float[count * depth / GROUP + SLACK]),
        rows{values.get(), scales.get(), quarters.get(), depth / GROUP} {}
};

// The part of `count` panels that this thread multiplies.
struct Share {
  int64_t begin, end;
  explicit Share(int64_t count)
      : begin(count * omp_get_thread_num() / omp_get_num_threads()),
        end(count * (omp_get_thread_num() + 1) / omp_get_num_threads()) {}
};

struct Layout {  // of a stack of products side by side: the distances between matrices and between rows, in floats
  const float* x;
  float* y;
  int64_t x_batch, x_row, y_batch, y_row;
};

// y[b, n] = W[b] x[b, n] (+ bias) for a stack of packed matrices (F, D).
template <class Format>
void linear(int64_t stack, int64_t N, int64_t D, int64_t F, const Layout& at, const uint8_t* weights, const float* bias) {
  const int64_t panels = (F + OUTS - 1) / OUTS, panel_bytes = D / GROUP * Format::BLOCK;
  const Scratch<Format> scratch(stack * N, D);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < stack * N; i++) {
      const Place place = Rows<Format>::place(i / N * N, N, i % N);
      quantize_row(at.x + i / N * at.x_batch + i % N * at.x_row, scratch.rows, &place, 1);
    }
    float out[PANELS * ROWS_AT_ONCE * OUTS];
    for (int64_t first = 0; first < N; first += ROWS_AT_ONCE) {
      const int64_t count = std::min(ROWS_AT_ONCE, N - first);
      const Share share(stack * panels);
      for (int64_t i = share.begin, number; i < share.end; i += number) {
        const int64_t b = i / panels, panel = i % panels;
        number = std::min(std::min(PANELS, panels - panel), share.end - i);
        const uint8_t* places[PANELS];
        for (int64_t p = 0; p < number; p++) places[p] = weights + (i + p) * panel_bytes;
        panels_rows(places, number, scratch.rows, b * N + first, count, out);
        for (int64_t p = 0; p < number; p++) {
          const int64_t column = (panel + p) * OUTS, width = std::min<int64_t>(OUTS, F - column);
          for (int64_t n = 0; n < count; n++) {
            float* to = at.y + b * at.y_batch + (first + n) * at.y_row + column;
            for (int64_t o = 0; o < width; o++)
              to[o] = out[(p * count + n) * OUTS + o] + (bias ? bias[column + o] : 0.0f);
          }
        }
      }
    }
  }
}

// silu(gate) * up for 32 columns, two panels of each
inline void swiglu_group(const float* const gate[2], const float* const up[2], int64_t row, float* to) {
  for (int i = 0; i < GROUP; i += W) {
    const vec g = load(gate[i / OUTS] + row * OUTS + i % OUTS), u = load(up[i / OUTS] + row * OUTS + i % OUTS);
    store(to + i, g / (1.0f + vexp(-g)) * u);
  }
}

// Rows sorted by expert: pair p of token tokens[p] has gate gates[p]; expert e has pairs starts[e] to starts[e + 1]. The K
// pairs of a token are of[token * K] and so on.
struct Pairs {
  std::vector<int32_t> tokens, of, experts;
  std::vector<float> gates;
  std::vector<int64_t> starts;
  Pairs(int64_t N, int64_t K, int64_t E, const int64_t* chosen, const float* weights)
      : tokens(N * K), of(N * K), experts(N * K), gates(N * K), starts(E + 2) {
    for (int64_t i = 0; i < N * K; i++) starts[chosen[i] + 2]++;
    for (int64_t e = 0; e < E; e++) starts[e + 2] += starts[e + 1];
    for (int64_t i = 0; i < N * K; i++) {
      const int64_t p = starts[chosen[i] + 1]++;
      tokens[p] = static_cast<int32_t>(i / K), gates[p] = weights[i], of[i] = static_cast<int32_t>(p);
      experts[p] = static_cast<int32_t>(chosen[i]);
    }
  }
  template <class Format>
  Place place(int64_t pair) const {
    const int64_t first = starts[experts[pair]], count = starts[experts[pair] + 1] - first;
    return Rows<Format>::place(first, count, pair - first);
  }
};

// y (N, D) = sum over a token's experts of gate * down(silu(gate_up) ...). In the second half each thread has its own columns
// of y, and every token adds its experts in their order, whatever else is in the batch.
template <class Format>
void experts_of(int64_t N, int64_t K, int64_t D, int64_t F, int64_t E, const Pairs& pairs, const float* x,
                const uint8_t* gate_up, const uint8_t* down, float* y) {
  const int64_t in_panel = D / GROUP * Format::BLOCK, out_panel = F / GROUP * Format::BLOCK, groups = F / GROUP;
  const int64_t out_panels = (D + OUTS - 1) / OUTS, in_panels = 2 * F / OUTS, total = pairs.starts[E];
  const Scratch<Format> in(total, D), hidden(total, F);
#pragma omp parallel
  {
    std::vector<Place> copies(K);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < N; n++) {
      for (int64_t k = 0; k < K; k++) copies[k] = pairs.place<Format>(pairs.of[n * K + k]);
      quantize_row(x + n * D, in.rows, copies.data(), K);
      std::fill(y + n * D, y + n * D + D, 0.0f);
    }
    float part[PANELS * ROWS_AT_ONCE * OUTS], row[GROUP];
    for (int64_t e = 0; e < E; e++)
      for (int64_t first = pairs.starts[e]; first < pairs.starts[e + 1]; first += ROWS_AT_ONCE) {
        const int64_t count = std::min(ROWS_AT_ONCE, pairs.starts[e + 1] - first);
#pragma omp for schedule(static) nowait
        for (int64_t g = 0; g < groups; g++) {
          const uint8_t *places[4], *matrix = gate_up + e * in_panels * in_panel;
          for (int i = 0; i < 4; i++) places[i] = matrix + ((i / 2) * (F / OUTS) + 2 * g + i % 2) * in_panel;
          panels_rows(places, 4, in.rows, first, count, part);
          const int64_t size = count * OUTS;
          const float *const gate[2] = {part, part + size}, *const up[2] = {part + 2 * size, part + 3 * size};
          for (int64_t n = 0; n < count; n++) {
            const Place place = pairs.place<Format>(first + n);
            swiglu_group(gate, up, n, row);
            quantize_group(row, hidden.rows, &place, 1, g);
          }
        }
      }
#pragma omp barrier
    for (int64_t e = 0; e < E; e++)
      for (int64_t first = pairs.starts[e]; first < pairs.starts[e + 1]; first += ROWS_AT_ONCE) {
        const int64_t count = std::min(ROWS_AT_ONCE, pairs.starts[e + 1] - first);
        const Share share(out_panels);
        for (int64_t panel = share.begin, number; panel < share.end; panel += number) {
          number = std::min(PANELS, share.end - panel);
          const uint8_t* places[PANELS];
          for (int64_t p = 0; p < number; p++) places[p] = down + (e * out_panels + panel + p) * out_panel;
          panels_rows(places, number, hidden.rows, first, count, part);
          for (int64_t p = 0; p < number; p++) {
            const int64_t column = (panel + p) * OUTS, width = std::min<int64_t>(OUTS, D - column);
            for (int64_t n = 0; n < count; n++) {
              float* to = y + pairs.tokens[first + n] * D + column;
              for (int64_t o = 0; o < width; o++) to[o] += pairs.gates[first + n] * part[(p * count + n) * OUTS + o];
            }
          }
        }
      }
  }
}

}  // namespace

extern "C" void packed_linear(int64_t bits, int64_t stack, int64_t N, int64_t D, int64_t F, const float* x, int64_t x_batch,
                              int64_t x_row, const uint8_t* weights, const float* bias, float* y, int64_t y_batch,
                              int64_t y_row) {
  const Layout at{x, y, x_batch, x_row, y_batch, y_row};
  if (bits == 4) linear<Packed4>(stack, N, D, F, at, weights, bias);
  if (bits == 8) linear<Packed8>(stack, N, D, F, at, weights, bias);
  if (bits == 32) linear<Packed32>(stack, N, D, F, at, weights, bias);
}

extern "C" void packed_experts(int64_t bits, int64_t N, int64_t K, int64_t D, int64_t F, int64_t E, const float* x,
                               const int64_t* experts, const float* weights, const uint8_t* gate_up, const uint8_t* down,
                               float* y) {
  const Pairs pairs(N, K, E, experts, weights);
  if (bits == 4) experts_of<Packed4>(N, K, D, F, E, pairs, x, gate_up, down, y);
  if (bits == 8) experts_of<Packed8>(N, K, D, F, E, pairs, x, gate_up, down, y);
  if (bits == 32) experts_of<Packed32>(N, K, D, F, E, pairs, x, gate_up, down, y);
}
#endif
