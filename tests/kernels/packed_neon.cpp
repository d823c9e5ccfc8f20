// Packed products on another kind of CPU: packed_neon CASES RESULTS packs and multiplies what a file has, compares with plain
// loops, and writes packed weights and products for the caller to compare with its own. A case is five numbers of 64 bits (bits,
// rows, inputs, outputs, 0), then the floats of x and of the weight.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

extern "C" int64_t pack_weights(int64_t bits, int64_t F, int64_t D, const float* w, uint8_t* packed);
extern "C" void packed_linear(int64_t bits, int64_t stack, int64_t N, int64_t D, int64_t F, const float* x, int64_t x_batch,
                              int64_t x_row, const uint8_t* weights, const float* bias, float* y, int64_t y_batch,
                              int64_t y_row);

namespace {

int64_t block_bytes(int64_t bits) { return bits == 32 ? 2048 : 64 * bits + 32; }

struct Group {  // 32 activations as integers
  int q[32];
  float scale, quarter;
  Group(const float* x, float limit) {
    float most = 0;
    int sum = 0;
    for (int i = 0; i < 32; i++) most = std::fmax(most, std::fabs(x[i]));
    const float inverse = most > 0 ? limit / most : 0;
    for (int i = 0; i < 32; i++) sum += q[i] = static_cast<int>(std::nearbyint(x[i] * inverse));
    scale = most / limit, quarter = -0.25f * static_cast<float>(sum);
  }
};

uint16_t word_of(const uint8_t* block, int64_t bits, int output) {
  uint16_t word;
  std::memcpy(&word, block + block_bytes(bits) - 32 + 2 * output, 2);
  return word;
}

// What packed.h says of one output and a group of 32 inputs, added to the total.
float plus4(float total, const uint8_t* block, int output, const float* x) {
  const Group a(x, 127);
  int sum = 0;
  for (int i = 0; i < 32; i++) {
    const uint8_t both = block[output / 8 * 128 + i / 8 * 32 + output % 8 * 4 + i % 4];
    sum += a.q[i] * (i % 8 < 4 ? both & 15 : both >> 4);
  }
  const uint16_t word = word_of(block, 4, output);
  const int32_t scale_bits = (word << 12) + (106 << 23);
  float scale;
  std::memcpy(&scale, &scale_bits, 4);
  const float whole = std::fmaf(static_cast<float>(word & 63), a.quarter, static_cast<float>(sum));
  return std::fmaf(whole, scale * a.scale, total);
}
float plus8(float total, const uint8_t* block, int output, const float* x) {
  const Group a(x, 32767);
  int sum = 0;
  for (int i = 0; i < 32; i++) sum += a.q[i] * reinterpret_cast<const int8_t*>(block)[i / 2 * 32 + output * 2 + i % 2];
  __fp16 scale;
  const uint16_t word = word_of(block, 8, output);
  std::memcpy(&scale, &word, 2);
  return std::fmaf(static_cast<float>(sum), static_cast<float>(scale) * a.scale, total);
}
float plus32(float total, const uint8_t* block, int output, const float* x) {
  const float* w = reinterpret_cast<const float*>(block);
  for (int i = 0; i < 32; i++) total = std::fmaf(x[i], w[i * 16 + output], total);
  return total;
}

float plain(int64_t bits, int64_t groups, const uint8_t* packed, int64_t output, const float* x) {
  float total = 0;
  for (int64_t g = 0; g < groups; g++) {
    const uint8_t* block = packed + (output / 16 * groups + g) * block_bytes(bits);
    const auto plus = bits == 4 ? plus4 : bits == 8 ? plus8 : plus32;
    total = plus(total, block, static_cast<int>(output % 16), x + 32 * g);
  }
  return total;
}

}  // namespace

int main(int, char** arguments) {
  FILE *in = std::fopen(arguments[1], "rb"), *out = std::fopen(arguments[2], "wb");
  if (!in || !out) return 2;
  int64_t size[5], wrong = 0;
  while (std::fread(size, 8, 5, in) == 5) {
    const int64_t bits = size[0], rows = size[1], depth = size[2], outputs = size[3];
    std::vector<float> x(rows * depth), w(outputs * depth), y(rows * outputs);
    if (std::fread(x.data(), 4, x.size(), in) != x.size() || std::fread(w.data(), 4, w.size(), in) != w.size()) return 2;
    std::vector<uint8_t> packed((outputs + 15) / 16 * (depth / 32) * block_bytes(bits));
    if (!pack_weights(bits, outputs, depth, w.data(), packed.data())) return 2;
    packed_linear(bits, 1, rows, depth, outputs, x.data(), 0, depth, packed.data(), nullptr, y.data(), 0, outputs);
    for (int64_t i = 0; i < rows * outputs; i++)
      wrong += y[i] != plain(bits, depth / 32, packed.data(), i % outputs, x.data() + i / outputs * depth);
    std::fwrite(packed.data(), 1, packed.size(), out), std::fwrite(y.data(), 4, y.size(), out);
  }
  std::fclose(out);
  std::printf("%lld products differ from plain loops\n", static_cast<long long>(wrong));
  return wrong != 0;
}
