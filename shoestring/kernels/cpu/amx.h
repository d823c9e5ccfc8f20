// The matrix unit of CPUs with AMX, which the operating system has to allow.
#pragma once

#if defined(__AMX_INT8__) && defined(__AMX_TILE__) && defined(__AVX512F__) && defined(__AVX512BW__) && \
    defined(__AVX512VL__) && defined(__linux__)
#define AMX_INT8
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define AMX_BF16
#endif
#include <immintrin.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

inline bool amx_allowed() {  // the system is asked once
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;
  static const bool allowed = syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  return allowed;
}

struct WholeTiles {  // all eight in use, of 16 x 64 bytes
  WholeTiles() {
    struct {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shapes;
    _tile_loadconfig(&shapes);
  }
  ~WholeTiles() { _tile_release(); }
};
#endif
