// Products of floats by the matrix unit of AMX-INT8. The floats of one row become integers of 24 bits with a scale of their own, and
// an integer is three digits of 8 bits, so a product is that of nine pairs of digits. The three smallest are below what the
// rounding to integers leaves out, and are left out too. The sums are exact, so they depend on no order.
#pragma once
#include "../amx.h"
#include "key_tiles.h"

#if defined(AMX_INT8)

constexpr int TILE_SIDE = 16;   // rows of a tile, and columns of sums
constexpr int TILE_DEPTH = 64;  // digits in a row of a tile
constexpr int DIGITS = 3;
constexpr float LARGEST = 8355000;  // nearly 127 of 256 * 256, of 256 and of 1

struct alignas(64) DigitTile {
  int8_t at[TILE_SIDE][TILE_DEPTH];
};

struct alignas(64) DigitSums {  // of products that are worth 2^32, 2^24 and 2^16
  int32_t at[DIGITS][TILE_SIDE][TILE_SIDE];
};

// At most 16 floats, and zeros after them.
inline __m512 load_some(const float* x, int64_t count) {
  const __mmask16 mask = count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1;
  return _mm512_maskz_loadu_ps(mask, x);
}

// What numbers up to `largest` are multiplied by on their way to integers; 0 for zeros.
inline __m512 factor_of(__m512 largest) {
  const __mmask16 some = _mm512_cmp_ps_mask(largest, _mm512_set1_ps(1e-30f), _CMP_NLE_UQ);  // not a number counts as some
  return _mm512_maskz_div_ps(some, _mm512_set1_ps(LARGEST), largest);
}

// Sums are multiplied by this on their way back.
inline __m512 scale_of(__m512 largest) { return _mm512_mul_ps(largest, _mm512_set1_ps(1 / LARGEST)); }

inline float largest_of(const float* x, int64_t count) {
  __m512i most = _mm512_setzero_si512();  // as integers, of which not a number is the largest
  for (int64_t d = 0; d < count; d += 16)
    most = _mm512_max_epu32(most, _mm512_castps_si512(_mm512_abs_ps(load_some(x + d, count - d))));
  return _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(_mm512_reduce_max_epu32(most))));
}

// Three digits in the lower bytes of each integer, the lowest first. What is above them has no meaning.
inline __m512i digits_of(__m512 x, __m512 factor) {
  const __m512i middle = _mm512_set1_epi32(0x808080), n = _mm512_cvtps_epi32(_mm512_mul_ps(x, factor));
  return _mm512_xor_si512(_mm512_add_epi32(n, middle), middle);
}

// Row r of three tiles = the digits of four vectors, in turn: the highest digits in the first tile
inline void store_four(const __m512i* digits, int64_t r, DigitTile* tiles) {
  constexpr __mmask64 ODD_BYTES = 0xaaaaaaaaaaaaaaaa;
  constexpr __mmask32 ODD_WORDS = 0xaaaaaaaa;
  __m512i outer[2], middle[2];  // two digits of one vector beside those of the next: the lowest and highest, the middle ones
#pragma GCC unroll 2
  for (int h = 0; h < 2; h++) {
    const __m512i a = digits[2 * h], b = digits[2 * h + 1];
    outer[h] = _mm512_mask_blend_epi8(ODD_BYTES, a, _mm512_slli_epi32(b, 8));
    middle[h] = _mm512_mask_blend_epi8(ODD_BYTES, _mm512_srli_epi32(a, 8), b);
  }
  const __m512i high = _mm512_mask_blend_epi16(ODD_WORDS, _mm512_srli_epi32(outer[0], 16), outer[1]);
  const __m512i low = _mm512_mask_blend_epi16(ODD_WORDS, outer[0], _mm512_slli_epi32(outer[1], 16));
  _mm512_store_si512(tiles[0].at[r], high);
  _mm512_store_si512(tiles[1].at[r], _mm512_mask_blend_epi16(ODD_WORDS, middle[0], _mm512_slli_epi32(middle[1], 16)));
  _mm512_store_si512(tiles[2].at[r], low);
}

// A tile of rows as one of four of the depth for each column, and back.
inline void turn(DigitTile& tile) {
  const float* rows[W];
  for (int i = 0; i < W; i++) rows[i] = reinterpret_cast<const float*>(tile.at[i]);
  transpose(0, W, rows, reinterpret_cast<float*>(tile.at), W);
}

// sums = products of a (steps, DIGITS) by rows and b (steps, DIGITS) by columns
inline void multiply_digits(int64_t steps, const DigitTile* a, const DigitTile* b, DigitSums& sums) {
  __asm__ volatile("" ::: "memory");  // GCC does not know that a tile's load reads memory
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  for (int64_t s = 0; s < steps; s++, a += DIGITS, b += DIGITS) {
    _tile_loadd(3, b[0].at, 64);
    _tile_loadd(6, a[0].at, 64);
    _tile_dpbssd(0, 6, 3);
    _tile_loadd(4, b[1].at, 64);
    _tile_dpbssd(1, 6, 4);
    _tile_loadd(5, b[2].at, 64);
    _tile_dpbssd(2, 6, 5);
    _tile_loadd(7, a[1].at, 64);
    _tile_dpbssd(1, 7, 3);
    _tile_dpbssd(2, 7, 4);
    _tile_loadd(6, a[2].at, 64);
    _tile_dpbssd(2, 6, 3);
  }
  _tile_stored(0, sums.at[0], 64);
  _tile_stored(1, sums.at[1], 64);
  _tile_stored(2, sums.at[2], 64);
}

// Row r of sums, in units of 2^16
inline __m512 row_of(const DigitSums& sums, int64_t r) {
  const __m512 high = _mm512_cvtepi32_ps(_mm512_load_si512(sums.at[0][r]));
  const __m512 middle = _mm512_cvtepi32_ps(_mm512_load_si512(sums.at[1][r]));
  const __m512 low = _mm512_cvtepi32_ps(_mm512_load_si512(sums.at[2][r]));
  const __m512 both = _mm512_fmadd_ps(middle, _mm512_set1_ps(256), low);
  return _mm512_fmadd_ps(high, _mm512_set1_ps(65536), both);
}
#endif
