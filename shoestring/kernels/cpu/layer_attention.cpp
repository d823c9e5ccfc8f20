// The attention half of a layer on packed weights in one call: norm, projections, rotation, new entries of the cache, attention
// over pages, output, residual. A decoding step has hundreds of small operations, and calls from Python cost as much time.
#include "layer.h"

#ifdef PACKED_KERNELS
namespace {

struct Pages {  // slots: the places of each row's entries; the others are arguments of paged.cpp
  int64_t size, table_row;
  const int64_t* slots;
  const int32_t *tables, *sequences, *lengths;
};

struct Rotation {  // cos and sin (N, A) of each row's angles
  int64_t interleave;
  const float *cos, *sin;
};

struct LatentAttention {
  Norm norm;
  Matrix q_a;  // null if queries come from the hidden state directly
  Norm q_norm;
  Matrix q_b, kv_a;
  Norm kv_norm;
  Matrix up_key, up_value, out;
  float scale;
};

struct GroupedAttention {
  Norm norm;
  Matrix q, k, v, out;
  Norm q_norm, k_norm;  // of every head, before the rotation; null weights for none
  int64_t width;
  float scale;
};

// y (H, R) = the last R of each of one row's H heads, `head` wide, rotated
inline void rotate_row(const Rotation& rotation, int64_t n, int64_t H, int64_t head, int64_t R, const float* x, float* y) {
  const int64_t angles = n * (R / 2);
  for (int64_t h = 0; h < H; h++)
    rotate_head(R, R, rotation.interleave, 1.0f, x + (h + 1) * head - R, rotation.cos + angles, rotation.sin + angles, y + h * R);
}

// The last R of each head's D values, rotated: (N, H, R)
Floats rotated_ends(const Rotation& rotation, int64_t N, int64_t H, int64_t D, int64_t R, const float* q) {
  Floats rotated = floats(N * H * R);
#pragma omp parallel for schedule(static) if (N * H * R > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++) rotate_row(rotation, n, H, D, R, q + n * H * D, rotated.get() + n * H * R);
  return rotated;
}

// Each head's own matrix times the first `depth` values of its x (N, H, x_head): (N, H, outputs)
Floats product_of_heads(const Matrix& m, int64_t N, int64_t x_head, const float* x) {
  const int64_t H = m.stack;
  Floats y = floats(N * H * m.outputs);
  packed_linear(m.bits, H, N, m.depth, m.outputs, x, x_head, H * x_head, m.blocks, nullptr, y.get(), m.outputs, H * m.outputs);
  return y;
}

Floats latent_queries(const LatentAttention& w, int64_t N, const float* normed) {
  if (!w.q_a.blocks) return product_of(w.q_b, N, normed);
  const Floats small = product_of(w.q_a, N, normed);
  return product_of(w.q_b, N, normalized(w.q_norm, N, w.q_a.outputs, small.get()).get());
}

void store_latents(const LatentAttention& w, int64_t N, const float* normed, const Rotation& rotation, const Pages& pages,
                  float* latent, float* k_rope) {
  const int64_t width = w.kv_a.outputs, C = w.up_key.outputs, R = width - C;
  const Floats both = product_of(w.kv_a, N, normed);
#pragma omp parallel for schedule(static) if (N * width > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++) {
    const float* row = both.get() + n * width;
    float inverse;
    rms_norm_row(C, w.kv_norm.eps, row, w.kv_norm.weight, latent + pages.slots[n] * C, &inverse);
    rotate_row(rotation, n, 1, R, R, row + C, k_rope + pages.slots[n] * R);
  }
}

}  // namespace

// out (N, D) = x + attention(norm(x)). Each row's entries are written to its slot of latent (U, S, C) and k_rope (U, S, R).
extern "C" void latent_attention_layer(const LatentAttention* weights, int64_t N, int64_t page_size, int64_t table_row,
                                       int64_t interleave, const float* x, const float* cos, const float* sin, float* latent,
                                       float* k_rope, const int64_t* slots, const int32_t* tables, const int32_t* sequences,
                                       const int32_t* lengths, float* out) {
  const LatentAttention& w = *weights;
  const Pages pages{page_size, table_row, slots, tables, sequences, lengths};
  const Rotation rotation{interleave, cos, sin};
  const int64_t H = w.up_key.stack, C = w.up_key.outputs, P = w.up_key.depth, R = w.kv_a.outputs - C, D = w.out.outputs;
  const Floats normed = normalized(w.norm, N, D, x), q = latent_queries(w, N, normed.get());
  store_latents(w, N, normed.get(), rotation, pages, latent, k_rope);
  const Floats q_rope = rotated_ends(rotation, N, H, P + R, R, q.get());
  const Floats q_latent = product_of_heads(w.up_key, N, P + R, q.get());
  const Floats mix = floats(N * H * C);
  paged_latent(N, H, C, R, page_size, table_row, q_latent.get(), q_rope.get(), latent, k_rope, tables, sequences, lengths,
               w.scale, mix.get());
  multiply(w.out, N, product_of_heads(w.up_value, N, C, mix.get()).get(), out);
  add(N * D, x, out, out);
}

// A projection of N rows, and every head of it normalized if there is a norm: (N, heads, width)
static Floats heads_of(const Matrix& m, const Norm& norm, int64_t N, int64_t width, const float* x) {
  Floats y = product_of(m, N, x);
  return norm.weight ? normalized(norm, N * (m.outputs / width), width, y.get()) : std::move(y);
}

// The same for grouped queries; keys and values (U, S, G, width).
extern "C" void grouped_attention_layer(const GroupedAttention* weights, int64_t N, int64_t page_size, int64_t table_row,
                                        int64_t interleave, const float* x, const float* cos, const float* sin, float* key,
                                        float* value, const int64_t* slots, const int32_t* tables, const int32_t* sequences,
                                        const int32_t* lengths, float* out) {
  const GroupedAttention& w = *weights;
  const Rotation rotation{interleave, cos, sin};
  const int64_t width = w.width, H = w.q.outputs / width, G = w.k.outputs / width, D = w.out.outputs, entry = G * width;
  const Floats normed = normalized(w.norm, N, D, x), k = heads_of(w.k, w.k_norm, N, width, normed.get());
  const Floats v = product_of(w.v, N, normed.get());
#pragma omp parallel for schedule(static) if (N * entry > WORTH_THREADS)
  for (int64_t n = 0; n < N; n++) {
    rotate_row(rotation, n, G, width, width, k.get() + n * entry, key + slots[n] * entry);
    std::memcpy(value + slots[n] * entry, v.get() + n * entry, entry * sizeof(float));
  }
  const Floats q = rotated_ends(rotation, N, H, width, width, heads_of(w.q, w.q_norm, N, width, normed.get()).get());
  const Floats mix = floats(N * H * width);
  paged_heads(N, H, G, width, width, page_size, table_row, q.get(), key, value, tables, sequences, lengths, w.scale,
              mix.get());
  multiply(w.out, N, mix.get(), out);
  add(N * D, x, out, out);
}
#endif
