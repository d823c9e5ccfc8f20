// Linear layers and routed experts on packed weights (packed.h).
#include "packed.h"

#include <omp.h>

#include <memory>

#ifdef PACKED_KERNELS
namespace {

constexpr int LARGEST_CODE = 0x3ff;  // of the 10 bits beside a zero
constexpr int64_t ROWS_AT_ONCE = 96;  // rows of activations that fit the second-level cache

template <class Format>
struct Scratch {
  std::unique_ptr<typename Format::Act[]> values;
  std::unique_ptr<float[]> scales, quarters;
  Acts<Format> acts;
  Scratch(int64_t rows, int64_t depth)
      : values(new typename Format::Act[rows * depth]),
        scales(new float[rows * depth / GROUP]),
        quarters(new float[rows * depth / GROUP]),
        acts{values.get(), scales.get(), quarters.get(), depth} {}
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
  Scratch<Format> scratch(stack * N, D);
  std::unique_ptr<int32_t[]> order(new int32_t[stack * N]);
  for (int64_t i = 0; i < stack * N; i++) order[i] = static_cast<int32_t>(i);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t i = 0; i < stack * N; i++)
      quantize_row(at.x + i / N * at.x_batch + i % N * at.x_row, scratch.acts, i);
    float out[PANELS * ROWS_AT_ONCE * OUTS];
    for (int64_t first = 0; first < N; first += ROWS_AT_ONCE) {
      const int64_t count = std::min(ROWS_AT_ONCE, N - first);
      const Share share(stack * panels);
      for (int64_t i = share.begin, number; i < share.end; i += number) {
        const int64_t b = i / panels, panel = i % panels;
        number = std::min(std::min(PANELS, panels - panel), share.end - i);
        const uint8_t* places[PANELS];
        for (int64_t p = 0; p < number; p++) places[p] = weights + (i + p) * panel_bytes;
        panels_rows(places, number, scratch.acts, order.get() + b * N + first, count, out);
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

// Rows sorted by expert: pair p of token tokens[p] has gate gates[p]; expert e has pairs starts[e] to starts[e + 1].
struct Pairs {
  std::unique_ptr<int32_t[]> tokens, places;
  std::unique_ptr<float[]> gates;
  std::unique_ptr<int64_t[]> starts;
  Pairs(int64_t N, int64_t K, int64_t E, const int64_t* experts, const float* weights)
      : tokens(new int32_t[N * K]), places(new int32_t[N * K]), gates(new float[N * K]), starts(new int64_t[E + 2]()) {
    for (int64_t i = 0; i < N * K; i++) starts[experts[i] + 2]++;
    for (int64_t e = 0; e < E; e++) starts[e + 2] += starts[e + 1];
    for (int64_t i = 0; i < N * K; i++) {
      const int64_t p = starts[experts[i] + 1]++;
      tokens[p] = static_cast<int32_t>(i / K), gates[p] = weights[i], places[p] = static_cast<int32_t>(p);
    }
  }
};

// y (N, D) = sum over a token's experts of gate * down(silu(gate_up) ...). In the second half each thread has its own columns
// of y, and every token adds its experts in their order, whatever else is in the batch.
template <class Format>
void experts_of(int64_t N, int64_t D, int64_t F, int64_t E, const Pairs& pairs, const float* x, const uint8_t* gate_up,
                const uint8_t* down, float* y) {
  const int64_t in_panel = D / GROUP * Format::BLOCK, out_panel = F / GROUP * Format::BLOCK, groups = F / GROUP;
  const int64_t out_panels = (D + OUTS - 1) / OUTS, in_panels = 2 * F / OUTS, total = pairs.starts[E];
  Scratch<Format> in(N, D), hidden(total, F);
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t n = 0; n < N; n++) {
      quantize_row(x + n * D, in.acts, n);
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
          panels_rows(places, 4, in.acts, pairs.tokens.get() + first, count, part);
          const int64_t size = count * OUTS;
          const float *const gate[2] = {part, part + size}, *const up[2] = {part + 2 * size, part + 3 * size};
          for (int64_t n = 0; n < count; n++) {
            swiglu_group(gate, up, n, row);
            quantize_group(row, hidden.acts, first + n, g);
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
          panels_rows(places, number, hidden.acts, pairs.places.get() + first, count, part);
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

inline float lanes_sum(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

inline float scale4(int word) {
  const int bits = (word << 12) + Packed4::LEAST_SCALE;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return scale;
}
inline int code4(float scale) {  // the high 10 bits of the largest word whose scale is not larger
  int bits;
  std::memcpy(&bits, &scale, 4);
  return std::max(bits - Packed4::LEAST_SCALE, 0) >> 18;
}

// Integers 0 to 15 nearest to x / scale + zero, and the squared error of the weights that they stand for.
inline float round4(const float* x, float scale, float zero, int8_t* q) {
  const __m256 inverse = _mm256_set1_ps(1 / scale), z = _mm256_set1_ps(zero), most = _mm256_set1_ps(15);
  __m256 error = _mm256_setzero_ps();
  for (int i = 0; i < 4; i++) {
    const __m256 v = _mm256_loadu_ps(x + 8 * i);
    __m256 n = _mm256_add_ps(_mm256_mul_ps(v, inverse), z);
    n = _mm256_round_ps(n, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    n = _mm256_min_ps(_mm256_max_ps(n, _mm256_setzero_ps()), most);
    const __m256 miss = _mm256_sub_ps(_mm256_mul_ps(_mm256_sub_ps(n, z), _mm256_set1_ps(scale)), v);
    error = _mm256_fmadd_ps(miss, miss, error);
    if (q) {
      alignas(32) int32_t whole[8];
      _mm256_store_si256((__m256i*)whole, _mm256_cvtps_epi32(n));
      for (int j = 0; j < 8; j++) q[8 * i + j] = static_cast<int8_t>(whole[j]);
    }
  }
  return lanes_sum(error);
}

// The word of a group's scale and zero with the least squared error, and its integers. Tried are the scale that reaches from
// the smallest to the largest value, 5 smaller and 1 larger ones, each with 5 zeros about the one that cuts off both ends alike.
inline uint16_t best4(const float* x, int8_t* q) {
  float low = 0, high = 0, best = INFINITY;
  for (int i = 0; i < GROUP; i++) low = std::min(low, x[i]), high = std::max(high, x[i]);
  const int reach = code4((high - low) / 15);
  int best_code = 0, best_zero = 0;
  for (int code = std::max(reach - 5, 0); code <= std::min(reach + 1, LARGEST_CODE); code++) {
    const float inverse = 1 / scale4(code << 6 | 32);
    const float center = std::nearbyint(2 * (15 - (high + low) * inverse));
    const int middle = static_cast<int>(std::max(0.0f, std::min(60.0f, center)));
    for (int zero = std::max(middle - 2, 0); zero <= middle + 2; zero++) {
      const float error = round4(x, scale4(code << 6 | zero), 0.25f * zero, nullptr);
      if (error < best) best = error, best_code = code, best_zero = zero;
    }
  }
  round4(x, scale4(best_code << 6 | best_zero), 0.25f * best_zero, q);
  return static_cast<uint16_t>(best_code << 6 | best_zero);
}

inline uint16_t best8(const float* x, float largest, int8_t* q) {
  const uint16_t word = _cvtss_sh(largest / 127, 0);
  const float scale = _cvtsh_ss(word);
  for (int i = 0; i < GROUP; i++)
    q[i] = static_cast<int8_t>(scale > 0 ? std::max(-127.0f, std::min(127.0f, std::nearbyint(x[i] / scale))) : 0);
  return word;
}

inline void place4(uint8_t* block, int output, const int8_t* q) {
  uint8_t* to = block + output / 8 * 128 + output % 8 * 4;
  for (int c = 0; c < 4; c++)
    for (int j = 0; j < 4; j++) to[32 * c + j] = static_cast<uint8_t>(q[8 * c + j] | q[8 * c + 4 + j] << 4);
}

inline void place8(uint8_t* block, int output, const int8_t* q) {
  for (int c = 0; c < 16; c++) std::memcpy(block + 32 * c + 2 * output, q + 2 * c, 2);
}

// Packs w (F, D) into panels, the last one filled up with zeros. Returns whether all values were finite.
template <class Format>
bool pack(int64_t F, int64_t D, const float* w, uint8_t* packed) {
  const int64_t panels = (F + OUTS - 1) / OUTS, groups = D / GROUP;
  bool finite = true;
#pragma omp parallel for schedule(static) reduction(&& : finite)
  for (int64_t i = 0; i < panels * OUTS; i++)
    for (int64_t g = 0; g < groups; g++) {
      uint8_t* block = packed + (i / OUTS * groups + g) * Format::BLOCK;
      const float* x = w + i * D + g * GROUP;
      int8_t q[GROUP] = {};
      float largest = 0, poison = 0;
      uint16_t word = 0;
      if (i < F)
        for (int j = 0; j < GROUP; j++) poison += x[j] * 0, largest = std::max(largest, std::abs(x[j]));
      const bool usable = poison == 0 && largest < Format::LARGEST;
      finite = finite && usable;
      if (largest != 0 && usable) word = Format::BLOCK < 512 ? best4(x, q) : best8(x, largest, q);
      Format::BLOCK < 512 ? place4(block, i % OUTS, q) : place8(block, i % OUTS, q);
      std::memcpy(block + Format::BLOCK - 32 + i % OUTS * 2, &word, 2);
    }
  return finite;
}

void pack_floats(int64_t F, int64_t D, const float* w, uint8_t* packed) {
  float* to = reinterpret_cast<float*>(packed);
  for (int64_t first = 0; first < F; first += OUTS)
    for (int64_t k = 0; k < D; k++)
      for (int64_t o = 0; o < OUTS; o++) *to++ = first + o < F ? w[(first + o) * D + k] : 0;
}

}  // namespace

// Returns 1, or 0 if a value is infinite, NaN or too large for a half-precision scale; float32 has no scale, so returns 1.
extern "C" int64_t pack_weights(int64_t bits, int64_t F, int64_t D, const float* w, uint8_t* packed) {
  if (bits == 32) return pack_floats(F, D, w, packed), 1;
  return bits == 4 ? pack<Packed4>(F, D, w, packed) : pack<Packed8>(F, D, w, packed);
}

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
  if (bits == 4) experts_of<Packed4>(N, D, F, E, pairs, x, gate_up, down, y);
  if (bits == 8) experts_of<Packed8>(N, D, F, E, pairs, x, gate_up, down, y);
  if (bits == 32) experts_of<Packed32>(N, D, F, E, pairs, x, gate_up, down, y);
}
#endif
