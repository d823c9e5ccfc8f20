// Attention over latents by the matrix unit (digits.h): the same latents are keys and values of many heads.
#pragma once
#include "digits.h"
#include "problem.h"
#include "row_tiles.h"

#include <vector>

#if defined(AMX_INT8)

constexpr int64_t AMX_HEADS = 8;   // fewer would leave most of a tile empty where a token is alone
constexpr int64_t AMX_KEYS = 256;  // of one round
constexpr int64_t KEY_STEPS = AMX_KEYS / TILE_DEPTH;

class AmxRows {
 public:
  static constexpr int64_t ROWS_AT_ONCE = MOST_ROWS;
  // By the model alone: a row has the same bits beside others and alone.
  static bool serves(const Problem& p) {
    return p.value.data == p.first.data && p.per_key_head >= AMX_HEADS && amx_allowed();
  }
  // One vector more than needed, or rows would lie in the same few sets of the cache.
  static int64_t value_width(const Problem& p) { return whole(p.value.width, TILE_SIDE) + W; }

  explicit AmxRows(const Problem& p)
      : p(p),
        first_steps(whole(p.first.width, TILE_DEPTH) / TILE_DEPTH),
        steps(first_steps + whole(p.second.width, TILE_DEPTH) / TILE_DEPTH) {
    const int64_t of_q = ROWS_AT_ONCE / TILE_SIDE * steps * DIGITS, of_keys = AMX_KEYS / TILE_SIDE * steps * DIGITS;
    q = scratch(of_q + of_keys + first_steps * TILE_DEPTH / TILE_SIDE * KEY_STEPS * DIGITS);
    keys = q + of_q, values = keys + of_keys;
  }

  // The block's queries, scaled, in tiles (rows / 16, steps, DIGITS) by columns; rows past the last repeat it.
  void gather(const Block& block) {
    for (int64_t r = 0; r < padded(static_cast<int>(block.rows()), TILE_SIDE); r++) {
      const int64_t row = block.row_of(p, std::min(r, block.rows() - 1));
      DigitTile* tiles = q + r / TILE_SIDE * steps * DIGITS;
      const float* x[] = {p.q + row * p.first.width, p.q2 + row * p.second.width};
      q_scales[0][r] = p.scale * split_row(x[0], p.first.width, r % TILE_SIDE, tiles);
      q_scales[1][r] = p.scale * split_row(x[1], p.second.width, r % TILE_SIDE, tiles + first_steps * DIGITS);
      if (r % TILE_SIDE == TILE_SIDE - 1)
        for (int64_t i = 0; i < steps * DIGITS; i++) turn(tiles[i]);
    }
  }

  // The gathered rows over keys `begin` to `end`, as far as each may see them.
  void attend(const Block& block, int64_t begin, int64_t end, Mix& mix) {
    const Keys k(p, block);
    const int64_t rows = block.rows(), lanes = padded(static_cast<int>(rows), TILE_SIDE);
    int32_t visible[ROWS_AT_ONCE] = {};
    mix.clear(lanes);
    for (int64_t start = begin; start < end; start += AMX_KEYS) {
      const int64_t count = std::min(AMX_KEYS, end - start);
      split_keys(k, start, count);
      visible_keys(p, block, 0, rows, start, visible);
      for (int64_t i = 0; i < lanes; i += TILE_SIDE) {
        score(i, count);
        row_softmax(TILE_SIDE, count, visible + i, scores, mix.most + i, mix.total + i, shrink);
        split_weights(count);
        add_values(whole(count, TILE_DEPTH) / TILE_DEPTH, mix.out.get() + i * mix.width, mix.width);
      }
    }
  }

 private:
  const Problem& p;
  const WholeTiles shapes;
  const int64_t first_steps, steps;
  DigitTile *q, *keys, *values;
  alignas(64) float q_scales[2][ROWS_AT_ONCE], key_scales[2][AMX_KEYS];
  alignas(64) float scores[AMX_KEYS * TILE_SIDE], shrink[TILE_SIDE], weight_scales[TILE_SIDE];
  DigitTile weights[KEY_STEPS * DIGITS];
  DigitSums sums[2][2];

  // Of this thread: a call for one token would wait for fresh memory longer than it computes.
  static DigitTile* scratch(int64_t tiles) {
    thread_local std::vector<DigitTile> kept;
    if (static_cast<int64_t>(kept.size()) < tiles) kept.resize(tiles);
    return kept.data();
  }

  static int64_t whole(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

  // digits (4) of 64 numbers from d on, and zeros after `width` of them. A row of a tile has them in turn: the order of the depth
  // is that of queries and keys alike.
  static void split(const float* x, int64_t d, int64_t width, __m512 factor, __m512i* digits) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < 4; i++) digits[i] = digits_of(load_some(x + d + 16 * i, width - d - 16 * i), factor);
  }

  // Row r of tiles (steps, DIGITS) = x. Returns the scale.
  static float split_row(const float* x, int64_t width, int64_t r, DigitTile* tiles) {
    const __m512 largest = _mm512_set1_ps(largest_of(x, width)), factor = factor_of(largest);
    for (int64_t d = 0; d < width; d += TILE_DEPTH, tiles += DIGITS) {
      __m512i digits[4];
      split(x, d, width, factor, digits);
      store_four(digits, r, tiles);
    }
    return _mm512_cvtss_f32(scale_of(largest));
  }

  // Keys from `start` on in tiles (keys / 16, steps, DIGITS) by rows, and as values. The scales of what follows them are 0.
  void split_keys(const Keys& k, int64_t start, int64_t count) {
    std::fill(key_scales[0] + count, key_scales[0] + whole(count, TILE_DEPTH), 0.0f);
    for (int64_t c = 0; c < count; c += 4) {
      const float* four[4];
      for (int64_t i = 0; i < 4; i++) {
        const int64_t key = start + std::min(c + i, count - 1), page = k.table[key / p.page_size];
        four[i] = k.first.at(page, key % p.page_size);
        if (c + i >= count) continue;
        DigitTile* tiles = keys + ((c + i) / TILE_SIDE * steps + first_steps) * DIGITS;
        const float* rope = k.second.at(page, key % p.page_size);
        key_scales[1][c + i] = split_row(rope, k.second.width, (c + i) % TILE_SIDE, tiles);
      }
      split_latents(four, c, std::min<int64_t>(4, count - c));
    }
  }

  // Four keys, of which `count` are there: rows of keys, and one row of values (columns / 16, KEY_STEPS, DIGITS) by columns
  void split_latents(const float* const* four, int64_t c, int64_t count) {
    const int64_t width = p.first.width;
    __m512 factors[4];
    for (int64_t i = 0; i < 4; i++) {
      const __m512 largest = _mm512_set1_ps(largest_of(four[i], width));
      factors[i] = factor_of(largest);
      if (i < count) key_scales[0][c + i] = _mm512_cvtss_f32(scale_of(largest));
    }
    DigitTile* rows = keys + c / TILE_SIDE * steps * DIGITS;
    DigitTile* columns = values + c / TILE_DEPTH * DIGITS;
    for (int64_t d = 0; d < width; d += TILE_DEPTH, rows += DIGITS) {
      __m512i digits[4][4];
#pragma GCC unroll 4
      for (int64_t i = 0; i < 4; i++) {
        split(four[i], d, width, factors[i], digits[i]);
        store_four(digits[i], c % TILE_SIDE + i, rows);
      }
#pragma GCC unroll 4
      for (int64_t j = 0; j < 4; j++, columns += KEY_STEPS * DIGITS) {
        const __m512i column[] = {digits[0][j], digits[1][j], digits[2][j], digits[3][j]};
        store_four(column, c % TILE_DEPTH / 4, columns);
      }
    }
  }

  // scores (count, 16) of rows i to i + 16. The matrix unit is a tile of keys ahead.
  void score(int64_t i, int64_t count) {
    const DigitTile* queries = q + i / TILE_SIDE * steps * DIGITS;
    const __m512 first = _mm512_load_ps(q_scales[0] + i), second = _mm512_load_ps(q_scales[1] + i);
    const int64_t tiles = whole(count, TILE_SIDE) / TILE_SIDE;
    for (int64_t t = 0; t <= tiles; t++) {
      const DigitTile* k = keys + t * steps * DIGITS;
      if (t < tiles) {
        multiply_digits(first_steps, k, queries, sums[t % 2][0]);
        multiply_digits(steps - first_steps, k + first_steps * DIGITS, queries + first_steps * DIGITS, sums[t % 2][1]);
      }
      if (!t) continue;
      const DigitSums* done = sums[(t - 1) % 2];
      for (int64_t r = 0; r < TILE_SIDE; r++) {
        const int64_t key = (t - 1) * TILE_SIDE + r;
        const __m512 a = _mm512_mul_ps(row_of(done[0], r), _mm512_mul_ps(first, _mm512_set1_ps(key_scales[0][key] * 65536)));
        const __m512 b = _mm512_mul_ps(second, _mm512_set1_ps(key_scales[1][key] * 65536));
        _mm512_store_ps(scores + key * TILE_SIDE, _mm512_fmadd_ps(row_of(done[1], r), b, a));
      }
    }
  }

  // Weights (count, 16 rows), times the scales of values, in tiles (KEY_STEPS, DIGITS) by rows; a round has its own scale in each row.
  void split_weights(int64_t count) {
    __m512i most = _mm512_setzero_si512();
    for (int64_t c = 0; c < whole(count, TILE_DEPTH); c++) {
      float* x = scores + c * TILE_SIDE;
      const __m512 weight = c < count ? _mm512_mul_ps(_mm512_load_ps(x), _mm512_set1_ps(key_scales[0][c])) : _mm512_setzero_ps();
      _mm512_store_ps(x, weight);
      most = _mm512_max_epu32(most, _mm512_castps_si512(weight));  // not negative, or not a number
    }
    const __m512 largest = _mm512_castsi512_ps(most), factor = factor_of(largest);
    _mm512_store_ps(weight_scales, _mm512_mul_ps(scale_of(largest), _mm512_set1_ps(65536)));
    for (int64_t c = 0; c < whole(count, TILE_DEPTH); c += 4) {
      __m512i digits[4];
#pragma GCC unroll 4
      for (int64_t i = 0; i < 4; i++) digits[i] = digits_of(_mm512_load_ps(scores + (c + i) * TILE_SIDE), factor);
      store_four(digits, c % TILE_DEPTH / 4, weights + c / TILE_DEPTH * DIGITS);
    }
    for (int64_t i = 0; i < whole(count, TILE_DEPTH) / TILE_DEPTH * DIGITS; i++) turn(weights[i]);
  }

  // out (16, width) = out * shrink + weights times values
  void add_values(int64_t key_steps, float* out, int64_t width) {
    const int64_t tiles = whole(p.value.width, TILE_SIDE) / TILE_SIDE;
    for (int64_t t = 0; t <= tiles; t++) {
      if (t < tiles) multiply_digits(key_steps, weights, values + t * KEY_STEPS * DIGITS, sums[t % 2][0]);
      if (!t) continue;
      for (int64_t r = 0; r < TILE_SIDE; r++) {
        float* to = out + r * width + (t - 1) * TILE_SIDE;
        const __m512 before = _mm512_mul_ps(_mm512_loadu_ps(to), _mm512_set1_ps(shrink[r]));
        _mm512_storeu_ps(to, _mm512_fmadd_ps(row_of(sums[(t - 1) % 2][0], r), _mm512_set1_ps(weight_scales[r]), before));
      }
    }
  }
};
#endif
