// Products of many rows by the matrix unit of AMX-INT8: sixteen rows times sixteen outputs at a time. A group's sum is the same
// exact integer as in the vector tiles and is added in the same way, so that both give the same bits.
//
// 4-bit: the integers of a panel are unpacked to 4 * integer - 4 * zero, which fit 8 bits, so the sum is four times that of the
// vector tile, and its scale a quarter. Int8: activations of 15 bits are two planes, the high and the low byte.
#pragma once

#include "../amx.h"

#if defined(AMX_INT8)
#define PACKED_AMX

constexpr int AMX_ROWS = 16;

template <class Format>
inline int64_t block_rows() {
  return amx_allowed() ? AMX_ROWS : TILE_ROWS;
}
template <>
inline int64_t block_rows<Packed32>() {
  return TILE_ROWS;
}

// Row at.row of the group's plane of high bytes, and of its plane of low bytes.
inline void write_planes(int8_t* group, const Place& at, const Ints x[2]) {
  int8_t* high = group + at.row * GROUP;
  store_bytes(high, _mm512_srai_epi32(x[0], 8)), store_bytes(high + 16, _mm512_srai_epi32(x[1], 8));
  int8_t* low = high + at.height * GROUP;
  store_bytes(low, x[0]), store_bytes(low + 16, x[1]);
}

// The shapes of the tiles in use: sums 16 x 16, activations 16 x 32, weights 8 x (16 outputs x 4 inputs).
struct TileShapes {
  TileShapes() {
    struct {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 32, 32, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 8, 8};
    } shapes;
    _tile_loadconfig(&shapes);
  }
  ~TileShapes() { _tile_release(); }
};

// A panel in the order of a tile: for each group eight rows of 16 outputs x 4 inputs, and the scale of each output.
struct alignas(64) UnpackedGroup {
  int8_t weights[8 * 64];
  float scales[OUTS];
};

inline void unpack_group(Packed4, const uint8_t* block, UnpackedGroup& to) {
  const Ints word = words(block + Packed4::BLOCK - 2 * OUTS);
  const __m512i first = _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);  // the low byte of each word, four times
  const __m512i zeros = _mm512_shuffle_epi8(_mm512_and_si512(word, _mm512_set1_epi32(63)), first);
  const __m512i mask = _mm512_set1_epi8(60);
  for (int c = 0; c < 4; c++) {
    const Bytes both = load4(block, c);
    const __m512i low = _mm512_and_si512(_mm512_slli_epi16(both, 2), mask);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 2), mask);
    _mm512_storeu_si512(to.weights + 128 * c, _mm512_sub_epi8(low, zeros));
    _mm512_storeu_si512(to.weights + 128 * c + 64, _mm512_sub_epi8(high, zeros));
  }
  store_lanes(to.scales, multiply(scale_of(word, Packed4::LEAST_SCALE), splat_lanes(0.25f)));
}

inline void unpack_group(Packed8, const uint8_t* block, UnpackedGroup& to) {
  alignas(64) static constexpr uint16_t PAIRS[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i pairs = _mm512_load_si512(PAIRS);
  for (int k = 0; k < 8; k++)
    _mm512_storeu_si512(to.weights + 64 * k, _mm512_permutexvar_epi16(pairs, _mm512_loadu_si512(block + 64 * k)));
  store_lanes(to.scales, halves(block + Packed8::BLOCK - 2 * OUTS));
}

typedef int32_t TileSums[AMX_ROWS * OUTS];

// The sums of one group, in the tiles of even or of odd groups: what the vector units add up afterwards.
#define AMX_PRODUCT(NAME, SUM, LOW, ROWS, WEIGHTS)                                                \
  inline void NAME(Packed4, const int8_t* a, int64_t, const UnpackedGroup& w, TileSums* sums) {   \
    _tile_zero(SUM);                                                                              \
    _tile_loadd(ROWS, a, GROUP);                                                                  \
    _tile_loadd(WEIGHTS, w.weights, 64);                                                          \
    _tile_dpbssd(SUM, ROWS, WEIGHTS);                                                             \
    _tile_stored(SUM, sums[0], 64);                                                               \
  }                                                                                               \
  inline void NAME(Packed8, const int8_t* a, int64_t low, const UnpackedGroup& w, TileSums* sums) { \
    _tile_zero(SUM);                                                                              \
    _tile_zero(LOW);                                                                              \
    _tile_loadd(ROWS, a, GROUP);                                                                  \
    _tile_loadd(WEIGHTS, w.weights, 64);                                                          \
    _tile_dpbssd(SUM, ROWS, WEIGHTS);                                                             \
    _tile_loadd(ROWS, a + low, GROUP);                                                            \
    _tile_dpbusd(LOW, ROWS, WEIGHTS);                                                             \
    _tile_stored(SUM, sums[0], 64);                                                               \
    _tile_stored(LOW, sums[1], 64);                                                               \
  }
AMX_PRODUCT(even_product, 0, 2, 4, 6)
AMX_PRODUCT(odd_product, 1, 3, 5, 7)
#undef AMX_PRODUCT

inline Lanes group_of(Packed4, const TileSums* sums, int r) { return to_lanes(_mm512_load_si512(sums[0] + r * OUTS)); }
inline Lanes group_of(Packed8, const TileSums* sums, int r) {
  const __m512i high = _mm512_slli_epi32(_mm512_load_si512(sums[0] + r * OUTS), 8);
  return to_lanes(_mm512_add_epi32(high, _mm512_load_si512(sums[1] + r * OUTS)));
}

template <class Format>
inline void add_tile(const UnpackedGroup& w, const float* scales, const TileSums* sums, Lanes* total) {
  const Lanes s = load_lanes(w.scales);
#pragma GCC unroll 16
  for (int r = 0; r < AMX_ROWS; r++)
    total[r] = multiply_add(group_of(Format(), sums, r), multiply(s, splat_lanes(scales[r])), total[r]);
}

// out (height, 16) of one block of rows and one panel; `next` is fetched meanwhile, if there is one. The matrix unit is two
// groups ahead of the vector units. A block of fewer than 16 rows reads on into what follows it, and what comes of that is not
// written.
template <class Format>
inline void amx_block(const RowBlock<Format>& rows, const UnpackedGroup* w, const uint8_t* next, float* out) {
  const Format format;
  const int64_t low = rows.height * GROUP, step = low * sizeof(typename Format::Act), pairs = rows.groups / 2;
  const int8_t* a = reinterpret_cast<const int8_t*>(rows.values);
  const float* scales = rows.scales;
  alignas(64) TileSums sums[4][2];
  Lanes total[AMX_ROWS];
#pragma GCC unroll 16
  for (int r = 0; r < AMX_ROWS; r++) total[r] = no_lanes();
  for (int64_t i = 0; i <= pairs; i++) {
    TileSums(*now)[2] = sums + (i & 1) * 2, (*before)[2] = sums + (~i & 1) * 2;
    if (i < pairs) {
      even_product(format, a, low, w[2 * i], now[0]);
      odd_product(format, a + step, low, w[2 * i + 1], now[1]);
      a += 2 * step;
      if (next) fetch(next + 2 * i * Format::BLOCK, 2 * Format::BLOCK);
    } else if (rows.groups % 2) {
      even_product(format, a, low, w[2 * i], now[0]);
    }
    if (!i) continue;
    add_tile<Format>(w[2 * i - 2], scales, before[0], total);
    add_tile<Format>(w[2 * i - 1], scales + rows.height, before[1], total);
    scales += 2 * rows.height;
  }
  if (rows.groups % 2) add_tile<Format>(w[2 * pairs], scales, sums[(pairs & 1) * 2], total);
#pragma GCC unroll 16
  for (int r = 0; r < AMX_ROWS; r++)
    if (r < rows.height) store_lanes(out + r * OUTS, total[r]);
}

UnpackedGroup* amx_scratch(int64_t groups);  // of this thread

// Multiplies the rows that fill blocks, or nearly, and returns how many these are.
template <class Format>
inline int64_t amx_rows(const uint8_t* const* panels, int64_t number, const Rows<Format>& rows, int64_t first, int64_t count,
                        float* out) {
  if (block_rows<Format>() != AMX_ROWS || count <= TILE_ROWS) return 0;
  const int64_t whole = count / AMX_ROWS * AMX_ROWS, end = count - whole > TILE_ROWS ? count : whole;
  UnpackedGroup* scratch = amx_scratch(rows.groups);
  const TileShapes shapes;
  for (int64_t p = 0; p < number; p++) {
    const uint8_t* panel = panels[p];
    for (int64_t g = 0; g < rows.groups; g++) {
      fetch_ahead(panel + g * Format::BLOCK, Format::BLOCK);
      unpack_group(Format(), panel + g * Format::BLOCK, scratch[g]);
    }
    const uint8_t* next = panel + rows.groups * Format::BLOCK;  // the panel that this thread takes soon, as a rule
    for (int64_t i = 0; i < end; i += AMX_ROWS)
      amx_block(rows.block(first, count, i), scratch, i ? nullptr : next, out + (p * count + i) * OUTS);
  }
  return end;
}
template <>
inline int64_t amx_rows(const uint8_t* const*, int64_t, const Rows<Packed32>&, int64_t, int64_t, float*) {
  return 0;
}

#else

template <class Format>
inline int64_t block_rows() {
  return TILE_ROWS;
}
inline void write_planes(int8_t*, const Place&, const Ints*) {}
template <class Format>
inline int64_t amx_rows(const uint8_t* const*, int64_t, const Rows<Format>&, int64_t, int64_t, float*) {
  return 0;
}
#endif
