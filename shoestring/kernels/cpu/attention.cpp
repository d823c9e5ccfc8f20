// Causal attention, forward and backward. A task is one key head of one sequence, so that its scores stay in the cache.
// Layout: q (B, T, H, D), k (B, T, G, D), v (B, T, G, V), out (B, T, H, V), lse (B, H, T); H is a multiple of G.
#include <limits>
#include <vector>

#include "vec.h"

namespace {

constexpr int QUERIES = 24;  // query rows of one product: a multiple of ROWS

struct Shape {
  int B, T, H, G, D, V;
  float scale;
  int Dp() const { return padded(D, PANEL); }
  int Vp() const { return padded(V, PANEL); }
  int Tp() const { return padded(T, PANEL); }
  int Sp() const { return Tp() + W; }  // row stride of scores: rows a power of two apart would share cache sets
};

// x (T rows of `width` floats, `row` floats apart) -> rows of `wide` floats, filled up with zeros.
void pack_rows(const float* x, int64_t row, int T, int width, int wide, float factor, float* out) {
  for (int t = 0; t < T; t++)
    for (int i = 0; i < wide; i++) out[t * wide + i] = i < width ? x[t * row + i] * factor : 0.0f;
}

// x (T, width) -> panels of PANEL keys, each (width, PANEL): q k^T's transposed operand, contiguous in the order of reading.
void pack_transposed(const float* x, int64_t row, int T, int Tp, int width, float* out) {
  for (int p = 0; p < Tp / PANEL; p++)
    for (int i = 0; i < width; i++)
      for (int j = 0; j < PANEL; j++) {
        const int t = p * PANEL + j;
        out[(static_cast<int64_t>(p) * width + i) * PANEL + j] = t < T ? x[t * row + i] : 0.0f;
      }
}

// Scores of queries [first, first + rows) against the keys that they may see; -inf for future keys. Returns the number of panels.
int scores(const Shape& s, const float* q, const float* k_panels, int first, int rows, float* out, int stride) {
  const int panels = (first + rows + PANEL - 1) / PANEL;
  product(rows, panels, s.D, q, s.Dp(), 1, k_panels, PANEL, s.D * PANEL, out, stride, false);
  for (int r = 0; r < rows; r++)
    for (int t = first + r + 1; t < panels * PANEL; t++) out[r * stride + t] = -std::numeric_limits<float>::infinity();
  return panels;
}

// Softmax of a row, in place; returns log sum exp.
float softmax_row(float* x, int n) {
  vec top = load(x);
  for (int i = W; i < n; i += W) top = vmax(top, load(x + i));
  const float peak = maximum(top);
  vec total = {};
  for (int i = 0; i < n; i += W) {
    const vec e = vexp(load(x + i) - peak);
    total += e;
    store(x + i, e);
  }
  const float norm = sum(total);
  for (int i = 0; i < n; i += W) store(x + i, load(x + i) / norm);
  return peak + std::log(norm);
}

}  // namespace

extern "C" void attention_forward(int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, int64_t V, float scale,
                                  const float* q, const float* k, const float* v, float* out, float* lse) {
  const Shape s{int(B), int(T), int(H), int(G), int(D), int(V), scale};
  const int Dp = s.Dp(), Vp = s.Vp(), Tp = s.Tp(), Sp = s.Sp();
#pragma omp parallel
  {
    std::vector<float> keys(static_cast<size_t>(Tp) * D), values(static_cast<size_t>(Tp) * Vp), query(QUERIES * Dp),
        prob(static_cast<size_t>(QUERIES) * Sp), result(QUERIES * Vp);
#pragma omp for collapse(2) schedule(static)
    for (int b = 0; b < B; b++)
      for (int g = 0; g < G; g++) {
        pack_transposed(k + (static_cast<int64_t>(b) * T * G + g) * D, G * D, T, Tp, D, keys.data());
        pack_rows(v + (static_cast<int64_t>(b) * T * G + g) * V, G * V, T, V, Vp, 1.0f, values.data());
        for (int h = g * (H / G); h < (g + 1) * (H / G); h++)
          for (int first = 0; first < T; first += QUERIES) {
            const int rows = std::min<int>(QUERIES, T - first);
            const int64_t at = (static_cast<int64_t>(b) * T + first) * H + h;
            pack_rows(q + at * D, H * D, rows, D, Dp, scale, query.data());
            const int panels = scores(s, query.data(), keys.data(), first, rows, prob.data(), Sp);
            for (int r = 0; r < rows; r++)
              lse[(static_cast<int64_t>(b) * H + h) * T + first + r] = softmax_row(&prob[r * Sp], panels * PANEL);
            product(rows, Vp / PANEL, std::min<int>(panels * PANEL, T), prob.data(), Sp, 1, values.data(), Vp, PANEL,
                    result.data(), Vp, false);
            for (int r = 0; r < rows; r++)
              std::memcpy(out + (at + static_cast<int64_t>(r) * H) * V, &result[r * Vp], V * sizeof(float));
          }
      }
  }
}

extern "C" void attention_backward(int64_t B, int64_t T, int64_t H, int64_t G, int64_t D, int64_t V, float scale,
                                   const float* q, const float* k, const float* v, const float* out, const float* lse,
                                   const float* dout, float* dq, float* dk, float* dv) {
  const Shape s{int(B), int(T), int(H), int(G), int(D), int(V), scale};
  const int Dp = s.Dp(), Vp = s.Vp(), Tp = s.Tp(), Sp = s.Sp();
#pragma omp parallel
  {
    std::vector<float> keys_t(static_cast<size_t>(Tp) * D), keys(static_cast<size_t>(T) * Dp),
        values_t(static_cast<size_t>(Tp) * V), query(QUERIES * Dp), grad(QUERIES * Vp),
        prob(static_cast<size_t>(QUERIES) * Sp), dprob(static_cast<size_t>(QUERIES) * Sp), dquery(QUERIES * Dp),
        dkeys(static_cast<size_t>(Tp) * Dp), dvalues(static_cast<size_t>(Tp) * Vp);
#pragma omp for collapse(2) schedule(static)
    for (int b = 0; b < B; b++)
      for (int g = 0; g < G; g++) {
        const float* kg = k + (static_cast<int64_t>(b) * T * G + g) * D;
        const float* vg = v + (static_cast<int64_t>(b) * T * G + g) * V;
        pack_transposed(kg, G * D, T, Tp, D, keys_t.data());
        pack_transposed(vg, G * V, T, Tp, V, values_t.data());
        pack_rows(kg, G * D, T, D, Dp, 1.0f, keys.data());
        std::fill(dkeys.begin(), dkeys.end(), 0.0f);
        std::fill(dvalues.begin(), dvalues.end(), 0.0f);
        for (int h = g * (H / G); h < (g + 1) * (H / G); h++)
          for (int first = 0; first < T; first += QUERIES) {
            const int rows = std::min<int>(QUERIES, T - first);
            const int64_t at = (static_cast<int64_t>(b) * T + first) * H + h;
            pack_rows(q + at * D, H * D, rows, D, Dp, scale, query.data());
            pack_rows(dout + at * V, H * V, rows, V, Vp, 1.0f, grad.data());
            const int panels = scores(s, query.data(), keys_t.data(), first, rows, prob.data(), Sp);
            product(rows, panels, V, grad.data(), Vp, 1, values_t.data(), PANEL, V * PANEL, dprob.data(), Sp, false);
            for (int r = 0; r < rows; r++) {
              const float* o = out + (at + static_cast<int64_t>(r) * H) * V;
              float delta = 0;  // sum of dout * out = sum of prob * dprob
              for (int i = 0; i < V; i++) delta += o[i] * grad[r * Vp + i];
              const float norm = lse[(static_cast<int64_t>(b) * H + h) * T + first + r];
              for (int t = 0; t < panels * PANEL; t += W) {
                const vec p = vexp(load(&prob[r * Sp + t]) - norm);
                store(&prob[r * Sp + t], p);
                store(&dprob[r * Sp + t], p * (load(&dprob[r * Sp + t]) - delta));
              }
            }
            const int seen = std::min<int>(panels * PANEL, T);
            product(seen, Vp / PANEL, rows, prob.data(), 1, Sp, grad.data(), Vp, PANEL, dvalues.data(), Vp, true);
            product(seen, Dp / PANEL, rows, dprob.data(), 1, Sp, query.data(), Dp, PANEL, dkeys.data(), Dp, true);
            product(rows, Dp / PANEL, seen, dprob.data(), Sp, 1, keys.data(), Dp, PANEL, dquery.data(), Dp, false);
            for (int r = 0; r < rows; r++)
              for (int i = 0; i < D; i++)
                dq[(at + static_cast<int64_t>(r) * H) * D + i] = dquery[r * Dp + i] * scale;
          }
        for (int t = 0; t < T; t++) {
          const int64_t row = (static_cast<int64_t>(b) * T + t) * G + g;
          std::memcpy(dk + row * D, &dkeys[t * Dp], D * sizeof(float));
          std::memcpy(dv + row * V, &dvalues[t * Vp], V * sizeof(float));
        }
      }
  }
}
