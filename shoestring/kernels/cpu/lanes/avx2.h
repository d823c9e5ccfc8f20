// The sixteen lanes of lanes.h in two vectors of 256 bits: AVX2, FMA and F16C.
#pragma once

struct Ints {
  __m256i half[2];
};
typedef Ints Bytes;
struct Lanes {
  __m256 half[2];
};

inline Ints no_ints() { return {{_mm256_setzero_si256(), _mm256_setzero_si256()}}; }
inline Lanes no_lanes() { return {{_mm256_setzero_ps(), _mm256_setzero_ps()}}; }
inline Lanes load_lanes(const float* p) { return {{_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}}; }
inline void store_lanes(float* p, Lanes x) { _mm256_storeu_ps(p, x.half[0]), _mm256_storeu_ps(p + 8, x.half[1]); }
inline Lanes splat_lanes(float x) { return {{_mm256_set1_ps(x), _mm256_set1_ps(x)}}; }
inline Lanes multiply(Lanes a, Lanes b) {
  return {{_mm256_mul_ps(a.half[0], b.half[0]), _mm256_mul_ps(a.half[1], b.half[1])}};
}
inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) {
  return {{_mm256_fmadd_ps(a.half[0], b.half[0], c.half[0]), _mm256_fmadd_ps(a.half[1], b.half[1], c.half[1])}};
}
inline Lanes to_lanes(Ints x) { return {{_mm256_cvtepi32_ps(x.half[0]), _mm256_cvtepi32_ps(x.half[1])}}; }
inline Lanes magnitude(Lanes x) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {{_mm256_andnot_ps(sign, x.half[0]), _mm256_andnot_ps(sign, x.half[1])}};
}
inline Lanes larger(Lanes a, Lanes b) {
  return {{_mm256_max_ps(a.half[0], b.half[0]), _mm256_max_ps(a.half[1], b.half[1])}};
}
inline float largest_lane(Lanes x) {
  const __m256 eight = _mm256_max_ps(x.half[0], x.half[1]);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
inline float lanes_total(Lanes x) {
  const __m256 eight = _mm256_add_ps(x.half[0], x.half[1]);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline Ints nearest(Lanes x) { return {{_mm256_cvtps_epi32(x.half[0]), _mm256_cvtps_epi32(x.half[1])}}; }
inline int32_t ints_total(Ints x) {
  const __m256i eight = _mm256_add_epi32(x.half[0], x.half[1]);
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}
inline __m256i sixteen_words(Ints x) {
  return _mm256_permute4x64_epi64(_mm256_packs_epi32(x.half[0], x.half[1]), 0xd8);
}
inline void store_words(void* p, Ints x) { _mm256_storeu_si256((__m256i*)p, sixteen_words(x)); }
inline void store_bytes(void* p, Ints x) {
  const __m256i all = sixteen_words(x);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi16(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
}
inline Bytes four_bytes(const void* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return {{_mm256_set1_epi32(four), _mm256_set1_epi32(four)}};
}

inline Bytes load4(const uint8_t* block, int c) {
  return {{_mm256_loadu_si256((const __m256i*)(block + 32 * c)), _mm256_loadu_si256((const __m256i*)(block + 128 + 32 * c))}};
}
inline Bytes low4(Bytes x) {
  const __m256i low = _mm256_set1_epi8(15);
  return {{_mm256_and_si256(x.half[0], low), _mm256_and_si256(x.half[1], low)}};
}
inline Bytes high4(Bytes x) { return low4({{_mm256_srli_epi16(x.half[0], 4), _mm256_srli_epi16(x.half[1], 4)}}); }
inline Bytes load8(const uint8_t* block, int c) {
  const __m128i* from = (const __m128i*)(block + 32 * c);
  return {{_mm256_cvtepi8_epi16(_mm_loadu_si128(from)), _mm256_cvtepi8_epi16(_mm_loadu_si128(from + 1))}};
}
inline Ints words(const uint8_t* p) {
  const __m128i* from = (const __m128i*)p;
  return {{_mm256_cvtepu16_epi32(_mm_loadu_si128(from)), _mm256_cvtepu16_epi32(_mm_loadu_si128(from + 1))}};
}
inline Lanes halves(const uint8_t* p) {
  const __m128i* from = (const __m128i*)p;
  return {{_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from + 1))}};
}
inline __m256 scale_of(__m256i word, int least) {
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32(word, 12), _mm256_set1_epi32(least)));
}
inline Lanes scale_of(Ints word, int least) { return {{scale_of(word.half[0], least), scale_of(word.half[1], least)}}; }
inline Lanes zero_of(Ints word) {
  const __m256i zero = _mm256_set1_epi32(63);
  return to_lanes({{_mm256_and_si256(word.half[0], zero), _mm256_and_si256(word.half[1], zero)}});
}

inline __m256i dot4(__m256i sum, __m256i u, __m256i x) {
#if defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(sum, u, x);
#else
  return _mm256_add_epi16(sum, _mm256_maddubs_epi16(u, x));
#endif
}
inline __m256i whole4(__m256i sum) {
#if defined(__AVXVNNI__)
  return sum;
#else
  return _mm256_madd_epi16(sum, _mm256_set1_epi16(1));
#endif
}
inline __m256i dot8(__m256i sum, __m256i w, __m256i x) {
#if defined(__AVXVNNI__)
  return _mm256_dpwssd_avx_epi32(sum, w, x);
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(w, x));
#endif
}
inline Ints dot4(Ints sum, Bytes u, Bytes x) {
  return {{dot4(sum.half[0], u.half[0], x.half[0]), dot4(sum.half[1], u.half[1], x.half[1])}};
}
inline Ints whole4(Ints sum) { return {{whole4(sum.half[0]), whole4(sum.half[1])}}; }
inline Ints dot8(Ints sum, Bytes w, Bytes x) {
  return {{dot8(sum.half[0], w.half[0], x.half[0]), dot8(sum.half[1], w.half[1], x.half[1])}};
}
inline void hold(Ints& x) { asm("" : "+x"(x.half[0]), "+x"(x.half[1])); }
