// Muon's Newton-Schulz iteration on a stack of small matrices, each in the cache of one core.
#include <vector>

#include "vec.h"

namespace {

struct Square {  // a symmetric matrix of size m in rows of `row` floats
  int64_t m, row;
  std::vector<float> at;
  explicit Square(int64_t size) : m(size), row(padded(static_cast<int>(size), PANEL)), at(m * row) {}

  // at = a b, known to be symmetric: columns left of a row block's own panel are copied from the other side.
  void multiply(int64_t depth, const float* a, int64_t a_row, const float* b, int64_t b_row) {
    for (int64_t i = 0; i < m; i += PANEL)
      columns(std::min<int64_t>(PANEL, m - i), row - i, depth, a + i * a_row, a_row, 1, b + i, b_row, at.data() + i * row + i, row,
              false);
    for (int64_t i = PANEL; i < m; i++)
      for (int64_t j = 0; j < i / PANEL * PANEL; j++) at[i * row + j] = at[j * row + i];
  }
};

}  // namespace

// `steps` times x = a x + (b g + c g g) x with g = x x^T, for each matrix of x (E, m, n). m is at most n.
extern "C" void newton_schulz(int64_t E, int64_t m, int64_t n, int64_t steps, float a, float b, float c, float* x) {
#pragma omp parallel
  {
    const int64_t wide = padded(static_cast<int>(n), W);
    std::vector<float> rows(m * wide), product_rows(m * wide);
    Square gram(m), polynomial(m);
    std::vector<float> transposed(n * gram.row);
#pragma omp for schedule(dynamic)
    for (int64_t e = 0; e < E; e++) {
      float* matrix = x + e * m * n;
      for (int64_t i = 0; i < m; i++) std::copy_n(matrix + i * n, n, &rows[i * wide]);
      for (int64_t step = 0; step < steps; step++) {
        for (int64_t j = 0; j < n; j += W)  // in blocks, whose lines stay in the cache
          for (int64_t i = 0; i < m; i++)
            for (int64_t k = j; k < std::min(n, j + W); k++) transposed[k * gram.row + i] = rows[i * wide + k];
        gram.multiply(n, rows.data(), wide, transposed.data(), gram.row);
        polynomial.multiply(m, gram.at.data(), gram.row, gram.at.data(), gram.row);
        for (size_t i = 0; i < gram.at.size(); i++) polynomial.at[i] = b * gram.at[i] + c * polynomial.at[i];
        columns(m, wide, m, polynomial.at.data(), gram.row, 1, rows.data(), wide, product_rows.data(), wide, false);
        for (size_t i = 0; i < rows.size(); i++) rows[i] = a * rows[i] + product_rows[i];
      }
      for (int64_t i = 0; i < m; i++) std::copy_n(&rows[i * wide], n, matrix + i * n);
    }
  }
}
