// Packing of weights (packed.h): the best scales, and the order of a panel.
#include "packed.h"

#ifdef PACKED_KERNELS
namespace {

constexpr int LARGEST_CODE = 0x3ff;  // of the 10 bits beside a zero

typedef float eight __attribute__((vector_size(32), aligned(4), may_alias));
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t eight_ints __attribute__((vector_size(32)));

inline eight all(float x) { return x - eight{}; }
#if defined(__AVX2__)
inline eight whole(eight x) { return (eight)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline eight between(eight x, eight least, eight most) {
  return (eight)_mm256_min_ps(_mm256_max_ps((__m256)x, (__m256)least), (__m256)most);
}
#else
inline eight whole(eight x) {  // the nearest, even ones if two are
  for (int i = 0; i < 8; i++) x[i] = std::nearbyint(x[i]);
  return x;
}
inline eight between(eight x, eight least, eight most) {
  x = x > least ? x : least;
  return x < most ? x : most;
}
#endif
inline float sum_of(eight x) {
  const four *half = reinterpret_cast<const four*>(&x), sums = half[0] + half[1];
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
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
  const eight inverse = all(1 / scale), s = all(scale), z = all(zero), least = {}, most = all(15);
  eight error = {};
  for (int i = 0; i < 4; i++) {
    const eight v = *reinterpret_cast<const eight*>(x + 8 * i);
    const eight n = between(whole(v * inverse + z), least, most);
    const eight miss = (n - z) * s - v;
    error = miss * miss + error;
    if (!q) continue;
    const eight_ints integers = __builtin_convertvector(n, eight_ints);
    for (int j = 0; j < 8; j++) q[8 * i + j] = static_cast<int8_t>(integers[j]);
  }
  return sum_of(error);
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
  const uint16_t word = half_word(largest / 127);
  const float scale = half_value(word);
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
#endif
