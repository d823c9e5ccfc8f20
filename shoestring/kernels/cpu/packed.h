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
// that are computed beside it, nor on the width of the vectors: batches, chunks and speculation change no bit.
#pragma once
#include "lanes.h"

#if defined(LANES_512) || defined(LANES_256) || defined(LANES_NEON)
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

#if defined(LANES_NEON)
constexpr int TILE_ROWS = 3;  // of a tile in vector registers: sixteen lanes fill four of these 32
#else
constexpr int TILE_ROWS = 6;
#endif
constexpr int AHEAD = 2048;   // bytes: reads of a single panel are as fast as memory only if they start early enough

inline void fetch(const uint8_t* p, int bytes) {
  for (int i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}
inline void fetch_ahead(const uint8_t* p, int bytes) { fetch(p + AHEAD, bytes); }

// Some rows of activations, as many as one tile takes: for each group (height, 32) values, and a scale and -1/4 of the sum of
// each row. Float32 values have neither.
template <class Format>
struct RowBlock {
  const typename Format::Act* values;
  const float *scales, *quarters;
  int64_t groups;
  int height;
};

// Where a row of a product is written: the first row of its block, the block's height, and its row there.
struct Place {
  int64_t base;
  int height, row;
};

template <class Format>
int64_t block_rows();

// The rows of one product or of several, one block after another; a block has at most block_rows<Format>().
template <class Format>
struct Rows {
  typename Format::Act* values;
  float *scales, *quarters;
  int64_t groups;

  // Row i of the product that has `count` rows from `first` on.
  static Place place(int64_t first, int64_t count, int64_t i) {
    const int64_t most = block_rows<Format>(), start = i / most * most;
    return {first + start, static_cast<int>(std::min(most, count - start)), static_cast<int>(i - start)};
  }
  RowBlock<Format> block(int64_t first, int64_t count, int64_t i) const {
    const Place at = place(first, count, i);
    const int64_t skip = at.base * groups;
    return {values + skip * GROUP, scales + skip, quarters + skip, groups, at.height};
  }
};

#include "amx/packed_amx.h"

// The two halves of a group's values, as integers, to one place.
inline void write_values(const Rows<Packed4>& to, const Place& at, int64_t group, const Ints x[2]) {
  int8_t* out = to.values + (at.base * to.groups + group * at.height + at.row) * GROUP;
  store_bytes(out, x[0]), store_bytes(out + 16, x[1]);
}
inline void write_values(const Rows<Packed8>& to, const Place& at, int64_t group, const Ints x[2]) {
  int16_t* block = to.values + (at.base * to.groups + group * at.height) * GROUP;
  if (at.height > TILE_ROWS) return write_planes(reinterpret_cast<int8_t*>(block), at, x);
  store_words(block + at.row * GROUP, x[0]), store_words(block + at.row * GROUP + 16, x[1]);
}

// A group of 32 values x, as integers with a scale, to `copies` places.
template <class Format>
inline void quantize_group(const float* x, const Rows<Format>& to, const Place* places, int64_t copies, int64_t group) {
  const Lanes v[2] = {load_lanes(x), load_lanes(x + 16)};
  const Lanes poison = multiply_add(v[0], no_lanes(), multiply(v[1], no_lanes()));  // NaN if a value is not finite
  const float most = std::max(0.0f, largest_lane(larger(magnitude(v[0]), magnitude(v[1])))) + lanes_total(poison);
  const Lanes inverse = splat_lanes(most > 0 ? Format::LIMIT / most : 0);
  const Ints q[2] = {nearest(multiply(v[0], inverse)), nearest(multiply(v[1], inverse))};
  const float scale = most / Format::LIMIT, quarter = -0.25f * static_cast<float>(ints_total(q[0]) + ints_total(q[1]));
  for (int64_t i = 0; i < copies; i++) {
    const Place& at = places[i];
    write_values(to, at, group, q);
    const int64_t row = at.base * to.groups + group * at.height + at.row;
    to.scales[row] = scale, to.quarters[row] = quarter;
  }
}

inline void quantize_group(const float* x, const Rows<Packed32>& to, const Place* places, int64_t copies, int64_t group) {
  for (int64_t i = 0; i < copies; i++) {
    const Place& at = places[i];
    std::memcpy(to.values + (at.base * to.groups + group * at.height + at.row) * GROUP, x, GROUP * sizeof(float));
  }
}

template <class Format>
inline void quantize_row(const float* x, const Rows<Format>& to, const Place* places, int64_t copies) {
  for (int64_t g = 0; g < to.groups; g++) quantize_group(x + g * GROUP, to, places, copies, g);
}

#if defined(LANES_512)
constexpr int TOGETHER = 2;  // panels whose integer sums are in registers at a time
#else
constexpr int TOGETHER = 1;
#endif

// Integer sums of a group: R rows times T panels.
template <int R, int T>
inline void group_sums(const uint8_t* const* blocks, const int8_t* a, Ints (&sum)[T][R]) {
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    Bytes u[T][2];
#pragma GCC unroll 2
    for (int p = 0; p < T; p++) {
      const Bytes both = load4(blocks[p], c);
      u[p][0] = low4(both), u[p][1] = high4(both);
    }
#pragma GCC unroll 2
    for (int high = 0; high < 2; high++)
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const Bytes x = four_bytes(a + r * GROUP + 8 * c + 4 * high);
#pragma GCC unroll 2
        for (int p = 0; p < T; p++) {
          sum[p][r] = dot4(sum[p][r], u[p][high], x);
          hold(sum[p][r]);  // else the compiler collects the products first, and spills them all
        }
      }
  }
}
template <int R, int T>
inline void group_sums(const uint8_t* const* blocks, const int16_t* a, Ints (&sum)[T][R]) {
#pragma GCC unroll 16
  for (int c = 0; c < 16; c++) {
    Bytes w[T];
#pragma GCC unroll 2
    for (int p = 0; p < T; p++) w[p] = load8(blocks[p], c);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const Bytes x = four_bytes(a + r * GROUP + 2 * c);
#pragma GCC unroll 2
      for (int p = 0; p < T; p++) {
        sum[p][r] = dot8(sum[p][r], w[p], x);
        hold(sum[p][r]);
      }
    }
  }
}

// total += a group's sums times the scales of outputs and of rows
template <int R>
inline void add_group(Packed4, const uint8_t* block, const float* scales, const float* quarters, const Ints* sum, Lanes* total) {
  const Ints word = words(block + Packed4::BLOCK - 2 * OUTS);
  const Lanes s = scale_of(word, Packed4::LEAST_SCALE), zero = zero_of(word);  // zeros in quarters
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    const Lanes d = multiply_add(zero, splat_lanes(quarters[r]), to_lanes(whole4(sum[r])));  // exact
    total[r] = multiply_add(d, multiply(s, splat_lanes(scales[r])), total[r]);
  }
}
template <int R>
inline void add_group(Packed8, const uint8_t* block, const float* scales, const float*, const Ints* sum, Lanes* total) {
  const Lanes s = halves(block + Packed8::BLOCK - 2 * OUTS);
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) total[r] = multiply_add(to_lanes(sum[r]), multiply(s, splat_lanes(scales[r])), total[r]);
}

// out (P, R, 16), panels out_panel apart: R rows times P panels. first: the panels are not in the cache yet.
template <int R, int P, class Format>
inline void tile(const uint8_t* const* panels, const RowBlock<Format>& rows, bool first, float* out, int64_t out_panel) {
  constexpr int T = std::min(P, TOGETHER);
  Lanes total[P][R];
#pragma GCC unroll 32
  for (int i = 0; i < P * R; i++) total[i / R][i % R] = no_lanes();
  for (int64_t g = 0; g < rows.groups; g++)
#pragma GCC unroll 4
    for (int q = 0; q < P; q += T) {
      const uint8_t* blocks[T];
      Ints sum[T][R];
#pragma GCC unroll 2
      for (int p = 0; p < T; p++) {
        blocks[p] = panels[q + p] + g * Format::BLOCK;
        if (P == 1 && first) fetch_ahead(blocks[p], Format::BLOCK);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sum[p][r] = no_ints();
      }
      group_sums(blocks, rows.values + g * R * GROUP, sum);
#pragma GCC unroll 2
      for (int p = 0; p < T; p++)
        add_group<R>(Format(), blocks[p], rows.scales + g * R, rows.quarters + g * R, sum[p], total[q + p]);
    }
#pragma GCC unroll 32
  for (int i = 0; i < P * R; i++) store_lanes(out + i / R * out_panel + i % R * OUTS, total[i / R][i % R]);
}

template <int R, int P>
inline void tile(const uint8_t* const* panels, const RowBlock<Packed32>& rows, bool first, float* out, int64_t out_panel) {
  const float* w[P];
  Lanes total[P][R];
#pragma GCC unroll 32
  for (int i = 0; i < P * R; i++) total[i / R][i % R] = no_lanes();
  for (int p = 0; p < P; p++) w[p] = reinterpret_cast<const float*>(panels[p]);
  for (int64_t g = 0; g < rows.groups; g++) {
    const float* a = rows.values + g * R * GROUP;
    if (P == 1 && first) fetch_ahead((const uint8_t*)(w[0] + g * GROUP * OUTS), Packed32::BLOCK);
    for (int64_t k = 0; k < GROUP; k++) {
      Lanes block[P];
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) block[p] = load_lanes(w[p] + (g * GROUP + k) * OUTS);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const Lanes x = splat_lanes(a[r * GROUP + k]);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) total[p][r] = multiply_add(x, block[p], total[p][r]);
      }
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < P * R; i++) store_lanes(out + i / R * out_panel + i % R * OUTS, total[i / R][i % R]);
}

// The most panels that a tile of R rows takes at a time. A product of few rows is as fast as memory, and a core reads several
// places at once faster than one.
template <class Format>
constexpr int most_panels(int rows) {
#if defined(LANES_512)
  return rows == 1 || sizeof(typename Format::Act) == 4 ? 4 : 2;
#else
  return rows == 1 ? 4 : rows == 2 ? 2 : 1;
#endif
}

template <int P, class Format>
inline void tile_of(const uint8_t* const* panels, const RowBlock<Format>& rows, bool first, float* out, int64_t out_panel) {
  const auto run = [&](auto height) {
    if constexpr (P <= most_panels<Format>(height())) tile<height(), P>(panels, rows, first, out, out_panel);
  };
  switch (rows.height) {
    case 6: return run(std::integral_constant<int, 6>());
    case 5: return run(std::integral_constant<int, 5>());
    case 4: return run(std::integral_constant<int, 4>());
    case 3: return run(std::integral_constant<int, 3>());
    case 2: return run(std::integral_constant<int, 2>());
    case 1: return run(std::integral_constant<int, 1>());
  }
}

// P panels times the rows `begin` to `count` of a product, which start a block.
template <int P, class Format>
inline void strip(const uint8_t* const* panels, const Rows<Format>& rows, int64_t first, int64_t count, int64_t begin,
                  float* out) {
  for (int64_t i = begin; i < count; i += block_rows<Format>())
    tile_of<P>(panels, rows.block(first, count, i), i == begin, out + i * OUTS, count * OUTS);
}

constexpr int64_t PANELS = 4;  // at most so many at a time

// out (number, count, 16) of up to PANELS panels and the `count` rows of the product that begins at row `first`.
template <class Format>
inline void panels_rows(const uint8_t* const* panels, int64_t number, const Rows<Format>& rows, int64_t first, int64_t count,
                        float* out) {
  const int64_t begin = amx_rows(panels, number, rows, first, count, out), left = count - begin;
  if (!left) return;
  const int most = most_panels<Format>(static_cast<int>(std::min<int64_t>(left, TILE_ROWS)));
  int64_t p = 0;
  const auto part = [&](auto width) {
    for (; most >= width() && p + width() <= number; p += width())
      strip<width()>(panels + p, rows, first, count, begin, out + p * count * OUTS);
  };
  part(std::integral_constant<int, 4>());
  part(std::integral_constant<int, 2>());
  part(std::integral_constant<int, 1>());
}
#endif
