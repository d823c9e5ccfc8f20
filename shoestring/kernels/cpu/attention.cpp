// Causal attention of training, forward and backward, over rows of several sequences without padding.
// Layout: q (N, H, D), out (N, H, V), lse (N, H). Keys and values are k (N, G, D) and v (N, G, V), H a multiple of G; or, where
// k_rope (N, R) is given, kv (N, G, D - R + V) in the place of k: each head's own part of its keys beside its values.
// Of every query and key the last R values are rotated by its row's angles cos and sin (N, R / 2), if these are given.
// `segments` (S, 2) cut the N rows: a length, and whether the segment goes on from the last one that does not. Such a family (a
// prompt and its answers) times one key head is a task, so that keys and scores stay in the cache and gradients have one order.
#include <limits>
#include <memory>
#include <vector>

#include "vec.h"

namespace {

constexpr int QUERIES = 24;  // query rows of one product: a multiple of ROWS

struct Shape {
  int64_t H, G, D, V, R, interleave;
  float scale;
  const float *cos, *sin, *k_rope;
  int64_t own() const { return k_rope ? D - R : D; }  // width of a key that belongs to one head
  int64_t key_width() const { return k_rope ? D - R + V : D; }
  int64_t value_width() const { return k_rope ? D - R + V : V; }
  int Dp() const { return padded(D, W); }
  int Vp() const { return padded(V, W); }
};

struct Segment {
  int64_t first, count;
};

// Asks for a row ahead of its use: rows of one head lie far apart, and waiting for them took a third of the time.
inline void fetch(const float* row, int64_t width) {
  for (int64_t i = 0; i < width; i += 16) __builtin_prefetch(row + i);
}
constexpr int64_t AHEAD = 12;  // rows

struct Family {  // segment 0 is seen by all the others
  std::vector<Segment> segments;
  int64_t seen_before(size_t i) const { return i ? segments[0].count : 0; }
};

std::vector<Family> families_of(int64_t S, const int64_t* segments) {
  std::vector<Family> families;
  int64_t first = 0;
  for (int64_t s = 0; s < S; s++) {
    const int64_t count = segments[2 * s];
    if (!segments[2 * s + 1] || families.empty()) families.emplace_back();
    families.back().segments.push_back({first, count});
    first += count;
  }
  return families;
}

int64_t longest(const std::vector<Family>& families) {
  int64_t most = 0;
  for (const Family& family : families)
    for (size_t i = 0; i < family.segments.size(); i++)
      most = std::max(most, family.seen_before(i) + family.segments[i].count);
  return most;
}

// to (R) = from turned by row n's angles; direction -1 turns back, which is the gradient of turning.
inline void turned(const Shape& s, int64_t n, const float* from, float direction, float* to) {
  if (!s.cos) {
    std::memcpy(to, from, s.R * sizeof(float));
    return;
  }
  const int64_t half = s.R / 2, step = s.interleave ? 2 : 1, apart = s.interleave ? 1 : half;
  for (int64_t i = 0; i < half; i++) {
    const float c = s.cos[n * half + i], d = direction * s.sin[n * half + i];
    const float u = from[i * step], v = from[i * step + apart];
    to[i * step] = u * c - v * d;
    to[i * step + apart] = v * c + u * d;
  }
}

inline void load_query(const Shape& s, const float* q, int64_t n, int64_t h, float* to) {
  const float* from = q + (n * s.H + h) * s.D;
  std::memcpy(to, from, (s.D - s.R) * sizeof(float));
  turned(s, n, from + s.D - s.R, 1.0f, to + s.D - s.R);
  for (int64_t i = 0; i < s.D; i++) to[i] *= s.scale;
}

inline void load_key(const Shape& s, const float* k, int64_t n, int64_t g, float* to) {
  const float* from = k + (n * s.G + g) * s.key_width();
  std::memcpy(to, from, (s.D - s.R) * sizeof(float));
  turned(s, n, s.k_rope ? s.k_rope + n * s.R : from + s.D - s.R, 1.0f, to + s.D - s.R);
}

// Row t of a matrix as a column of panels, each (width, PANEL): the transposed operand, contiguous in the order of reading.
inline void into_panel(const float* row, int64_t width, int64_t t, float* panels) {
  float* to = panels + (t / PANEL * width) * PANEL + t % PANEL;
  for (int64_t i = 0; i < width; i++) to[i * PANEL] = row[i];
}

inline float dot(const float* a, const float* b, int64_t n) {
  vec total = {};
  int64_t i = 0;
  for (; i + W <= n; i += W) total += load(a + i) * load(b + i);
  float sum = pairwise_sum(total);
  for (; i < n; i++) sum += a[i] * b[i];
  return sum;
}

// exp(x - peak) of the first `seen` of `n` scores, in place, zero for the others; returns their sum. n is a multiple of W.
inline float exponentials(float* x, int64_t seen, int64_t n, float peak) {
  vec total = {};
  int64_t i = 0;
  for (; i + W <= seen; i += W) {
    const vec e = vexp(load(x + i) - peak);
    total += e;
    store(x + i, e);
  }
  if (i < seen) {
    for (int64_t t = seen; t < i + W; t++) x[t] = -std::numeric_limits<float>::infinity();
    const vec e = vexp(load(x + i) - peak);
    total += e;
    store(x + i, e);
    i += W;
  }
  std::fill(x + i, x + n, 0.0f);
  return pairwise_sum(total);
}

inline float largest(const float* x, int64_t seen) {
  if (seen < W) return *std::max_element(x, x + seen);
  vec top = load(x);
  for (int64_t i = W; i + W <= seen; i += W) top = vmax(top, load(x + i));
  return pairwise_maximum(vmax(top, load(x + seen - W)));
}

typedef std::unique_ptr<float[]> Floats;
inline Floats floats(int64_t count) { return Floats(new float[count]()); }

// Keys and values of the rows that a segment's queries see, for one key head; those of a family's first segment stay.
struct Keys {
  const Shape& s;
  Floats panels, rows, value_panels, values;  // rows and value_panels are null in the forward pass
  Floats row;
  Keys(const Shape& shape, int64_t length, bool backward)
      : s(shape),
        panels(floats(padded(length, PANEL) * s.D)),
        rows(backward ? floats(length * s.Dp()) : nullptr),
        value_panels(backward ? floats(padded(length, PANEL) * s.V) : nullptr),
        values(floats(length * s.Vp())),
        row(floats(s.D)) {}

  void add(const float* k, const float* v, int64_t g, const Segment& segment, int64_t at) {
    const float* all_values = s.k_rope ? k + s.own() : v;
    for (int64_t t = 0; t < segment.count; t++) {
      const int64_t n = segment.first + t, later = (std::min(t + AHEAD, segment.count - 1) + segment.first) * s.G + g;
      fetch(k + later * s.key_width(), s.own());
      fetch(all_values + later * s.value_width(), s.V);
      load_key(s, k, n, g, row.get());
      into_panel(row.get(), s.D, at + t, panels.get());
      const float* value = all_values + (n * s.G + g) * s.value_width();
      std::memcpy(values.get() + (at + t) * s.Vp(), value, s.V * sizeof(float));
      if (!rows) continue;
      std::memcpy(rows.get() + (at + t) * s.Dp(), row.get(), s.D * sizeof(float));
      into_panel(value, s.V, at + t, value_panels.get());
    }
  }
};

struct Forward {
  const Shape& s;
  Keys keys;
  int64_t stride;  // of rows of scores: a power of two apart they would share cache sets
  Floats query, scores, result;
  Forward(const Shape& shape, int64_t length)
      : s(shape),
        keys(shape, length, false),
        stride(padded(length, PANEL) + W),
        query(floats(QUERIES * s.D)),
        scores(floats(QUERIES * stride)),
        result(floats(QUERIES * s.Vp())) {}

  // Query rows [from, from + rows) of a segment before which `before` keys are seen.
  void block(const float* q, int64_t h, const Segment& segment, int64_t before, int64_t from, int rows, float* out, float* lse) {
    const int64_t first = segment.first + from, seen = before + from + rows, width = padded(seen, PANEL);
    for (int r = 0; r < rows; r++) load_query(s, q, first + r, h, query.get() + r * s.D);
    for (int64_t n = first + rows; n < std::min(first + rows + QUERIES, segment.first + segment.count); n++)
      fetch(q + (n * s.H + h) * s.D, s.D);
    product(rows, width / PANEL, s.D, query.get(), s.D, 1, keys.panels.get(), PANEL, s.D * PANEL, scores.get(), stride, false);
    float inverse[QUERIES];
    for (int r = 0; r < rows; r++) {
      float* row = scores.get() + r * stride;
      const int64_t visible = before + from + r + 1;
      const float peak = largest(row, visible), total = exponentials(row, visible, width, peak);
      inverse[r] = 1.0f / total;
      lse[(first + r) * s.H + h] = peak + std::log(total);
    }
    columns(rows, s.Vp(), seen, scores.get(), stride, 1, keys.values.get(), s.Vp(), result.get(), s.Vp(), false);
    for (int r = 0; r < rows; r++)
      for (int64_t i = 0; i < s.V; i++) out[((first + r) * s.H + h) * s.V + i] = result[r * s.Vp() + i] * inverse[r];
  }
};

struct Gradients {
  const float *out, *lse, *dout;
  float *dq, *dk, *dv, *dk_rope;  // dk_rope (N, G, R): each head's part, not turned back
};

struct Backward {
  const Shape& s;
  Keys keys;
  int64_t stride;
  Floats query, grad, prob, dprob, dquery, dkeys, dvalues;
  Backward(const Shape& shape, int64_t length)
      : s(shape),
        keys(shape, length, true),
        stride(padded(length, PANEL) + W),
        query(floats(QUERIES * s.Dp())),
        grad(floats(QUERIES * s.Vp())),
        prob(floats(QUERIES * stride)),
        dprob(floats(QUERIES * stride)),
        dquery(floats(QUERIES * s.Dp())),
        dkeys(floats(length * s.Dp())),
        dvalues(floats(length * s.Vp())) {}

  void block(const float* q, int64_t h, const Segment& segment, int64_t before, int64_t from, int rows, const Gradients& g) {
    const int64_t first = segment.first + from, seen = before + from + rows, width = padded(seen, PANEL);
    const int Dp = s.Dp(), Vp = s.Vp();
    for (int r = 0; r < rows; r++) {
      load_query(s, q, first + r, h, query.get() + r * Dp);
      std::memcpy(grad.get() + r * Vp, g.dout + ((first + r) * s.H + h) * s.V, s.V * sizeof(float));
    }
    for (int64_t n = first + rows; n < std::min(first + rows + QUERIES, segment.first + segment.count); n++) {
      fetch(q + (n * s.H + h) * s.D, s.D);
      fetch(g.dout + (n * s.H + h) * s.V, s.V);
      fetch(g.out + (n * s.H + h) * s.V, s.V);
    }
    const int panels = width / PANEL;
    product(rows, panels, s.D, query.get(), Dp, 1, keys.panels.get(), PANEL, s.D * PANEL, prob.get(), stride, false);
    product(rows, panels, s.V, grad.get(), Vp, 1, keys.value_panels.get(), PANEL, s.V * PANEL, dprob.get(), stride, false);
    for (int r = 0; r < rows; r++) {
      const int64_t visible = before + from + r + 1, at = (first + r) * s.H + h;
      float *p = prob.get() + r * stride, *d = dprob.get() + r * stride;
      exponentials(p, visible, width, g.lse[at]);
      const float delta = dot(g.out + at * s.V, grad.get() + r * Vp, s.V);  // sum of dout * out = sum of prob * dprob
      for (int64_t t = 0; t < visible; t += W) store(d + t, load(p + t) * (load(d + t) - delta));
      std::fill(d + visible, d + width, 0.0f);
    }
    columns(seen, Vp, rows, prob.get(), 1, stride, grad.get(), Vp, dvalues.get(), Vp, true);
    columns(seen, Dp, rows, dprob.get(), 1, stride, query.get(), Dp, dkeys.get(), Dp, true);
    columns(rows, Dp, seen, dprob.get(), stride, 1, keys.rows.get(), Dp, dquery.get(), Dp, false);
    for (int r = 0; r < rows; r++) {
      float* to = g.dq + ((first + r) * s.H + h) * s.D;
      float* from_row = dquery.get() + r * Dp;
      for (int64_t i = 0; i < s.D; i++) from_row[i] *= s.scale;
      std::memcpy(to, from_row, (s.D - s.R) * sizeof(float));
      turned(s, first + r, from_row + s.D - s.R, -1.0f, to + s.D - s.R);
    }
  }

  // The sums of a segment's keys and values, which are at `at`; they begin anew for the next one.
  void finish(int64_t head, const Segment& segment, int64_t at, const Gradients& g) {
    for (int64_t t = 0; t < segment.count; t++) {
      const int64_t n = segment.first + t, place = n * s.G + head;
      const float *key = dkeys.get() + (at + t) * s.Dp(), *value = dvalues.get() + (at + t) * s.Vp();
      float* dkey = g.dk + place * s.key_width();
      std::memcpy(dkey, key, (s.D - s.R) * sizeof(float));
      if (s.k_rope)
        std::memcpy(g.dk_rope + place * s.R, key + s.own(), s.R * sizeof(float));
      else
        turned(s, n, key + s.D - s.R, -1.0f, dkey + s.D - s.R);
      std::memcpy(s.k_rope ? dkey + s.own() : g.dv + place * s.V, value, s.V * sizeof(float));
    }
    std::fill_n(dkeys.get() + at * s.Dp(), segment.count * s.Dp(), 0.0f);
    std::fill_n(dvalues.get() + at * s.Vp(), segment.count * s.Vp(), 0.0f);
  }
};

}  // namespace

extern "C" void attention_forward(int64_t S, int64_t H, int64_t G, int64_t D, int64_t V, int64_t R, int64_t interleave,
                                  float scale, const int64_t* segments, const float* q, const float* k, const float* v,
                                  const float* k_rope, const float* cos, const float* sin, float* out, float* lse) {
  const Shape s{H, G, D, V, R, interleave, scale, cos, sin, k_rope};
  const std::vector<Family> families = families_of(S, segments);
  const int64_t length = longest(families);
#pragma omp parallel
  {
    Forward pass(s, length);
#pragma omp for collapse(2) schedule(dynamic)
    for (size_t f = 0; f < families.size(); f++)
      for (int64_t g = 0; g < G; g++)
        for (size_t i = 0; i < families[f].segments.size(); i++) {
          const Segment& segment = families[f].segments[i];
          const int64_t before = families[f].seen_before(i);
          pass.keys.add(k, v, g, segment, before);
          for (int64_t h = g * (H / G); h < (g + 1) * (H / G); h++)
            for (int64_t from = 0; from < segment.count; from += QUERIES)
              pass.block(q, h, segment, before, from, std::min<int64_t>(QUERIES, segment.count - from), out, lse);
        }
  }
}

extern "C" void attention_backward(int64_t S, int64_t H, int64_t G, int64_t D, int64_t V, int64_t R, int64_t interleave,
                                   float scale, const int64_t* segments, const float* q, const float* k, const float* v,
                                   const float* k_rope, const float* cos, const float* sin, const float* out,
                                   const float* lse, const float* dout, float* dq, float* dk, float* dv, float* dk_rope) {
  const Shape s{H, G, D, V, R, interleave, scale, cos, sin, k_rope};
  const std::vector<Family> families = families_of(S, segments);
  const int64_t length = longest(families);
  int64_t N = 0;
  for (int64_t i = 0; i < S; i++) N += segments[2 * i];
  const Floats parts = floats(k_rope ? N * G * R : 0);
  const Gradients gradients{out, lse, dout, dq, dk, dv, parts.get()};
#pragma omp parallel
  {
    Backward pass(s, length);
#pragma omp for collapse(2) schedule(dynamic)
    for (size_t f = 0; f < families.size(); f++)
      for (int64_t g = 0; g < G; g++) {
        const Family& family = families[f];
        for (size_t i = 0; i < family.segments.size(); i++) {
          const Segment& segment = family.segments[i];
          const int64_t before = family.seen_before(i);
          pass.keys.add(k, v, g, segment, before);
          for (int64_t h = g * (H / G); h < (g + 1) * (H / G); h++)
            for (int64_t from = 0; from < segment.count; from += QUERIES)
              pass.block(q, h, segment, before, from, std::min<int64_t>(QUERIES, segment.count - from), gradients);
          if (i) pass.finish(g, segment, before, gradients);
        }
        pass.finish(g, family.segments[0], 0, gradients);
      }
    if (k_rope) {
      std::vector<float> sum(R);
#pragma omp for schedule(static)
      for (int64_t n = 0; n < N; n++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t g = 0; g < G; g++)
          for (int64_t i = 0; i < R; i++) sum[i] += parts[(n * G + g) * R + i];
        turned(s, n, sum.data(), -1.0f, dk_rope + n * R);
      }
    }
  }
}
