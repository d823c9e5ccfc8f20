// The sixteen lanes of lanes.h in vectors of 128 bits, four of them: NEON, which every 64-bit ARM has.
#pragma once
#include <arm_neon.h>

struct Ints {
  int32x4_t quarter[4];
};
struct Bytes {
  int8x16_t quarter[4];
};
struct Lanes {
  float32x4_t quarter[4];
};

template <class To, class Function>
inline To quarters_of(const Function& quarter) {
  return {{quarter(0), quarter(1), quarter(2), quarter(3)}};
}

inline Ints no_ints() {
  return quarters_of<Ints>([](int) { return vdupq_n_s32(0); });
}
inline Lanes splat_lanes(float x) {
  return quarters_of<Lanes>([&](int) { return vdupq_n_f32(x); });
}
inline Lanes no_lanes() { return splat_lanes(0); }
inline Lanes load_lanes(const float* p) {
  return quarters_of<Lanes>([&](int i) { return vld1q_f32(p + 4 * i); });
}
inline void store_lanes(float* p, Lanes x) {
  for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, x.quarter[i]);
}
inline Lanes multiply(Lanes a, Lanes b) {
  return quarters_of<Lanes>([&](int i) { return vmulq_f32(a.quarter[i], b.quarter[i]); });
}
inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) {
  return quarters_of<Lanes>([&](int i) { return vfmaq_f32(c.quarter[i], a.quarter[i], b.quarter[i]); });
}
inline Lanes to_lanes(Ints x) {
  return quarters_of<Lanes>([&](int i) { return vcvtq_f32_s32(x.quarter[i]); });
}
inline Lanes magnitude(Lanes x) {
  return quarters_of<Lanes>([&](int i) { return vabsq_f32(x.quarter[i]); });
}
inline Lanes larger(Lanes a, Lanes b) {
  return quarters_of<Lanes>([&](int i) { return vmaxq_f32(a.quarter[i], b.quarter[i]); });
}
inline float largest_lane(Lanes x) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(x.quarter[0], x.quarter[1]), vmaxq_f32(x.quarter[2], x.quarter[3])));
}
inline float lanes_total(Lanes x) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(x.quarter[0], x.quarter[1]), vaddq_f32(x.quarter[2], x.quarter[3])));
}
inline Ints nearest(Lanes x) {
  return quarters_of<Ints>([&](int i) { return vcvtnq_s32_f32(x.quarter[i]); });
}
inline int32_t ints_total(Ints x) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(x.quarter[0], x.quarter[1]), vaddq_s32(x.quarter[2], x.quarter[3])));
}
inline int16x8_t eight_words(Ints x, int half) {
  return vcombine_s16(vmovn_s32(x.quarter[2 * half]), vmovn_s32(x.quarter[2 * half + 1]));
}
inline void store_words(void* p, Ints x) {
  for (int half = 0; half < 2; half++) vst1q_s16(static_cast<int16_t*>(p) + 8 * half, eight_words(x, half));
}
inline void store_bytes(void* p, Ints x) {
  vst1q_s8(static_cast<int8_t*>(p), vcombine_s8(vmovn_s16(eight_words(x, 0)), vmovn_s16(eight_words(x, 1))));
}
inline Bytes four_bytes(const void* p) {
  int32_t four;
  std::memcpy(&four, p, 4);
  return quarters_of<Bytes>([&](int) { return vreinterpretq_s8_s32(vdupq_n_s32(four)); });
}

inline Bytes load4(const uint8_t* block, int c) {
  const int8_t* p = reinterpret_cast<const int8_t*>(block) + 32 * c;
  return quarters_of<Bytes>([&](int i) { return vld1q_s8(p + i / 2 * 128 + i % 2 * 16); });
}
inline Bytes low4(Bytes x) {
  return quarters_of<Bytes>([&](int i) { return vandq_s8(x.quarter[i], vdupq_n_s8(15)); });
}
inline Bytes high4(Bytes x) {
  return quarters_of<Bytes>([&](int i) {
    return vreinterpretq_s8_u8(vshrq_n_u8(vreinterpretq_u8_s8(x.quarter[i]), 4));
  });
}
// Unlike wider vectors, these have input 2c of all outputs in their first half and input 2c + 1 in the second: a product with
// one word of an activation widens while it adds.
inline Bytes load8(const uint8_t* block, int c) {
  const int8x16x2_t pair = vld2q_s8(reinterpret_cast<const int8_t*>(block) + 32 * c);
  return quarters_of<Bytes>([&](int i) {
    const int8x16_t input = pair.val[i / 2];
    return vreinterpretq_s8_s16(vmovl_s8(i % 2 ? vget_high_s8(input) : vget_low_s8(input)));
  });
}
inline uint16x4_t four_words(const uint8_t* p, int i) { return vld1_u16(reinterpret_cast<const uint16_t*>(p) + 4 * i); }
inline Ints words(const uint8_t* p) {
  return quarters_of<Ints>([&](int i) { return vreinterpretq_s32_u32(vmovl_u16(four_words(p, i))); });
}
inline Lanes halves(const uint8_t* p) {
  return quarters_of<Lanes>([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(four_words(p, i))); });
}
inline Lanes scale_of(Ints word, int least) {
  return quarters_of<Lanes>([&](int i) {
    return vreinterpretq_f32_s32(vaddq_s32(vshlq_n_s32(word.quarter[i], 12), vdupq_n_s32(least)));
  });
}
inline Lanes zero_of(Ints word) {
  return to_lanes(quarters_of<Ints>([&](int i) { return vandq_s32(word.quarter[i], vdupq_n_s32(63)); }));
}

inline Ints dot4(Ints sum, Bytes u, Bytes x) {
  return quarters_of<Ints>([&](int i) {
#if defined(__ARM_FEATURE_DOTPROD)
    return vdotq_s32(sum.quarter[i], u.quarter[i], x.quarter[i]);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(u.quarter[i]), vget_low_s8(x.quarter[i]));
    const int16x8_t high = vmull_high_s8(u.quarter[i], x.quarter[i]);
    return vpadalq_s16(sum.quarter[i], vpaddq_s16(low, high));
#endif
  });
}
inline Ints whole4(Ints sum) { return sum; }
inline Ints dot8(Ints sum, Bytes w, Bytes x) {
  const int16x4_t pair = vget_low_s16(vreinterpretq_s16_s8(x.quarter[0]));
  return quarters_of<Ints>([&](int i) {
    const int16x8_t even = vreinterpretq_s16_s8(w.quarter[i / 2]), odd = vreinterpretq_s16_s8(w.quarter[2 + i / 2]);
    const int16x4_t first = i % 2 ? vget_high_s16(even) : vget_low_s16(even);
    const int16x4_t second = i % 2 ? vget_high_s16(odd) : vget_low_s16(odd);
    return vmlal_lane_s16(vmlal_lane_s16(sum.quarter[i], first, pair, 0), second, pair, 1);
  });
}
inline void hold(Ints& x) {
  asm("" : "+w"(x.quarter[0]), "+w"(x.quarter[1]), "+w"(x.quarter[2]), "+w"(x.quarter[3]));
}

inline uint16_t half_word(float x) {
  const __fp16 half = static_cast<__fp16>(x);
  uint16_t word;
  std::memcpy(&word, &half, 2);
  return word;
}
inline float half_value(uint16_t word) {
  __fp16 half;
  std::memcpy(&half, &word, 2);
  return static_cast<float>(half);
}
