// What a kernel is measured against and with: copies, kernels that read two streams and write one, that only read and
// that only write, a reader that empties the L2 cache, and the blocker that keeps a stream busy. Compiled at run time
// (NVRTC). The streaming variants tell the caches that nothing is used twice.

extern "C" {

__device__ unsigned long long nanoseconds() {
  unsigned long long t;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(t));
  return t;
}

// Holds the stream back until the host has queued everything that is timed and says so, or `longest` ns are over, and
// meanwhile counts clock cycles over at least `least` ns. Both ends are ticks of the timer, so that a coarse one costs no
// accuracy. report: cycles, nanoseconds, 1 if it was released.
__global__ void blocker(const volatile int* released, unsigned long long* report, unsigned long long least,
                        unsigned long long longest) {
  unsigned long long first = nanoseconds(), begin, now, end;
  do begin = nanoseconds();
  while (begin == first);
  const long long cycles = clock64();
  bool free = false;
  do {
    now = nanoseconds();
    if (now - begin >= least) free = *released != 0;
  } while (!free && now - begin < longest);
  now = nanoseconds();
  do end = nanoseconds();
  while (end == now);
  report[0] = clock64() - cycles;
  report[1] = end - begin;
  report[2] = free;
  __threadfence_system();
}

// Reading, not writing: lines that a memset left dirty would be written back during what is timed.
__global__ void flush(const uint4* data, size_t n, unsigned* sink) {
  unsigned seen = 0;
  for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
    const uint4 v = __ldcg(data + i);
    seen ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (seen) *sink = seen;  // the data are zeros: never, but the compiler does not know
}

// One block per 4 x blockDim vectors of 16 bytes, four loads in flight per thread.
__global__ void copy(const uint4* __restrict__ a, uint4* __restrict__ c, size_t n) {
  const size_t i = blockIdx.x * size_t(blockDim.x) * 4 + threadIdx.x;
  uint4 v[4];
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) v[k] = a[i + k * blockDim.x];
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) c[i + k * blockDim.x] = v[k];
}

__global__ void copy_streaming(const uint4* __restrict__ a, uint4* __restrict__ c, size_t n) {
  const size_t i = blockIdx.x * size_t(blockDim.x) * 4 + threadIdx.x;
  uint4 v[4];
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) v[k] = __ldcs(a + i + k * blockDim.x);
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) __stcs(c + i + k * blockDim.x, v[k]);
}

__device__ uint4 both(uint4 a, uint4 b) { return make_uint4(a.x ^ b.x, a.y ^ b.y, a.z ^ b.z, a.w ^ b.w); }

// c = a xor b: the traffic of a backward pass, whatever the dtype.
__global__ void merge(const uint4* __restrict__ a, const uint4* __restrict__ b, uint4* __restrict__ c, size_t n) {
  const size_t i = blockIdx.x * size_t(blockDim.x) * 4 + threadIdx.x;
  uint4 v[4], w[4];
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) v[k] = a[i + k * blockDim.x], w[k] = b[i + k * blockDim.x];
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) c[i + k * blockDim.x] = both(v[k], w[k]);
}

__global__ void merge_streaming(const uint4* __restrict__ a, const uint4* __restrict__ b, uint4* __restrict__ c,
                                size_t n) {
  const size_t i = blockIdx.x * size_t(blockDim.x) * 4 + threadIdx.x;
  uint4 v[4], w[4];
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) v[k] = __ldcs(a + i + k * blockDim.x), w[k] = __ldcs(b + i + k * blockDim.x);
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) __stcs(c + i + k * blockDim.x, both(v[k], w[k]));
}

__device__ unsigned folded(const uint4 (&v)[4]) {
  unsigned sum = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) sum += v[k].x + v[k].y + v[k].z + v[k].w;
  return sum;
}

// Only reads. hits counts the threads whose words add up to `wanted`, so every word must have been read to know it; a
// wanted beyond 32 bits, which no sum is and the compiler does not know, makes that a pass that writes nothing.
__global__ void read(const uint4* __restrict__ a, size_t n, unsigned long long wanted, unsigned* hits) {
  const size_t i = blockIdx.x * size_t(blockDim.x) * 4 + threadIdx.x;
  uint4 v[4] = {};
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) v[k] = a[i + k * blockDim.x];
  if (folded(v) == wanted) atomicAdd(hits, 1u);
}

__global__ void read_streaming(const uint4* __restrict__ a, size_t n, unsigned long long wanted, unsigned* hits) {
  const size_t i = blockIdx.x * size_t(blockDim.x) * 4 + threadIdx.x;
  uint4 v[4] = {};
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) v[k] = __ldcs(a + i + k * blockDim.x);
  if (folded(v) == wanted) atomicAdd(hits, 1u);
}

// Only writes: the byte 0x5a everywhere.
__global__ void fill(uint4* __restrict__ c, size_t n) {
  const size_t i = blockIdx.x * size_t(blockDim.x) * 4 + threadIdx.x;
  const uint4 v = make_uint4(0x5a5a5a5au, 0x5a5a5a5au, 0x5a5a5a5au, 0x5a5a5a5au);
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) c[i + k * blockDim.x] = v;
}

__global__ void fill_streaming(uint4* __restrict__ c, size_t n) {
  const size_t i = blockIdx.x * size_t(blockDim.x) * 4 + threadIdx.x;
  const uint4 v = make_uint4(0x5a5a5a5au, 0x5a5a5a5au, 0x5a5a5a5au, 0x5a5a5a5au);
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (i + k * blockDim.x < n) __stcs(c + i + k * blockDim.x, v);
}

}  // extern "C"
