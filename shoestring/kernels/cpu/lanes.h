// Sixteen lanes, one for each output of a panel: integers and floats, in the widest vectors that this CPU has. The templates of
// packed.h are written with these alone, so that one text serves every width and is tested on any of them; lanes/
// has the same functions for each kind of CPU.
#pragma once
#include "vec.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define LANES_512
#include "lanes/avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define LANES_256
#include "lanes/avx2.h"
#elif defined(__aarch64__)
#define LANES_NEON
#include "lanes/neon.h"
#endif

#if defined(LANES_512) || defined(LANES_256)
inline uint16_t half_word(float x) { return _cvtss_sh(x, 0); }  // the nearest half-precision number
inline float half_value(uint16_t word) { return _cvtsh_ss(word); }
#endif
