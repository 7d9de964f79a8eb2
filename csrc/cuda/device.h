// The language kernels are written in: CUDA C++ where nvcc compiles, the simulation of it (sim.h) elsewhere. Everything
// that has two spellings is here, and nothing else asks which of the two it is.
#pragma once

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define GEOACT_DYNAMIC_SHARED(type, name)                         \
  extern __shared__ __align__(16) unsigned char geoact_shared_[]; \
  auto* const name = reinterpret_cast<type*>(geoact_shared_)

// The same value, of which the compiler knows nothing: what depends on it cannot be computed earlier and kept.
__device__ __forceinline__ int computed_here(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

#else

#include "sim.h"

inline int computed_here(int v) { return v; }

#endif
