// The feed-forward half of a layer on packed weights in one call: norm, router, routed and shared experts, residual.
#include "layer.h"

#ifdef PACKED_KERNELS
#include <numeric>
#include <vector>

namespace {

struct Router {
  const float *weight, *bias;  // (E, D), and the balance bias (E) or null
  int64_t experts, per_token, groups, top_groups, softmax, normalize;
  float scaling;
};

struct Experts {  // count is 0 for experts that the layer does not have
  const uint8_t *gate_up, *down;
  int64_t bits, count, width;
};

struct FeedForward {
  Norm norm;
  int64_t hidden;
  Router router;
  Experts experts, shared_expert;
};

// Puts the indices of the `top` largest of `count` values first, the largest first. NaN is larger than any number; among equal
// values the lower index comes first.
inline void largest_first(const float* values, int64_t count, int64_t top, int32_t* order) {
  const auto larger = [](float a, float b) { return a > b || (a != a && b == b); };
  std::iota(order, order + count, 0);
  std::partial_sort(order, order + top, order + count, [&](int32_t a, int32_t b) {
    return larger(values[a], values[b]) || (!larger(values[b], values[a]) && a < b);
  });
}

// Computed in double precision and then rounded, so that the result is the same with any library's exp.
inline void affinities(const Router& r, const float* logits, double* wide, float* scores) {
  if (!r.softmax) {
    for (int64_t e = 0; e < r.experts; e++) scores[e] = static_cast<float>(1 / (1 + std::exp(-static_cast<double>(logits[e]))));
    return;
  }
  double most = logits[0], total = 0;
  for (int64_t e = 1; e < r.experts; e++) most = std::max<double>(most, logits[e]);
  for (int64_t e = 0; e < r.experts; e++) total += wide[e] = std::exp(logits[e] - most);
  for (int64_t e = 0; e < r.experts; e++) scores[e] = static_cast<float>(wide[e] / total);
}

// Removes all but the best groups from the choice. A group is worth its best expert (V2), or with a bias its best two (V3).
inline void limit_groups(const Router& r, float* choice, float* worth, int32_t* order) {
  const int64_t size = r.experts / r.groups;
  for (int64_t g = 0; g < r.groups; g++) {
    const float* group = choice + g * size;
    largest_first(group, size, r.bias ? 2 : 1, order);
    worth[g] = r.bias ? group[order[0]] + group[order[1]] : group[order[0]];
  }
  largest_first(worth, r.groups, r.top_groups, order);
  for (int64_t i = r.top_groups; i < r.groups; i++)
    std::fill_n(choice + order[i] * size, size, r.bias ? -INFINITY : 0.0f);  // biased scores may be negative
}

struct RouterScratch {
  std::vector<float> choice, worth;
  std::vector<double> wide;
  std::vector<int32_t> order;
  explicit RouterScratch(const Router& r) : choice(r.experts), worth(r.groups), wide(r.experts), order(r.experts) {}
};

void route_row(const Router& r, const float* logits, int64_t* experts, float* gates, float* scores, RouterScratch& to) {
  affinities(r, logits, to.wide.data(), scores);
  for (int64_t e = 0; e < r.experts; e++) to.choice[e] = r.bias ? scores[e] + r.bias[e] : scores[e];
  if (r.top_groups < r.groups) limit_groups(r, to.choice.data(), to.worth.data(), to.order.data());
  largest_first(to.choice.data(), r.experts, r.per_token, to.order.data());
  double total = 0;
  for (int64_t k = 0; k < r.per_token; k++) total += gates[k] = scores[experts[k] = to.order[k]];
  for (int64_t k = 0; k < r.per_token; k++)
    gates[k] = (r.normalize ? gates[k] / (static_cast<float>(total) + 1e-20f) : gates[k]) * r.scaling;
}

}  // namespace

// From logits (N, E): experts and gates (N, K), the likeliest first, and the scores of all experts (N, E).
extern "C" void route(const Router* router, int64_t N, const float* logits, int64_t* experts, float* gates, float* scores) {
  const int64_t E = router->experts, K = router->per_token;
#pragma omp parallel if (N * E > WORTH_THREADS / 16)
  {
    RouterScratch scratch(*router);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < N; n++)
      route_row(*router, logits + n * E, experts + n * K, gates + n * K, scores + n * E, scratch);
  }
}

// out (N, D) = x + experts(norm(x)). Without a router, experts, gates and scores may be null.
extern "C" void feed_forward_layer(const FeedForward* weights, int64_t N, const float* x, int64_t* experts, float* gates,
                                   float* scores, float* out) {
  const FeedForward& w = *weights;
  const int64_t D = w.hidden, E = w.experts.count;
  const Floats normed = normalized(w.norm, N, D, x);
  if (E) {
    const Floats logits = floats(N * E);
    linear_rows(0, 1, nullptr, N, D, E, normed.get(), 0, D, w.router.weight, nullptr, logits.get(), 0, E);
    route(&w.router, N, logits.get(), experts, gates, scores);
    packed_experts(w.experts.bits, N, w.router.per_token, D, w.experts.width, E, normed.get(), experts, gates,
                   w.experts.gate_up, w.experts.down, out);
  }
  if (w.shared_expert.count) {
    const std::vector<int64_t> first(N, 0);
    const std::vector<float> ones(N, 1.0f);
    const Floats beside = floats(E ? N * D : 0);
    float* y = E ? beside.get() : out;
    packed_experts(w.shared_expert.bits, N, 1, D, w.shared_expert.width, 1, normed.get(), first.data(), ones.data(),
                   w.shared_expert.gate_up, w.shared_expert.down, y);
    if (E) add(N * D, out, y, out);
  }
  add(N * D, x, out, out);
}
#endif
