// The sixteen lanes of lanes.h in one vector of 512 bits: AVX-512.
#pragma once

typedef __m512i Ints;   // 16 sums of 32 bits
typedef __m512i Bytes;  // four bytes, or two words of 16 bits, for each output
typedef __m512 Lanes;

inline Ints no_ints() { return _mm512_setzero_si512(); }
inline Lanes no_lanes() { return _mm512_setzero_ps(); }
inline Lanes load_lanes(const float* p) { return _mm512_loadu_ps(p); }
inline void store_lanes(float* p, Lanes x) { _mm512_storeu_ps(p, x); }
inline Lanes splat_lanes(float x) { return _mm512_set1_ps(x); }
inline Lanes multiply(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }  // multiply_add is that of vec.h
inline Lanes to_lanes(Ints x) { return _mm512_cvtepi32_ps(x); }
inline Lanes magnitude(Lanes x) { return _mm512_abs_ps(x); }
inline Lanes larger(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
inline float largest_lane(Lanes x) { return _mm512_reduce_max_ps(x); }
inline float lanes_total(Lanes x) { return _mm512_reduce_add_ps(x); }
inline Ints nearest(Lanes x) { return _mm512_cvtps_epi32(x); }
inline int32_t ints_total(Ints x) { return _mm512_reduce_add_epi32(x); }
inline void store_bytes(void* p, Ints x) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(x)); }
inline void store_words(void* p, Ints x) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(x)); }
inline Bytes four_bytes(const void* p) {  // the same four for each output
  int32_t four;
  std::memcpy(&four, p, 4);
  return _mm512_set1_epi32(four);
}

// Chunk c of a 4-bit block, as it lies there: inputs 8c to 8c + 7. low4, high4: inputs 8c to 8c + 3 and the next four.
inline Bytes load4(const uint8_t* block, int c) {
  const __m512i first = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)(block + 32 * c)));
  return _mm512_inserti64x4(first, _mm256_loadu_si256((const __m256i*)(block + 128 + 32 * c)), 1);
}
inline Bytes low4(Bytes x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
inline Bytes high4(Bytes x) { return low4(_mm512_srli_epi16(x, 4)); }
inline Bytes load8(const uint8_t* block, int c) {  // inputs 2c and 2c + 1 of an int8 block, 16 bits wide
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)(block + 32 * c)));
}
inline Ints words(const uint8_t* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); }
inline Lanes halves(const uint8_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline Lanes scale_of(Ints word, int least) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(word, 12), _mm512_set1_epi32(least)));
}
inline Lanes zero_of(Ints word) { return to_lanes(_mm512_and_si512(word, _mm512_set1_epi32(63))); }

#if defined(__AVX512VNNI__)
inline Ints dot4(Ints sum, Bytes u, Bytes x) { return _mm512_dpbusd_epi32(sum, u, x); }
inline Ints whole4(Ints sum) { return sum; }
inline Ints dot8(Ints sum, Bytes w, Bytes x) { return _mm512_dpwssd_epi32(sum, w, x); }
#else
inline Ints dot4(Ints sum, Bytes u, Bytes x) { return _mm512_add_epi16(sum, _mm512_maddubs_epi16(u, x)); }
inline Ints whole4(Ints sum) { return _mm512_madd_epi16(sum, _mm512_set1_epi16(1)); }
inline Ints dot8(Ints sum, Bytes w, Bytes x) { return _mm512_add_epi32(sum, _mm512_madd_epi16(w, x)); }
#endif
inline void hold(Ints& x) { asm("" : "+v"(x)); }
