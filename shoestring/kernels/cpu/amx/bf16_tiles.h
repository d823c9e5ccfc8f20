// Factors of a product, rounded to bfloat16 and laid out in the tiles of AMX: sixteen rows of thirty-two depths.
#pragma once
#include "../amx.h"
#include "../vec.h"

#if defined(AMX_BF16)

constexpr int TILE = 16;              // rows of a tile, and floats in one of its rows of sums
constexpr int DEPTH = 32;             // bfloat16 in a row of a tile
constexpr int VALUES = TILE * DEPTH;  // bfloat16 in a tile: 1 KiB
constexpr int ROWS_AT_ONCE = 2 * TILE;  // of a left factor
constexpr int TURNS = 4;              // in which a left tile is written

// One factor: `size` rows of `depth` floats. A row's floats lie beside each other, and rows `stride` apart; or, if it is transposed,
// a depth's floats lie beside each other, and depths `stride` apart.
struct Factor {
  const float* at;
  int64_t size, depth, stride;
  bool transposed;
  const float* value(int64_t row, int64_t k) const { return at + (transposed ? k * stride + row : row * stride + k); }
};

inline __mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>(count >= TILE ? 0xffff : count <= 0 ? 0 : (1u << count) - 1);
}

// 16 x 16 floats whose line i begins at from + i * stride. There are `lines` lines of `width` floats; the rest are zeros.
inline void load_square(const float* from, int64_t stride, int64_t lines, int64_t width, __m512* x) {
  const __mmask16 mask = first_lanes(width);
#pragma GCC unroll 16
  for (int i = 0; i < TILE; i++) x[i] = i < lines ? _mm512_maskz_loadu_ps(mask, from + i * stride) : _mm512_setzero_ps();
}

inline void transpose_square(__m512* x) {
  __m512i a[TILE], b[TILE];
#pragma GCC unroll 8
  for (int i = 0; i < TILE; i += 2) {
    a[i] = _mm512_castps_si512(_mm512_unpacklo_ps(x[i], x[i + 1]));
    a[i + 1] = _mm512_castps_si512(_mm512_unpackhi_ps(x[i], x[i + 1]));
  }
#pragma GCC unroll 4
  for (int i = 0; i < TILE; i += 4)
#pragma GCC unroll 2
    for (int j = 0; j < 2; j++) {
      b[i + 2 * j] = _mm512_unpacklo_epi64(a[i + j], a[i + j + 2]);
      b[i + 2 * j + 1] = _mm512_unpackhi_epi64(a[i + j], a[i + j + 2]);
    }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
#pragma GCC unroll 2
    for (int j = 0; j < TILE; j += 8) {
      a[j + i] = _mm512_shuffle_i32x4(b[j + i], b[j + i + 4], 0x88);
      a[j + i + 4] = _mm512_shuffle_i32x4(b[j + i], b[j + i + 4], 0xdd);
    }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    x[i] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(a[i], a[i + 8], 0x88));
    x[i + 8] = _mm512_castsi512_ps(_mm512_shuffle_i32x4(a[i], a[i + 8], 0xdd));
  }
}

// A line of a left tile: one row, the first and the second half of its depths.
inline void write_row(__m512 first, __m512 second, uint16_t* line) {
  _mm512_store_si512(line, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

// A line of a right tile: sixteen rows at an even depth and at the odd one after it, in pairs.
inline void write_pairs(__m512 even, __m512 odd, uint16_t* line) {
  alignas(64) static constexpr uint16_t PAIRS[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
  _mm512_store_si512(line, _mm512_permutexvar_epi16(_mm512_load_si512(PAIRS), halves));
}

// Writes left tiles, whose lines are rows, each in TURNS turns, between which the matrix unit gets work.
struct LeftTile {
  alignas(64) float scratch[TILE][DEPTH];

  void write(const Factor& f, int64_t row, int64_t k, int turn, uint16_t* tile) {
    const int64_t rows = f.size - row, depth = f.depth - k;
    if (f.transposed && turn < 2) {
      __m512 x[TILE];
      const float* from = f.value(row, k + turn * TILE);
      load_square(from, f.stride, depth - turn * TILE, rows, x);
      for (int i = 0; i < TILE; i++) __builtin_prefetch(from + i * f.stride + ROWS_AT_ONCE);  // the next block's
      transpose_square(x);
      for (int i = 0; i < TILE; i++) _mm512_store_ps(scratch[i] + turn * TILE, x[i]);
    } else if (f.transposed) {
      for (int i = (turn - 2) * 8; i < (turn - 1) * 8; i++)
        write_row(_mm512_load_ps(scratch[i]), _mm512_load_ps(scratch[i] + TILE), tile + i * DEPTH);
    } else {
      for (int i = turn * 4; i < turn * 4 + 4; i++) {
        const float* from = f.value(row + i, k);
        const int64_t count = i < rows ? depth : 0;
        __builtin_prefetch(from + ROWS_AT_ONCE * f.stride);  // the next block's
        __builtin_prefetch(from + ROWS_AT_ONCE * f.stride + TILE);
        write_row(_mm512_maskz_loadu_ps(first_lanes(count), from), _mm512_maskz_loadu_ps(first_lanes(count - TILE), from + TILE),
                  tile + i * DEPTH);
      }
    }
  }
};

// Writes a right tile, whose lines are pairs of depths.
inline void write_right(const Factor& f, int64_t row, int64_t k, uint16_t* tile) {
  const int64_t rows = f.size - row, depth = f.depth - k;
  for (int half = 0; half < 2; half++) {
    __m512 x[TILE];
    if (f.transposed) {
      load_square(f.value(row, k + half * TILE), f.stride, depth - half * TILE, rows, x);
    } else {
      load_square(f.value(row, k + half * TILE), f.stride, rows, depth - half * TILE, x);
      transpose_square(x);
    }
    for (int i = 0; i < TILE / 2; i++) write_pairs(x[2 * i], x[2 * i + 1], tile + (half * TILE / 2 + i) * DEPTH);
  }
}
#endif
