// Does csrc/cuda/sim.h run kernels right, and does it catch what it claims to?
//
//   sim                 toy kernels in every order and with 1, 2 and 4 OS threads; misuse that must throw
//   sim cost            microseconds per block of 256 threads, 60 shuffles and 5 barriers
//   sim <bug>           runs one planted bug that only a sanitizer sees; see check_sim.sh
//
// Exit status 1: something is wrong.
#include "../../csrc/cuda/sim.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

namespace sim = geoact::sim;

constexpr unsigned full = 0xffffffffu;

static int failures = 0;

static void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

// --- kernels that are right --------------------------------------------------------------------------------

template <class T>
__device__ T warp_sum(T v) {
  for (int d = 16; d; d >>= 1) v += __shfl_xor_sync(full, v, d);
  return v;
}

// Block sums by shuffles and shared memory; the last block to finish adds them in order of their index.
template <class T, int threads>
__global__ __launch_bounds__(threads) void ordered_sum(const T* __restrict__ x, int n, T* partial, unsigned* ticket,
                                                       T* sum) {
  GEOACT_SHARED(T[32], of_warp);
  __shared__ bool last;
  T v = 0;
  for (int i = int(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += int(gridDim.x * blockDim.x)) v += __ldg(x + i);
  v = warp_sum(v);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = warp_sum(threadIdx.x < threads / 32 ? of_warp[threadIdx.x] : T(0));
    if (threadIdx.x == 0) {
      __stcg(partial + blockIdx.x, v);
      __threadfence();
      last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
    }
  }
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  __threadfence();
  T total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += __ldcg(partial + b);
  *sum = total;
}

// Inclusive sum over each block: within a warp by shuffles, over warps by dynamic shared memory.
__global__ void scan(const int* x, int* y) {
  GEOACT_DYNAMIC_SHARED(int, of_warp);
  const int lane = int(threadIdx.x % 32), warp = int(threadIdx.x / 32);
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  int v = x[i];
  for (int d = 1; d < 32; d *= 2) {
    const int below = __shfl_up_sync(full, v, d);
    if (lane >= d) v += below;
  }
  if (lane == 31) of_warp[warp] = v;
  __syncthreads();
  for (int w = 0; w < warp; ++w) v += of_warp[w];
  y[i] = v;
}

// Moves the positive values to the front, in order, by ballots; half-warps vote apart.
__global__ void votes(const int* x, int* y, int* count, unsigned* halves) {
  __shared__ int start[32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bool keep = x[threadIdx.x] > 0;
  const unsigned mine = __ballot_sync(full, keep);
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  halves[threadIdx.x] = __ballot_sync(half, keep) | unsigned(__any_sync(half, keep)) << 8 * (lane < 16 ? 3 : 0);
  if (lane == 0) start[warp] = __popc(mine);
  const int all = __syncthreads_count(keep);
  int before = __popc(mine & ((1u << lane) - 1));
  for (unsigned w = 0; w < warp; ++w) before += start[w];
  if (keep) y[before] = x[threadIdx.x];
  if (threadIdx.x == 0) *count = all;
}

// What every intrinsic returns, against a plain loop over the values of the warp.
__global__ void intrinsics(int* wrong) {
  const int lane = int(threadIdx.x % 32), v = (lane * 37 + 11) % 53 - 20;
  const auto of = [](int l) { return (l * 37 + 11) % 53 - 20; };
  int sum = 0, low = 100, high = -100;
  unsigned bits = 0, set = 0;
  for (int l = 0; l < 32; ++l) {
    sum += of(l), low = low < of(l) ? low : of(l), high = high > of(l) ? high : of(l);
    bits |= unsigned(of(l)), set ^= unsigned(of(l));
  }
  bool good = __reduce_add_sync(full, v) == sum && __reduce_min_sync(full, v) == low;
  good &= __reduce_max_sync(full, v) == high && __reduce_max_sync(full, unsigned(v)) >= unsigned(-20);
  good &= __reduce_or_sync(full, unsigned(v)) == bits && __reduce_xor_sync(full, unsigned(v)) == set;
  good &= __shfl_sync(full, v, 5) == of(5) && __shfl_sync(full, v, 37) == of(5);
  good &= __shfl_down_sync(full, v, 3) == (lane + 3 < 32 ? of(lane + 3) : v);
  good &= __shfl_up_sync(full, double(v), 7) == (lane >= 7 ? of(lane - 7) : v);
  good &= __shfl_sync(full, static_cast<long long>(v) << 40, 2, 8) == static_cast<long long>(of(lane / 8 * 8 + 2))
                                                                          << 40;
  good &= __shfl_down_sync(full, v, 3, 8) == (lane % 8 + 3 < 8 ? of(lane + 3) : v);
  good &= __shfl_xor_sync(full, float(v), 16) == float(of(lane ^ 16));
  good &= __all_sync(full, v >= low) && !__all_sync(full, v > low) && __any_sync(full, v == low);
  good &= __syncthreads_and(1) == 1 && __syncthreads_and(threadIdx.x) == 0 && __syncthreads_or(threadIdx.x == 9) == 1;
  good &= __activemask() == full && __clz(1) == 31 && __ffs(8) == 4 && __brev(1u) == 0x80000000u;
  good &= __umulhi(0x80000000u, 6) == 3 && __float_as_uint(1.0f) == 0x3f800000u;
  __syncwarp();
  if (!good) atomicAdd(wrong, 1);
  atomicMax(wrong + 1, int(threadIdx.x));
  atomicMin(wrong + 2, -int(threadIdx.x));
  atomicCAS(wrong + 3, 0, 7);
}

__global__ void indices(int* seen) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  atomicAdd(seen + block * (blockDim.x * blockDim.y * blockDim.z) + thread, 1);
}

__global__ void poisoned(int* finite) {
  GEOACT_DYNAMIC_SHARED(float, dynamic);
  GEOACT_SHARED(double, fixed);
  if (!std::isnan(dynamic[threadIdx.x]) || !std::isnan(fixed)) atomicAdd(finite, 1);
  __syncthreads();
  dynamic[threadIdx.x] = 1;
  if (threadIdx.x == 0) fixed = 1;
}

static void right(const std::string& how) {
  constexpr int n = 10000, blocks = 12;
  std::vector<float> x(n);
  for (int i = 0; i < n; ++i) x[size_t(i)] = float((i * 7919) % 1000) * 0.01f;
  float partial[blocks], sum = 0;
  unsigned ticket = 0;
  static float first = -1;  // bitwise the same in every order
  for (int repeat = 0; repeat < 2; ++repeat) {
    sim::launch(ordered_sum<float, 256>, blocks, 256, 0, x.data(), n, partial, &ticket, &sum);
    if (first < 0) first = sum;
    expect(sum == first && ticket == 0, how + "the ordered sum is " + std::to_string(sum));
  }
  expect(std::fabs(first - 49950) < 1, how + "the ordered sum is wrong");

  std::vector<int> in(3 * 128), out(in.size());
  for (size_t i = 0; i < in.size(); ++i) in[i] = int(i * 31 % 101) - 50;
  sim::launch(scan, 3, 128, 4 * sizeof(int), in.data(), out.data());
  for (size_t i = 0, total = 0; i < in.size(); ++i) {
    total = i % 128 ? total + size_t(in[i]) : size_t(in[i]);
    expect(out[i] == int(total), how + "scan at " + std::to_string(i));
  }

  int count = 0;
  unsigned halves[128];
  sim::launch(votes, 1, 128, 0, in.data(), out.data(), &count, halves);
  int kept = 0;
  for (size_t i = 0; i < 128; ++i)
    if (in[i] > 0) expect(out[size_t(kept++)] == in[i], how + "votes at " + std::to_string(i));
  expect(count == kept, how + "count of votes");

  int wrong[4] = {};
  sim::launch(intrinsics, 2, 64, 0, wrong);
  expect(wrong[0] == 0 && wrong[1] == 63 && wrong[2] == -63 && wrong[3] == 7, how + "intrinsics");

  int seen[24 * 42] = {};
  sim::launch(indices, dim3(2, 3, 4), dim3(7, 3, 2), 0, seen);
  for (int s : seen) expect(s == 1, how + "indices");

  int finite = 0;
  sim::launch(poisoned, 3, 64, 64 * sizeof(float), &finite);
  expect(finite == 0, how + "shared memory is not poisoned");
}

// --- misuse that must throw --------------------------------------------------------------------------------

__global__ void barrier_for_half() {
  if (threadIdx.x < 32) __syncthreads();
}
__global__ void barrier_after_return(int n) {
  if (int(threadIdx.x) >= n) return;
  __syncthreads();
}
__global__ void two_barriers() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
}
__global__ void kinds_of_barrier() {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads_or(1);
}
__global__ void shuffle_for_some() {
  if (threadIdx.x % 32 < 20) __shfl_down_sync(full, 1.0f, 1);
  __syncthreads();
}
__global__ void shuffle_after_return() {
  if (threadIdx.x == 3) return;
  __shfl_xor_sync(full, 1, 1);
}
__global__ void shuffle_or_ballot() {
  if (threadIdx.x % 2)
    __shfl_xor_sync(full, 1, 1);
  else
    __ballot_sync(full, 1);
}
__global__ void two_masks() { __syncwarp(threadIdx.x % 2 ? full : 0x7fffffffu); }
__global__ void mask_without_self() { __ballot_sync(0xffffu, 1); }
__global__ void reads_outside_mask() {
  if (threadIdx.x < 16) __shfl_xor_sync(0xffffu, 1, 16);
}
__global__ void waits_in_a_ring(int* got) {
  // lane 0 waits for 1, 1 for 2, 2 for 0: no two of them ever at the same place
  const unsigned lane = threadIdx.x;
  if (lane < 3) *got = int(__ballot_sync(1u << lane | 1u << (lane + 1) % 3, 1));
}
__global__ void asks_for_much() {
  GEOACT_SHARED(char[40 * 1024], many);
  many[threadIdx.x] = 1;
}
__global__ void asks_for_too_much() {
  GEOACT_SHARED(char[30 * 1024], some);
  GEOACT_SHARED(char[20 * 1024], more);
  some[threadIdx.x] = more[threadIdx.x];
}
__global__ void spins(unsigned* flag) {
  while (atomicAdd(flag, 0u) == 0) {
  }
}
__global__ void traps() { __trap(); }
__global__ void throws() { throw std::runtime_error("from a kernel"); }
__global__ void nothing() {}

static void must_throw(const char* words, const std::string& what, const std::function<void()>& call) {
  try {
    call();
  } catch (const std::runtime_error& e) {
    if (std::getenv("VERBOSE")) std::printf("%s: %s\n", what.c_str(), e.what());
    expect(std::strstr(e.what(), words), what + " says: " + e.what());
    return;
  }
  expect(false, what + " goes unseen");
}

static void misuse(const std::string& how) {
  const auto run = [&](const char* words, const char* name, void (*kernel)(), unsigned block, size_t shared = 0) {
    must_throw(words, how + name, [&] { sim::launch(kernel, 3, block, shared); });
  };
  run("__syncthreads", "a barrier for half the block", barrier_for_half, 64);
  must_throw("return", how + "a barrier after a return", [] { sim::launch(barrier_after_return, 1, 64, 0, 40); });
  run("another barrier", "two barriers", two_barriers, 64);
  run("another barrier", "two kinds of barrier", kinds_of_barrier, 64);
  run("deadlock", "a shuffle with lanes missing", shuffle_for_some, 64);
  run("return", "a shuffle after a return", shuffle_after_return, 32);
  run("waits for it", "a shuffle that meets a ballot", shuffle_or_ballot, 32);
  run("waits for it", "two masks", two_masks, 32);
  run("name the thread", "a mask without the thread", mask_without_self, 32);
  run("outside the mask", "a shuffle from outside the mask", reads_outside_mask, 32);
  run("does not exist", "a mask of lanes that are not there", shuffle_for_some, 16);
  run("limit", "all shared memory over the limit", asks_for_much, 32, 200 * 1024);
  run("49152", "static shared memory over its own limit", asks_for_too_much, 32);
  run("limit", "dynamic shared memory over the limit", nothing, 32, 227 * 1024 + 1);
  run("trapped", "a trap", traps, 32);
  run("from a kernel", "an exception", throws, 32);
  run("1024", "a block of 1025", nothing, 1025);
  run("1024", "an empty block", nothing, 0);
  int got = 0;
  must_throw("deadlock", how + "a ring", [&] { sim::launch(waits_in_a_ring, 1, 32, 0, &got); });
  must_throw("grid", how + "an empty grid", [] { sim::launch(nothing, 0, 32, 0); });
  must_throw("outside a kernel", how + "a barrier on the host", [] { __syncthreads(); });
  unsigned flag = 0;
  sim::settings().timeout = 0.05;
  must_throw("spins", how + "a spin", [&] { sim::launch(spins, 1, 32, 0, &flag); });
  sim::settings().timeout = 300;
}

// --- missing barriers: some order gives another result -----------------------------------------------------

// Each is right with `safe`, and lacks one barrier without.
__global__ void read_after_write(int* y, bool safe) {
  GEOACT_SHARED(int[128], tile);
  tile[threadIdx.x] = int(threadIdx.x);
  if (safe) __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x ^ 64];
}
__global__ void write_after_read(int* y, bool safe) {
  GEOACT_SHARED(int[4], of_warp);
  int sum = 0;
  for (int round = 0; round < 2; ++round) {
    const int v = warp_sum(int(threadIdx.x) * (round + 1));
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
    __syncthreads();
    for (int w = 0; w < 4; ++w) sum = sum * 3 + of_warp[w];
    if (safe) __syncthreads();
  }
  y[threadIdx.x] = sum;
}
__global__ void within_a_warp(int* y, bool safe) {
  GEOACT_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x] = int(threadIdx.x);
  if (safe) __syncwarp();
  y[threadIdx.x] = tile[threadIdx.x ^ 1];
}
__global__ void read_and_write_back(int* y, bool safe) {  // an atomic in between is a place where others may come first
  GEOACT_SHARED(int, sum);
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  const int old = sum;
  atomicAdd(y + 127, 0);
  if (safe)
    atomicAdd(&sum, 1);
  else
    sum = old + 1;
  __syncthreads();
  y[threadIdx.x] = sum;
}

struct Named {
  const char* name;
  sim::Order order;
  uint64_t seed;
};
static const Named orders[] = {{"forward, ", sim::Order::forward, 0},
                               {"reverse, ", sim::Order::reverse, 0},
                               {"random 1, ", sim::Order::random, 1},
                               {"random 2, ", sim::Order::random, 2},
                               {"random 3, ", sim::Order::random, 3}};

static void use(const Named& order) {
  sim::settings().order = order.order;
  sim::settings().seed = order.seed;
}

[[maybe_unused]] static void missing_barriers() {
  const std::pair<const char*, void (*)(int*, bool)> kernels[] = {{"read after write", read_after_write},
                                                                  {"write after read", write_after_read},
                                                                  {"within a warp", within_a_warp},
                                                                  {"read and write back", read_and_write_back}};
  for (const auto& [name, kernel] : kernels) {
    std::vector<int> truth(128), y(128);
    int seen = 0;
    for (const Named& order : orders) {
      use(order);
      y.assign(128, 0);
      sim::launch(kernel, 1, 128, 128 * sizeof(int), y.data(), true);
      if (&order == orders) truth = y;
      expect(y == truth, std::string(order.name) + name + " differs with its barrier");
      y.assign(128, 0);
      sim::launch(kernel, 1, 128, 128 * sizeof(int), y.data(), false);
      seen += y != truth;
      if (order.order == sim::Order::random)
        expect(y != truth, std::string(order.name) + "the missing barrier goes unseen: " + name);
    }
    std::printf("missing barrier, %s: wrong in %d of %zu orders\n", name, seen, std::size(orders));
  }
}

static void counters() {
  const uint64_t launches = sim::settings().launches, blocks = sim::settings().blocks;
  sim::launch(nothing, dim3(3, 2), 33, 0);
  expect(sim::settings().launches == launches + 1 && sim::settings().blocks == blocks + 6, "launches are counted");
}

// --- bugs for the sanitizers: the line each is found at carries its name -----------------------------------

__global__ void global_overflow(float* x, int n) {
  const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
  if (i <= n) x[i] += 1;  // BUG global
}
__global__ void dynamic_overflow() {
  GEOACT_DYNAMIC_SHARED(float, tile);
  tile[threadIdx.x + 1] = 1;  // BUG dynamic
}
__global__ void fixed_overflow(int n) {
  GEOACT_SHARED(float[64], tile);
  float* p = tile;
  p[int(threadIdx.x) + n] = 1;  // BUG fixed
}
__global__ void stack_overflow(float* x, int n) {
  float values[4] = {};
  for (int i = 0; i <= n; ++i) values[i] += x[i];  // BUG local
  x[threadIdx.x] = __shfl_xor_sync(full, values[threadIdx.x % 4], 1);
}
__global__ void misaligned(const float* x, float* y) {
  const float4 v = *reinterpret_cast<const float4*>(x + 1);  // BUG misaligned
  y[threadIdx.x] = v.x + v.w;
}
__global__ void misaligned_intrinsic(const float* x, float* y) {
  const float4 v = __ldcs(reinterpret_cast<const float4*>(x + 1));  // BUG misaligned-load
  y[threadIdx.x] = v.x + v.w;
}
__global__ void race(int* y) {
  GEOACT_SHARED(int[128], tile);
  tile[threadIdx.x] = __shfl_xor_sync(full, int(threadIdx.x), 1);  // BUG race
  __syncwarp();                                                    // a warp's own order must not hide the race
  y[threadIdx.x] = tile[threadIdx.x ^ 64];
}
__global__ void race_in_plain_shared(int* y) {
  __shared__ int tile[128];
  tile[threadIdx.x] = int(threadIdx.x);  // BUG race-plain
  y[threadIdx.x] = tile[threadIdx.x ^ 64];
}
__global__ void race_in_warp(int* y) {
  GEOACT_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x] = int(threadIdx.x);  // BUG race-warp
  y[threadIdx.x] = tile[threadIdx.x ^ 1];
}

// Blocks hand their partial results to the last one, which has to see them.
__global__ void missing_fence(int* partial, unsigned* ticket, int* sum, bool safe) {
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = 1;
  if (safe) __threadfence();
  if (atomicAdd(ticket, 1u) != gridDim.x - 1) return;
  if (safe) __threadfence();
  for (unsigned b = 0; b < gridDim.x; ++b) *sum += partial[b];  // BUG fence
}
__global__ void blocks_race(int* y) { y[threadIdx.x] = int(blockIdx.x); }  // BUG blocks

static bool plant(const std::string& bug) {
  std::vector<float> x(128), y(128);
  std::vector<int> z(128);
  if (bug == "global")
    sim::launch(global_overflow, 3, 64, 0, x.data(), int(x.size()));
  else if (bug == "dynamic")
    sim::launch(dynamic_overflow, 1, 64, 64 * sizeof(float));
  else if (bug == "fixed")
    sim::launch(fixed_overflow, 1, 64, 0, 1);
  else if (bug == "local")
    sim::launch(stack_overflow, 1, 32, 0, x.data(), 4);
  else if (bug == "misaligned")
    sim::launch(misaligned, 1, 32, 0, x.data(), y.data());
  else if (bug == "misaligned-load")
    sim::launch(misaligned_intrinsic, 1, 32, 0, x.data(), y.data());
  else if (bug == "race")
    sim::launch(race, 1, 128, 0, z.data());
  else if (bug == "race-plain")
    sim::launch(race_in_plain_shared, 1, 128, 0, z.data());
  else if (bug == "race-warp")
    sim::launch(race_in_warp, 1, 64, 64 * sizeof(int), z.data());
  else if (bug == "blocks")
    sim::launch(blocks_race, 64, 32, 0, z.data());
  else if (bug.starts_with("fence")) {
    unsigned ticket = 0;
    sim::launch(missing_fence, 64, 32, 0, z.data(), &ticket, z.data() + 64, bug == "fence-safe");
  } else
    return false;
  return true;
}

// --- cost --------------------------------------------------------------------------------------------------

__global__ void meets(float* y, int rounds) {
  GEOACT_SHARED(float[8], of_warp);
  float v = float(threadIdx.x);
  for (int r = 0; r < rounds; ++r) {
    for (int i = 0; i < 12; ++i) v += __shfl_xor_sync(full, v, 1 << i % 5);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = v;
    __syncthreads();
    v += of_warp[(threadIdx.x / 32 + r) % 8] * 1e-9f;
  }
  y[blockIdx.x * blockDim.x + threadIdx.x] = v;
}

static void cost() {
  constexpr unsigned blocks = 100;
  std::vector<float> y(blocks * 256);
  for (const int os_threads : {1, 2})
    for (const Named& order : {orders[0], orders[1], orders[2]}) {
      use(order);
      sim::settings().os_threads = os_threads;
      double best = 1e9;
      for (int repeat = 0; repeat < 5; ++repeat) {
        const auto start = std::chrono::steady_clock::now();
        sim::launch(meets, blocks, 256, 0, y.data(), 5);
        const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
        best = std::min(best, time.count() / blocks);
      }
      std::printf("%s%d OS threads: %.0f us per block\n", order.name, os_threads, best);
    }
}

int main(int argc, char** argv) try {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "cost") return cost(), 0;
  if (!what.empty()) return plant(what) ? 0 : (std::printf("no bug is called %s\n", what.c_str()), 2);
#if defined(GEOACT_SIM_TSAN)  // slow
  for (const int os_threads : {2})
    for (const Named& order : {orders[0], orders[2]}) {
#else
  for (const int os_threads : {1, 2, 4})
    for (const Named& order : orders) {
#endif
      use(order);
      sim::settings().os_threads = os_threads;
      const std::string how = order.name + std::to_string(os_threads) + " OS threads: ";
      right(how);
      misuse(how);
      right(how + "after misuse: ");
    }
#if !defined(GEOACT_SIM_OS_THREADS)  // there the order is the operating system's
  missing_barriers();
#endif
  counters();
  std::printf(failures ? "%d failures\n" : "all right\n", failures);
  return failures != 0;
} catch (const std::runtime_error& e) {
  std::printf("%s\n", e.what());
  return 3;
}
