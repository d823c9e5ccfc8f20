// Numbers that draw tokens: hashes of a seed and an index, by BLAKE2b (RFC 7693) with a digest of 8 bytes, eight at a time.
#include <algorithm>
#include <cstdint>

namespace {

constexpr int HASHES = 8;
typedef uint64_t words __attribute__((vector_size(HASHES * 8)));

constexpr uint64_t IV[8] = {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1,
                            0x510e527fade682d1, 0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179};
constexpr uint64_t PARAMETERS = 0x01010000 ^ 8;  // no key, no tree, a digest of 8 bytes
constexpr uint64_t MESSAGE_BYTES = 16;
constexpr int ROUNDS = 12;
// The places of the seed (word 0) and of the index (word 1) among the 16 words of each round; all other words are zero.
constexpr int SEED_AT[10] = {0, 10, 3, 13, 1, 4, 8, 9, 6, 15}, INDEX_AT[10] = {1, 8, 13, 3, 9, 14, 2, 5, 12, 6};

inline void turn(words& x, int right) { x = x >> right | x << (64 - right); }

inline void mix(words& a, words& b, words& c, words& d, const words& x, const words& y) {
  a += b + x, d ^= a, turn(d, 32);
  c += d, b ^= c, turn(b, 24);
  a += b + y, d ^= a, turn(d, 16);
  c += d, b ^= c, turn(b, 63);
}

inline words hashes(const words& seeds, const words& indices) {
  words v[16];
  for (int i = 0; i < 8; i++) v[i] = v[i + 8] = IV[i] - words{};
  v[0] ^= PARAMETERS, v[12] ^= MESSAGE_BYTES, v[14] = ~v[14];  // the last block
  const words first = v[0];
  for (int round = 0; round < ROUNDS; round++) {
    words m[16] = {};
    m[SEED_AT[round % 10]] = seeds, m[INDEX_AT[round % 10]] = indices;
    for (int i = 0; i < 4; i++) mix(v[i], v[4 + i], v[8 + i], v[12 + i], m[2 * i], m[2 * i + 1]);
    for (int i = 0; i < 4; i++)
      mix(v[i], v[4 + (i + 1) % 4], v[8 + (i + 2) % 4], v[12 + (i + 3) % 4], m[8 + 2 * i], m[9 + 2 * i]);
  }
  return first ^ v[0] ^ v[8];
}

}  // namespace

// numbers (N) in [0, 1)
extern "C" void uniform_numbers(int64_t N, const int64_t* seeds, const int64_t* indices, double* numbers) {
  for (int64_t n = 0; n < N; n += HASHES) {
    const int64_t count = std::min<int64_t>(HASHES, N - n);
    words seed = {}, index = {};
    for (int64_t i = 0; i < count; i++)
      seed[i] = static_cast<uint64_t>(seeds[n + i]), index[i] = static_cast<uint64_t>(indices[n + i]);
    const words hash = hashes(seed, index);
    for (int64_t i = 0; i < count; i++) numbers[n + i] = static_cast<double>(hash[i] >> 11) * 0x1p-53;
  }
}
