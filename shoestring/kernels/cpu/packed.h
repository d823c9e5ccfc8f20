// Products with packed weights: float32, int8 or 4-bit, groups of 32 inputs, panels of 16 outputs.
//
// A panel holds 16 outputs for all groups, one block after another: the integers of 16 outputs x 32 inputs, then a word of 16
// bits for each output. 4-bit: for each half panel of 8 outputs, 4 chunks of 32 bytes; chunk c holds inputs 8c to 8c+7; byte
// o * 4 + j has input 8c + j of output o in its low half and 8c + 4 + j in its high half. A weight is scale * (integer - zero):
// the low 6 bits of a word are 4 * zero, and the whole word, 12 bits higher, plus LEAST_SCALE are the bits of the float scale.
// Int8: 16 chunks; chunk c holds inputs 2c and 2c + 1 of all outputs; byte o * 2 + j has input 2c + j. A word is a
// half-precision scale.
//
// The sum over a group is an exact integer, and groups are added in order, so that a row's result does not depend on the rows
// that are computed beside it: batches, chunks and speculation change no bit.
#pragma once
#include "vec.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define PACKED_KERNELS  // other CPUs use PyTorch

constexpr int GROUP = 32, OUTS = 16;

struct Packed4 {
  typedef int8_t Act;  // activations: 8 bits, |a| <= 127, so that 16 products with 0..15 fit 16 bits
  static constexpr float LARGEST = 15000;  // weight
  static constexpr float LIMIT = 127;
  static constexpr int LEAST_SCALE = 106 << 23;  // 2^-21
  static constexpr int BLOCK = OUTS * GROUP / 2 + OUTS * 2;
};
struct Packed8 {
  typedef int16_t Act;  // activations: 15 bits; a group's sum stays below 2^27
  static constexpr float LARGEST = 4e5f;  // weight: beyond it a scale may be infinite
  static constexpr float LIMIT = 32767;
  static constexpr int BLOCK = OUTS * GROUP + OUTS * 2;
};
struct Packed32 {
  typedef float Act;
  static constexpr int BLOCK = OUTS * GROUP * 4;
};

// Rows of activations as integers: values (N, D), and for each group (N, D / 32) a scale and -1/4 of the sum.
// For float32 weights the values stay floats.
template <class Format>
struct Acts {
  typename Format::Act* values;
  float *scales, *quarters;
  int64_t depth;
  int64_t groups() const { return depth / GROUP; }
};

template <class Format>
inline void quantize_group(const float* x, const Acts<Format>& to, int64_t row, int64_t group) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 v[4], top = _mm256_setzero_ps(), poison = top;  // NaN if a value is not finite, so that the result shows it
  for (int i = 0; i < 4; i++) {
    v[i] = _mm256_loadu_ps(x + 8 * i);
    top = _mm256_max_ps(top, _mm256_andnot_ps(sign, v[i]));
    poison = _mm256_fmadd_ps(v[i], _mm256_setzero_ps(), poison);
  }
  float most = 0, lanes[8];
  _mm256_storeu_ps(lanes, top);
  for (float lane : lanes) most = std::max(most, lane);
  _mm256_storeu_ps(lanes, poison);
  for (float lane : lanes) most += lane;
  const float inverse = most > 0 ? Format::LIMIT / most : 0;
  int32_t sum = 0;
  typename Format::Act* out = to.values + row * to.depth + group * GROUP;
  for (int i = 0; i < 4; i++) {
    alignas(32) int32_t q[8];
    _mm256_store_si256((__m256i*)q, _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse))));
    for (int j = 0; j < 8; j++) sum += q[j], out[8 * i + j] = static_cast<typename Format::Act>(q[j]);
  }
  to.scales[row * to.groups() + group] = most / Format::LIMIT;
  to.quarters[row * to.groups() + group] = -0.25f * static_cast<float>(sum);
}

inline void quantize_group(const float* x, const Acts<Packed32>& to, int64_t row, int64_t group) {
  std::memcpy(to.values + row * to.depth + group * GROUP, x, GROUP * sizeof(float));
}

template <class Format>
inline void quantize_row(const float* x, const Acts<Format>& to, int64_t row) {
  for (int64_t g = 0; g < to.groups(); g++) quantize_group(x + g * GROUP, to, row, g);
}

constexpr int AHEAD = 2048;  // bytes: reads of a single panel are as fast as memory only if they start early enough

inline void fetch_ahead(const uint8_t* p, int bytes) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch(p + AHEAD + i, _MM_HINT_T0);
}

// Keeps a running sum in its register: else the compiler collects the products first, and spills them all.
inline void hold(__m256i& x) { asm("" : "+x"(x)); }

// dot4: sum += u * x in fours, with `u` in 0..15. whole4: the sum as 32-bit integers. Without VNNI instructions the sums are 16
// bits wide, enough for a group: 16 * 2 * 15 * 127 / 2 < 2^15.
inline __m256i dot4(__m256i sum, __m256i u, __m256i x) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpbusd_epi32(sum, u, x);
#elif defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sum, u, x);
#else
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(u, x));
#endif
}
inline __m256i whole4(__m256i sum) {
#if (defined(__AVX512VNNI__) && defined(__AVX512VL__)) || defined(__AVXVNNI__)
  return sum;
#else
  return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
#endif
}
inline __m256i dot8(__m256i sum, __m256i w, __m256i x) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpwssd_epi32(sum, w, x);
#elif defined(__AVXVNNI__)
  return _mm256_dpwssd_avx_epi32(sum, w, x);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(w, x));
#endif
}

inline __m256i broadcast_bytes(const void* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm256_set1_epi32(four);
}
template <int N>
inline void clear(__m256 (*x)[2]) {
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) x[i][0] = x[i][1] = _mm256_setzero_ps();
}
template <int N>
inline void store_all(const __m256 (*x)[2], float* out) {
#pragma GCC unroll 16
  for (int i = 0; i < N; i++) _mm256_storeu_ps(out + i * OUTS, x[i][0]), _mm256_storeu_ps(out + i * OUTS + 8, x[i][1]);
}
inline __m256 halves(const uint8_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }

// out (P, R, 16): R rows times P panels. rows: indices of the activations. first: the panels are not in the cache yet.
template <int R, int P>
inline void panel_product(const uint8_t* const* panels, const Acts<Packed4>& acts, const int32_t* rows, bool first, float* out) {
  const __m256i low = _mm256_set1_epi8(15);
  const int64_t groups = acts.groups();
  const int8_t* a[R];
  for (int r = 0; r < R; r++) a[r] = acts.values + rows[r] * acts.depth;
  __m256 total[P][R][2];
  clear<P * R>(total[0]);
  for (int64_t g = 0; g < groups; g++)
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
      const uint8_t* block = panels[p] + g * Packed4::BLOCK;
      if (P == 1 && first) fetch_ahead(block, Packed4::BLOCK);
      __m256i sum[R][2];
      for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
      for (int c = 0; c < 4; c++) {
        const __m256i w0 = _mm256_loadu_si256((const __m256i*)(block + 32 * c));
        const __m256i w1 = _mm256_loadu_si256((const __m256i*)(block + 128 + 32 * c));
#pragma GCC unroll 2
        for (int high = 0; high < 2; high++) {
          const __m256i u0 = _mm256_and_si256(high ? _mm256_srli_epi16(w0, 4) : w0, low);
          const __m256i u1 = _mm256_and_si256(high ? _mm256_srli_epi16(w1, 4) : w1, low);
#pragma GCC unroll 8
          for (int r = 0; r < R; r++) {
            const __m256i x = broadcast_bytes(a[r] + g * GROUP + 8 * c + 4 * high);
            sum[r][0] = dot4(sum[r][0], u0, x);
            sum[r][1] = dot4(sum[r][1], u1, x);
            hold(sum[r][0]), hold(sum[r][1]);
          }
        }
      }
      __m256 s[2], zero[2];  // zeros in quarters
      for (int h = 0; h < 2; h++) {
        const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(block + 256 + 16 * h)));
        const __m256i least = _mm256_set1_epi32(Packed4::LEAST_SCALE);
        s[h] = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(words, 12), least));
        zero[h] = _mm256_cvtepi32_ps(_mm256_and_si256(words, _mm256_set1_epi32(63)));
      }
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const __m256 scale = _mm256_set1_ps(acts.scales[rows[r] * groups + g]);
        const __m256 quarter = _mm256_set1_ps(acts.quarters[rows[r] * groups + g]);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
          const __m256 d = _mm256_fmadd_ps(zero[h], quarter, _mm256_cvtepi32_ps(whole4(sum[r][h])));  // exact
          total[p][r][h] = _mm256_fmadd_ps(d, _mm256_mul_ps(s[h], scale), total[p][r][h]);
        }
      }
    }
  store_all<P * R>(total[0], out);
}

template <int R, int P>
inline void panel_product(const uint8_t* const* panels, const Acts<Packed8>& acts, const int32_t* rows, bool first, float* out) {
  const int64_t groups = acts.groups();
  const int16_t* a[R];
  for (int r = 0; r < R; r++) a[r] = acts.values + rows[r] * acts.depth;
  __m256 total[P][R][2];
  clear<P * R>(total[0]);
  for (int64_t g = 0; g < groups; g++)
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
      const uint8_t* block = panels[p] + g * Packed8::BLOCK;
      if (P == 1 && first) fetch_ahead(block, Packed8::BLOCK);
      __m256i sum[R][2];
      for (int r = 0; r < R; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
#pragma GCC unroll 16
      for (int c = 0; c < 16; c++) {
        const __m128i* from = (const __m128i*)(block + 32 * c);
        const __m256i w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(from)), w1 = _mm256_cvtepi8_epi16(_mm_loadu_si128(from + 1));
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
          const __m256i x = broadcast_bytes(a[r] + g * GROUP + 2 * c);
          sum[r][0] = dot8(sum[r][0], w0, x);
          sum[r][1] = dot8(sum[r][1], w1, x);
          hold(sum[r][0]), hold(sum[r][1]);
        }
      }
      const __m256 s0 = halves(block + OUTS * GROUP), s1 = halves(block + OUTS * GROUP + 16);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const __m256 scale = _mm256_set1_ps(acts.scales[rows[r] * groups + g]);
        total[p][r][0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][0]), _mm256_mul_ps(s0, scale), total[p][r][0]);
        total[p][r][1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum[r][1]), _mm256_mul_ps(s1, scale), total[p][r][1]);
      }
    }
  store_all<P * R>(total[0], out);
}

template <int R, int P>
inline void panel_product(const uint8_t* const* panels, const Acts<Packed32>& acts, const int32_t* rows, bool first, float* out) {
  const int64_t depth = acts.depth;
  const float* a[R];
  const float* w[P];
  __m256 total[P][R][2];
  clear<P * R>(total[0]);
  for (int r = 0; r < R; r++) a[r] = acts.values + rows[r] * depth;
  for (int p = 0; p < P; p++) w[p] = reinterpret_cast<const float*>(panels[p]);
  for (int64_t k = 0; k < depth; k++)
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
      const float* block = w[p] + k * OUTS;
      if (P == 1 && first) fetch_ahead((const uint8_t*)block, OUTS * 4);
      const __m256 w0 = _mm256_loadu_ps(block), w1 = _mm256_loadu_ps(block + 8);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const __m256 x = _mm256_broadcast_ss(a[r] + k);
        total[p][r][0] = _mm256_fmadd_ps(x, w0, total[p][r][0]);
        total[p][r][1] = _mm256_fmadd_ps(x, w1, total[p][r][1]);
      }
    }
  store_all<P * R>(total[0], out);
}

// out (count, 16) of one panel: whole tiles, then the rest in one smaller tile.
template <class Format>
inline void panel_rows(const uint8_t* panel, const Acts<Format>& acts, const int32_t* rows, int64_t count, float* out) {
  int64_t i = 0;
  for (; i + 6 <= count; i += 6) panel_product<6, 1>(&panel, acts, rows + i, i == 0, out + i * OUTS);
  switch (count - i) {
    case 5: return panel_product<5, 1>(&panel, acts, rows + i, i == 0, out + i * OUTS);
    case 4: return panel_product<4, 1>(&panel, acts, rows + i, i == 0, out + i * OUTS);
    case 3: return panel_product<3, 1>(&panel, acts, rows + i, i == 0, out + i * OUTS);
    case 2: return panel_product<2, 1>(&panel, acts, rows + i, i == 0, out + i * OUTS);
    case 1: return panel_product<1, 1>(&panel, acts, rows + i, i == 0, out + i * OUTS);
  }
}

constexpr int64_t PANELS = 4;  // at most so many at a time

// out (number, count, 16) of up to PANELS panels. A product of few rows is as fast as memory, and a core reads several places at
// once faster than one.
template <class Format>
inline void panels_rows(const uint8_t* const* panels, int64_t number, const Acts<Format>& acts, const int32_t* rows,
                        int64_t count, float* out) {
  int64_t p = 0;
  if (count == 1 && number == 4) return panel_product<1, 4>(panels, acts, rows, true, out);
  for (; count <= 2 && p + 2 <= number; p += 2)
    count == 1 ? panel_product<1, 2>(panels + p, acts, rows, true, out + p * OUTS)
               : panel_product<2, 2>(panels + p, acts, rows, true, out + 2 * p * OUTS);
  for (; p < number; p++) panel_rows(panels[p], acts, rows, count, out + p * count * OUTS);
}
#endif
