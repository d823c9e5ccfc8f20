// Products of float matrices in bfloat16, by the matrix unit of AMX: factors are rounded, sums are float32. An element's sum is taken
// in one order, whatever the number of threads and the rows beside it.
#include "amx/bf16_tiles.h"

#if defined(AMX_BF16)
#include <omp.h>

#include <cstdlib>
#include <vector>

namespace {

constexpr int64_t COLUMNS = 512, MOST_DEPTH = 512;  // of a right factor that stays in a core's cache: 512 KiB
constexpr int64_t WORTH_THREADS = 1 << 18;          // multiplications: with fewer, waking another thread takes longer

struct Words {  // memory that a thread keeps, in lines of the cache
  uint16_t* at = nullptr;
  int64_t size = 0;
  uint16_t* get(int64_t count) {
    if (count > size) {
      std::free(at);
      at = static_cast<uint16_t*>(std::aligned_alloc(64, count * sizeof(uint16_t)));
      size = count;
    }
    return at;
  }
  ~Words() { std::free(at); }
};

// Before tiles are loaded: the compiler does not know that they read what was written.
inline void written() { asm volatile("" ::: "memory"); }

// Rows and columns of the result from `c` on; its rows are `row` floats apart.
struct Sums {
  float* c;
  int64_t row, rows, columns;
  bool is_whole() const { return rows >= TILE && columns >= TILE; }
  void copy(const float* from, int64_t from_row, float* to, int64_t to_row) const {
    for (int64_t r = 0; r < std::min<int64_t>(TILE, rows); r++)
      std::copy_n(from + r * from_row, std::min<int64_t>(TILE, columns), to + r * to_row);
  }
};

// The sums of tile register I: 16 x 16 of the result, or fewer at its edge.
#define TILE_SUMS(I)                                                \
  inline void load_##I(const Sums& s) {                             \
    if (s.is_whole()) {                                             \
      _tile_loadd(I, s.c, s.row * sizeof(float));                   \
      return;                                                       \
    }                                                               \
    alignas(64) float edge[TILE * TILE] = {};                       \
    s.copy(s.c, s.row, edge, TILE);                                 \
    written();                                                      \
    _tile_loadd(I, edge, TILE * sizeof(float));                     \
  }                                                                 \
  inline void store_##I(const Sums& s) {                            \
    if (s.is_whole()) {                                             \
      _tile_stored(I, s.c, s.row * sizeof(float));                  \
      return;                                                       \
    }                                                               \
    alignas(64) float edge[TILE * TILE];                            \
    _tile_stored(I, edge, TILE * sizeof(float));                    \
    s.copy(edge, TILE, s.c, s.row);                                 \
  }
TILE_SUMS(0)
TILE_SUMS(1)
TILE_SUMS(2)
TILE_SUMS(3)
#undef TILE_SUMS

// M rows of tiles times N columns of tiles: sums in registers 0 to 3, left tiles in 4 and 5, right ones in 6 and 7.
template <int M, int N>
struct Tiles {
  static Sums part(const Sums& s, int m, int n) {
    return {s.c + m * TILE * s.row + n * TILE, s.row, s.rows - m * TILE, s.columns - n * TILE};
  }
  static void zero() {
    _tile_zero(0);
    if constexpr (N == 2) _tile_zero(1);
    if constexpr (M == 2) _tile_zero(2);
    if constexpr (M == 2 && N == 2) _tile_zero(3);
  }
  static void load(const Sums& s) {
    load_0(s);
    if constexpr (N == 2) load_1(part(s, 0, 1));
    if constexpr (M == 2) load_2(part(s, 1, 0));
    if constexpr (M == 2 && N == 2) load_3(part(s, 1, 1));
  }
  static void store(const Sums& s) {
    store_0(s);
    if constexpr (N == 2) store_1(part(s, 0, 1));
    if constexpr (M == 2) store_2(part(s, 1, 0));
    if constexpr (M == 2 && N == 2) store_3(part(s, 1, 1));
  }
  // One depth of tiles; the second row and column are `second` after the first.
  static void multiply(const uint16_t* a, const uint16_t* b, int64_t second) {
    _tile_loadd(4, a, 64);
    _tile_loadd(6, b, 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (N == 2) {
      _tile_loadd(7, b + second, 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (M == 2) {
      _tile_loadd(5, a + second, 64);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (M == 2 && N == 2) _tile_dpbf16ps(3, 5, 7);
  }
};

struct Chunk {  // a part of the right factor, in tiles (columns, steps): `columns` from `column` on, depths from `from` on
  const uint16_t* tiles;
  int64_t column, columns, from, steps;
};

// The left tiles of one block of rows. They are written while the block before it is multiplied, in equal shares of that.
struct LeftBlock {
  const Factor& f;
  const Chunk& chunk;
  uint16_t* at;  // tiles (row tiles, steps)
  int64_t row, turns, shares, done = 0, credit = 0;
  LeftTile writer;

  LeftBlock(const Factor& factor, const Chunk& part, int64_t first, uint16_t* memory, int64_t times)
      : f(factor), chunk(part), at(memory), row(first), turns(row_tiles() * part.steps * TURNS), shares(times) {}
  int64_t row_tiles() const { return row >= f.size ? 0 : f.size - row > TILE ? 2 : 1; }
  void share() {
    for (credit += turns; credit >= shares; credit -= shares) turn();
  }
  void finish() {
    while (done < turns) turn();
  }
  void turn() {
    const int64_t tile = done / TURNS, m = tile / chunk.steps, step = tile % chunk.steps;
    writer.write(f, row + m * TILE, chunk.from + step * DEPTH, done % TURNS, at + tile * VALUES);
    done++;
  }
};

template <int M, int N>
inline void multiply_tiles(const uint16_t* a, const uint16_t* b, int64_t steps, const Sums& sums, bool accumulate, LeftBlock& next) {
  typedef Tiles<M, N> T;
  accumulate ? T::load(sums) : T::zero();
  for (int64_t r = 0; r < std::min<int64_t>(M * TILE, sums.rows); r++) {
    __builtin_prefetch(sums.c + r * sums.row, 1);
    if (N == 2) __builtin_prefetch(sums.c + r * sums.row + TILE, 1);
  }
  for (int64_t step = 0; step < steps; step++) {
    T::multiply(a + step * VALUES, b + step * VALUES, steps * VALUES);
    next.share();
  }
  T::store(sums);
}

template <int M>
inline void multiply_block(const uint16_t* a, const Chunk& chunk, const Sums& sums, bool accumulate, LeftBlock& next) {
  for (int64_t n = 0; n < chunk.columns; n += 2 * TILE) {
    const uint16_t* b = chunk.tiles + n / TILE * chunk.steps * VALUES;
    const Sums part{sums.c + n, sums.row, sums.rows, chunk.columns - n};
    if (part.columns > TILE)
      multiply_tiles<M, 2>(a, b, chunk.steps, part, accumulate, next);
    else
      multiply_tiles<M, 1>(a, b, chunk.steps, part, accumulate, next);
  }
}

// Blocks [block, end) of rows of the left factor times a chunk.
void multiply_blocks(const Factor& left, int64_t block, int64_t end, const Chunk& chunk, const Sums& sums, bool accumulate,
                     uint16_t* scratch) {
  if (block >= end) return;
  const int64_t size = 2 * chunk.steps * VALUES, shares = (chunk.columns + 2 * TILE - 1) / (2 * TILE) * chunk.steps;
  LeftBlock(left, chunk, block * ROWS_AT_ONCE, scratch, 1).finish();
  for (int64_t i = 0; block < end; block++, i ^= 1) {
    const int64_t row = block * ROWS_AT_ONCE;
    const Sums part{sums.c + row * sums.row + chunk.column, sums.row, sums.rows - row, chunk.columns};
    LeftBlock next(left, chunk, block + 1 < end ? row + ROWS_AT_ONCE : left.size, scratch + (i ^ 1) * size, shares);
    written();
    if (part.rows > TILE)
      multiply_block<2>(scratch + i * size, chunk, part, accumulate, next);
    else
      multiply_block<1>(scratch + i * size, chunk, part, accumulate, next);
    next.finish();
  }
}

// c (left.size, right.size) = left right^T
void multiply(const Factor& left, const Factor& right, const Sums& sums) {
  static thread_local Words right_words;
  const int64_t blocks = (left.size + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE;
  const int64_t most_columns = (std::min(COLUMNS, right.size) + TILE - 1) / TILE;
  const int64_t most_steps = (std::min(MOST_DEPTH, right.depth) + DEPTH - 1) / DEPTH;
  uint16_t* const tiles = right_words.get(most_columns * most_steps * VALUES);
#pragma omp parallel if (left.size * right.size * left.depth > WORTH_THREADS)
  {
    static thread_local Words left_words;
    uint16_t* const scratch = left_words.get(4 * most_steps * VALUES);
    const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    const WholeTiles shapes;
    for (int64_t column = 0; column < right.size; column += COLUMNS)
      for (int64_t from = 0; from < right.depth; from += MOST_DEPTH) {
        const int64_t depth = std::min(MOST_DEPTH, right.depth - from);
        const Chunk chunk{tiles, column, std::min(COLUMNS, right.size - column), from, (depth + DEPTH - 1) / DEPTH};
#pragma omp for collapse(2) schedule(static)
        for (int64_t step = 0; step < chunk.steps; step++)
          for (int64_t n = 0; n < (chunk.columns + TILE - 1) / TILE; n++)
            write_right(right, column + n * TILE, from + step * DEPTH, tiles + (n * chunk.steps + step) * VALUES);
        multiply_blocks(left, blocks * thread / threads, blocks * (thread + 1) / threads, chunk, sums, from, scratch);
#pragma omp barrier
      }
  }
}

}  // namespace

extern "C" int64_t bf16_available() { return amx_allowed(); }

// Products c (M, N) = a (M, K) b (N, K)^T, `count` of them. Each has nine numbers: M, N, K, how far apart rows of a, b and c are, and
// where in a, b and c it begins. A transposed a is (K, M), a transposed b (K, N).
extern "C" void bf16_products(int64_t count, const int64_t* numbers, int64_t a_transposed, int64_t b_transposed, const float* a,
                              const float* b, float* c) {
  for (int64_t i = 0; i < count; i++) {
    const int64_t* n = numbers + 9 * i;
    if (!n[0] || !n[1]) continue;
    const Factor left{a + n[6], n[0], n[2], n[3], a_transposed != 0}, right{b + n[7], n[1], n[2], n[4], b_transposed != 0};
    const Sums sums{c + n[8], n[5], n[0], n[1]};
    if (n[2])
      multiply(left, right, sums);
    else
      for (int64_t r = 0; r < n[0]; r++) std::fill_n(sums.c + r * sums.row, n[1], 0.0f);
  }
}

// `steps` times x = a x + (b g + c g g) x with g = x x^T, for each matrix of x (E, m, n), as newton_schulz of muon.cpp does.
extern "C" void newton_schulz_bf16(int64_t E, int64_t m, int64_t n, int64_t steps, float a, float b, float c, float* x) {
#pragma omp parallel
  {
    std::vector<float> gram(m * m), polynomial(m * m), change(m * n);
#pragma omp for schedule(dynamic)
    for (int64_t e = 0; e < E; e++) {  // a matrix is one thread's: regions inside of this one have no other
      float* const matrix = x + e * m * n;
      const Factor rows{matrix, m, n, n, false}, columns{matrix, n, m, n, true};
      for (int64_t step = 0; step < steps; step++) {
        multiply(rows, rows, {gram.data(), m, m, m});
        const Factor symmetric{gram.data(), m, m, m, false};
        multiply(symmetric, symmetric, {polynomial.data(), m, m, m});
        for (int64_t i = 0; i < m * m; i++) polynomial[i] = b * gram[i] + c * polynomial[i];
        multiply({polynomial.data(), m, m, m, false}, columns, {change.data(), n, m, n});
        for (int64_t i = 0; i < m * n; i++) matrix[i] = a * matrix[i] + change[i];
      }
    }
  }
}
#else
extern "C" int64_t bf16_available() { return 0; }
#endif
