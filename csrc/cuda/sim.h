// Runs CUDA C++ kernels on the host: the same kernel source compiles with nvcc and, after this header, with
// g++ -std=c++20. A running block is one OS thread, its CUDA threads are fibers that change places only where they
// wait for each other (and, in random order, at atomics and fences), so every run can be repeated exactly.
//
//   geoact::sim::launch(kernel<float>, grid, block, shared_bytes, arguments...);   // returns when all blocks are done
//
// It finds: a barrier that some threads of the block never reach, a shuffle or vote whose mask names a lane that has
// returned or never comes, a read of a lane outside the mask, launches no GPU would take, every deadlock (all of these
// throw std::runtime_error; the next launch works), missing barriers (the result changes with settings().order, and
// shared memory starts as NaN). With sanitizers: accesses out of bounds or misaligned, races in shared memory, races
// between blocks and most missing __threadfence.
//
// It cannot find: what depends on the numerics of approximate instructions (__expf, ex2.approx, flush to zero) or on
// contraction; most of the memory model, such as a missing volatile or a load from a stale L1; occupancy, registers,
// __launch_bounds__ (erased here) and other limits of a launch beside the sizes; what relies on lanes in lockstep; bank
// conflicts, coalescing, speed. A spin on plain memory hangs; one on atomics ends with an error after
// settings().timeout. A mistake inside a noexcept function ends the program.
//
// Kernels may use what is declared below; not cooperative groups, CUB, inline PTX or textures. __CUDA_ARCH__ is not
// defined. Shared memory:
//   GEOACT_DYNAMIC_SHARED(float, tile);   // float* tile; in CUDA an extern __shared__ array of bytes, cast
//   GEOACT_SHARED(float[32], partial);    // float (&partial)[32]; in CUDA __shared__ std::type_identity_t<type> name
//   __shared__ float partial[32];         // works, but starts with the last block's data, not with NaN, and is out of
//                                         // AddressSanitizer's sight
//
// Build with sim.cpp, both with the same flags: -std=c++20 -pthread and, for the variants,
//   -fsanitize=address,undefined                 out of bounds (exact also for both macros above), misaligned
//   -fsanitize=thread                            races between blocks, missing fences: needs 2 or more os_threads
//   -fsanitize=thread -DGEOACT_SIM_OS_THREADS    races within a block: CUDA threads are OS threads, one block at a time
// No other flag is needed. Fibers are changed by a few lines of assembly (x86-64 and AArch64 Linux), not by longjmp, so
// -U_FORTIFY_SOURCE is not asked for; nor is -fno-strict-aliasing, unless kernels break its rules. Include this header
// after the standard library's: __noinline__ is a macro here, and some of those headers use the word.
#pragma once

#if defined(__CUDACC__)
#error "sim.h stands in for CUDA: do not include it where nvcc compiles"
#endif

#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <type_traits>

#if defined(__SANITIZE_ADDRESS__)
#define GEOACT_SIM_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define GEOACT_SIM_TSAN 1
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GEOACT_SIM_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define GEOACT_SIM_TSAN 1
#endif
#endif

// --- words of the language ---------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#if defined(GEOACT_SIM_OS_THREADS)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif

#define GEOACT_DYNAMIC_SHARED(type, name) \
  auto* const name = static_cast<std::type_identity_t<type>*>(geoact::sim::dynamic_shared(alignof(type)))
#define GEOACT_SHARED(type, name) \
  static char name##_key;         \
  auto& name =                    \
      *static_cast<std::type_identity_t<type>*>(geoact::sim::static_shared(&name##_key, sizeof(type), alignof(type)))

// --- types -------------------------------------------------------------------------------------------------

#define GEOACT_SIM_VECTORS(scalar, base, align2, align4)                               \
  struct base##1 { scalar x; };                                                        \
  struct alignas(align2) base##2 { scalar x, y; };                                     \
  struct base##3 { scalar x, y, z; };                                                  \
  struct alignas(align4) base##4 { scalar x, y, z, w; };                               \
  constexpr base##1 make_##base##1(scalar x) { return {x}; }                           \
  constexpr base##2 make_##base##2(scalar x, scalar y) { return {x, y}; }              \
  constexpr base##3 make_##base##3(scalar x, scalar y, scalar z) { return {x, y, z}; } \
  constexpr base##4 make_##base##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
GEOACT_SIM_VECTORS(signed char, char, 2, 4)
GEOACT_SIM_VECTORS(unsigned char, uchar, 2, 4)
GEOACT_SIM_VECTORS(short, short, 4, 8)
GEOACT_SIM_VECTORS(unsigned short, ushort, 4, 8)
GEOACT_SIM_VECTORS(int, int, 8, 16)
GEOACT_SIM_VECTORS(unsigned, uint, 8, 16)
GEOACT_SIM_VECTORS(long long, longlong, 16, 16)
GEOACT_SIM_VECTORS(unsigned long long, ulonglong, 16, 16)
GEOACT_SIM_VECTORS(float, float, 8, 16)
GEOACT_SIM_VECTORS(double, double, 16, 16)
#undef GEOACT_SIM_VECTORS

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};

inline constinit thread_local uint3 threadIdx{}, blockIdx{};
inline constinit thread_local dim3 blockDim{}, gridDim{};
inline constexpr int warpSize = 32;

// --- launching ---------------------------------------------------------------------------------------------

namespace geoact::sim {

// Threads (and blocks) go first to last, last to first, or as they are drawn from a seed.
enum class Order { forward, reverse, random };

struct Settings {
  Order order = Order::forward;  // GEOACT_SIM_ORDER=forward|reverse|random:<seed>
  uint64_t seed = 0;
  int os_threads = 2;  // blocks that run at once; GEOACT_SIM_THREADS
  size_t shared_limit = 227 * 1024;
  double timeout = 300;                          // seconds a launch may spend before an atomic that spins is an error
  std::atomic<uint64_t> launches{0}, blocks{0};  // counted here, for tests that ask for one launch per call
};

// Read from the environment at first use; throws std::runtime_error if a variable has no meaning.
Settings& settings();

void* dynamic_shared(size_t alignment);
void* static_shared(const void* key, size_t size, size_t alignment);

// Named by variant: kernels and sim.cpp compiled for different ones do not link.
#if defined(GEOACT_SIM_OS_THREADS)
inline namespace os_threads {
#else
inline namespace fibers {
#endif

enum class Kind : uint8_t {
  none,
  shuffle,
  ballot,
  any,
  all,
  add,
  min_int,
  max_int,
  min_unsigned,
  max_unsigned,
  bit_and,
  bit_or,
  bit_xor,
  warp,
  block,
  block_count,
  block_and,
  block_or,
};

// Where the kernel calls. (std::source_location asks for clang 16.)
struct Site {
  const char* file;
  int line;
  static constexpr Site current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
  bool operator==(const Site& other) const { return line == other.line && std::string_view(file) == other.file; }
};

uint64_t meet_warp(Kind kind, unsigned mask, uint64_t payload, int source, const Site& site);
int meet_block(Kind kind, bool predicate, const Site& site);
unsigned present_lanes();
int lane();
void pass_atomic();  // where random order may let another thread go first
[[noreturn]] void trap(const Site& site);
void run(void (*body)(const void*), const void* context, dim3 grid, dim3 block, size_t shared_bytes);

}  // namespace

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "kernel parameters are copied byte by byte");
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  const Call call{kernel, {static_cast<Parameters>(std::forward<Arguments>(arguments))...}};
  run(
      [](const void* context) {
        const auto& call = *static_cast<const Call*>(context);
        std::apply(call.kernel, call.arguments);
      },
      &call, grid, block, shared_bytes);
}

template <class T>
concept Shuffled = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, long> ||
                   std::is_same_v<T, unsigned long> || std::is_same_v<T, long long> ||
                   std::is_same_v<T, unsigned long long> || std::is_same_v<T, float> || std::is_same_v<T, double>;

template <Shuffled T>
T shuffle(unsigned mask, T value, int source, const Site& site) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  return std::bit_cast<T>(static_cast<Bits>(meet_warp(Kind::shuffle, mask, std::bit_cast<Bits>(value), source, site)));
}

// An atomic of CUDA is relaxed: only fences order what surrounds it.
inline constexpr auto relaxed = std::memory_order_relaxed;

template <class T>
using Atomic = std::atomic_ref<T>;

template <class T, class Change>
T change(T* p, Change next) {
  pass_atomic();
  Atomic<T> cell(*p);
  T old = cell.load(relaxed);
  while (!cell.compare_exchange_weak(old, next(old), relaxed)) {
  }
  return old;
}

// ThreadSanitizer knows no fences, but a word that every fence changes orders the same: fence before fence.
inline void fence() {
  pass_atomic();
#if defined(GEOACT_SIM_TSAN)
  static std::atomic<int> fences;
  fences.fetch_add(1, std::memory_order_acq_rel);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

}  // namespace geoact::sim

// --- threads that wait for each other ----------------------------------------------------------------------

#define GEOACT_SIM_SITE const geoact::sim::Site& site = geoact::sim::Site::current()

inline void __syncthreads(GEOACT_SIM_SITE) { geoact::sim::meet_block(geoact::sim::Kind::block, false, site); }
inline int __syncthreads_count(int predicate, GEOACT_SIM_SITE) {
  return geoact::sim::meet_block(geoact::sim::Kind::block_count, predicate != 0, site);
}
inline int __syncthreads_and(int predicate, GEOACT_SIM_SITE) {
  return geoact::sim::meet_block(geoact::sim::Kind::block_and, predicate != 0, site);
}
inline int __syncthreads_or(int predicate, GEOACT_SIM_SITE) {
  return geoact::sim::meet_block(geoact::sim::Kind::block_or, predicate != 0, site);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, GEOACT_SIM_SITE) {
  geoact::sim::meet_warp(geoact::sim::Kind::warp, mask, 0, -1, site);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, GEOACT_SIM_SITE) {
  return unsigned(geoact::sim::meet_warp(geoact::sim::Kind::ballot, mask, predicate != 0, -1, site));
}
inline int __any_sync(unsigned mask, int predicate, GEOACT_SIM_SITE) {
  return int(geoact::sim::meet_warp(geoact::sim::Kind::any, mask, predicate != 0, -1, site));
}
inline int __all_sync(unsigned mask, int predicate, GEOACT_SIM_SITE) {
  return int(geoact::sim::meet_warp(geoact::sim::Kind::all, mask, predicate != 0, -1, site));
}
inline unsigned __activemask() { return geoact::sim::present_lanes(); }  // the lanes that have not returned

#define GEOACT_SIM_REDUCE(name, type, kind)                                                        \
  inline type name(unsigned mask, type value, GEOACT_SIM_SITE) {                                   \
    return type(geoact::sim::meet_warp(geoact::sim::Kind::kind, mask, uint32_t(value), -1, site)); \
  }
GEOACT_SIM_REDUCE(__reduce_add_sync, int, add)
GEOACT_SIM_REDUCE(__reduce_add_sync, unsigned, add)
GEOACT_SIM_REDUCE(__reduce_min_sync, int, min_int)
GEOACT_SIM_REDUCE(__reduce_min_sync, unsigned, min_unsigned)
GEOACT_SIM_REDUCE(__reduce_max_sync, int, max_int)
GEOACT_SIM_REDUCE(__reduce_max_sync, unsigned, max_unsigned)
GEOACT_SIM_REDUCE(__reduce_and_sync, unsigned, bit_and)
GEOACT_SIM_REDUCE(__reduce_or_sync, unsigned, bit_or)
GEOACT_SIM_REDUCE(__reduce_xor_sync, unsigned, bit_xor)
#undef GEOACT_SIM_REDUCE

template <geoact::sim::Shuffled T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, GEOACT_SIM_SITE) {
  const int first = geoact::sim::lane() & -width;
  return geoact::sim::shuffle(mask, value, first + (source & (width - 1)), site);
}
template <geoact::sim::Shuffled T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, GEOACT_SIM_SITE) {
  const int lane = geoact::sim::lane(), first = lane & -width;
  return geoact::sim::shuffle(mask, value, int64_t(lane) - delta < first ? lane : lane - int(delta), site);
}
template <geoact::sim::Shuffled T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, GEOACT_SIM_SITE) {
  const int lane = geoact::sim::lane(), last = lane | (width - 1);
  return geoact::sim::shuffle(mask, value, int64_t(lane) + delta > last ? lane : lane + int(delta), site);
}
template <geoact::sim::Shuffled T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, GEOACT_SIM_SITE) {
  const int lane = geoact::sim::lane(), source = lane ^ lanes;
  return geoact::sim::shuffle(mask, value, source > (lane | (width - 1)) ? lane : source, site);
}

// --- memory ------------------------------------------------------------------------------------------------

// Overloads of exactly CUDA's types: what compiles here compiles there.
#define GEOACT_SIM_FETCH(name, type, expression) \
  inline type name(type* p, type value) {        \
    geoact::sim::pass_atomic();                  \
    geoact::sim::Atomic<type> cell(*p);          \
    return expression;                           \
  }
#define GEOACT_SIM_INTEGERS(type)                                                                \
  GEOACT_SIM_FETCH(atomicAdd, type, cell.fetch_add(value, geoact::sim::relaxed))                 \
  GEOACT_SIM_FETCH(atomicAnd, type, cell.fetch_and(value, geoact::sim::relaxed))                 \
  GEOACT_SIM_FETCH(atomicOr, type, cell.fetch_or(value, geoact::sim::relaxed))                   \
  GEOACT_SIM_FETCH(atomicExch, type, cell.exchange(value, geoact::sim::relaxed))                 \
  inline type atomicMax(type* p, type value) {                                                   \
    return geoact::sim::change(p, [=](type old) { return old < value ? value : old; });          \
  }                                                                                              \
  inline type atomicMin(type* p, type value) {                                                   \
    return geoact::sim::change(p, [=](type old) { return value < old ? value : old; });          \
  }                                                                                              \
  inline type atomicCAS(type* p, type compare, type value) {                                     \
    geoact::sim::pass_atomic();                                                                  \
    geoact::sim::Atomic<type>(*p).compare_exchange_strong(compare, value, geoact::sim::relaxed); \
    return compare;                                                                              \
  }
GEOACT_SIM_INTEGERS(int)
GEOACT_SIM_INTEGERS(unsigned)
GEOACT_SIM_INTEGERS(unsigned long long)
GEOACT_SIM_FETCH(atomicSub, int, cell.fetch_sub(value, geoact::sim::relaxed))
GEOACT_SIM_FETCH(atomicSub, unsigned, cell.fetch_sub(value, geoact::sim::relaxed))
GEOACT_SIM_FETCH(atomicExch, float, cell.exchange(value, geoact::sim::relaxed))
#undef GEOACT_SIM_INTEGERS
#undef GEOACT_SIM_FETCH

inline unsigned atomicInc(unsigned* p, unsigned last) {
  return geoact::sim::change(p, [=](unsigned old) { return old >= last ? 0u : old + 1; });
}

inline void __threadfence() { geoact::sim::fence(); }
inline void __threadfence_block() { geoact::sim::fence(); }
inline void __threadfence_system() { geoact::sim::fence(); }

#define GEOACT_SIM_LOAD(name)          \
  template <class T>                   \
  __forceinline__ T name(const T* p) { \
    return *p;                         \
  }
GEOACT_SIM_LOAD(__ldg)
GEOACT_SIM_LOAD(__ldca)
GEOACT_SIM_LOAD(__ldcg)
GEOACT_SIM_LOAD(__ldcs)
GEOACT_SIM_LOAD(__ldlu)
GEOACT_SIM_LOAD(__ldcv)
#undef GEOACT_SIM_LOAD

#define GEOACT_SIM_STORE(name)                                     \
  template <class T>                                               \
  __forceinline__ void name(T* p, std::type_identity_t<T> value) { \
    *p = value;                                                    \
  }
GEOACT_SIM_STORE(__stwb)
GEOACT_SIM_STORE(__stcg)
GEOACT_SIM_STORE(__stcs)
GEOACT_SIM_STORE(__stwt)
#undef GEOACT_SIM_STORE

inline void __trap(GEOACT_SIM_SITE) { geoact::sim::trap(site); }
#undef GEOACT_SIM_SITE

// --- arithmetic that is exact on both sides (except __fdividef and __frcp, which are exact only here) --------

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
inline int __ffsll(long long x) { return x ? std::countr_zero(static_cast<unsigned long long>(x)) + 1 : 0; }
inline unsigned __brev(unsigned x) {
  unsigned y = 0;
  for (int i = 0; i < 32; ++i) y |= (x >> i & 1) << (31 - i);
  return y;
}
inline int __mulhi(int a, int b) { return int(int64_t(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ typedef unsigned __int128 Wide;
  return static_cast<unsigned long long>(Wide(a) * b >> 64);
}
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline int __double2hiint(double x) { return int(std::bit_cast<uint64_t>(x) >> 32); }
inline int __double2loint(double x) { return int(std::bit_cast<uint64_t>(x)); }
inline double __hiloint2double(int high, int low) {
  return std::bit_cast<double>(uint64_t(uint32_t(high)) << 32 | uint32_t(low));
}
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline double __ddiv_rn(double a, double b) { return a / b; }
