// Do the kernels of python/geoact/bench/stream.cu move what they say, for whole and partial blocks? On the simulated
// device of csrc/cuda/sim.h. "stream_on_host.cu" is that file with its one line of PTX replaced by host_nanoseconds(),
// and in namespace kernels, because read is a function of the system.
//
// Exit status 1: something is wrong.
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../../csrc/cuda/sim.h"

namespace sim = geoact::sim;

// Time is counted in looks at it. The timer ticks in microseconds, as coarse as that of some devices.
static unsigned long long looks = 0;
inline unsigned long long host_nanoseconds() { return ++looks * 100 / 1000 * 1000; }
inline long long clock64() { return static_cast<long long>(looks * 300); }  // a clock of 3 GHz

#include "stream_on_host.cu"

using namespace kernels;
using Vectors = std::vector<uint4>;

static int failures = 0;

static void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED: %s\n", what.c_str());
}

static Vectors numbers(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  Vectors all(n);
  for (auto& v : all) v = {unsigned(random()), unsigned(random()), unsigned(random()), unsigned(random())};
  return all;
}

static bool same(const Vectors& a, const Vectors& b) { return std::memcmp(a.data(), b.data(), a.size() * 16) == 0; }

static unsigned blocks(size_t n) { return unsigned((n + 1023) / 1024); }

// The last vector of what is written is one too many: it must stay as it was.
template <class Kernel, class... Read>
static Vectors written(Kernel kernel, size_t n, const Read&... read) {
  Vectors out(n + 1, uint4{7, 7, 7, 7});
  sim::launch(kernel, blocks(n), 256, 0, read.data()..., out.data(), n);
  expect(out[n].x == 7 && out[n].w == 7, "a kernel writes beyond the end");
  out.pop_back();
  return out;
}

// Vectors whose words add up to 1, so that the sum of a thread says how many it has read.
template <class Kernel>
static void check_read(Kernel kernel, size_t n, const std::string& name) {
  Vectors a = numbers(n, 3);
  for (auto& v : a) v.w = 1u - v.x - v.y - v.z;
  size_t read = 0;
  for (unsigned long long wanted = 1; wanted <= 4; ++wanted) {
    unsigned hits = 0;
    sim::launch(kernel, blocks(n), 256, 0, a.data(), n, wanted, &hits);
    read += wanted * hits;
  }
  expect(read == n, name + " reads " + std::to_string(read) + " of " + std::to_string(n) + " vectors");
  unsigned hits = 0;
  sim::launch(kernel, blocks(n), 256, 0, a.data(), n, 1ull << 32, &hits);
  expect(hits == 0, name + " writes where no sum can be the one that is wanted");
}

static void check_blocker(int word, unsigned long long longest, bool whole) {
  const volatile int released = word;
  unsigned long long report[3] = {};
  const auto begin = looks;
  sim::launch(blocker, 1, 1, 0, &released, report, 50'000ull, longest);
  const auto took = (looks - begin) * 100;
  expect(report[2] == whole, "the blocker is wrong about having been released");
  expect(report[1] >= (whole ? 50'000 : longest) && report[1] <= took, "the blocker counts wrong nanoseconds");
  expect(took < (whole ? 55'000 : longest + 5'000), "the blocker does not end when it should");
  const double hertz = double(report[0]) / double(report[1]) * 1e9;
  expect(hertz > 2.97e9 && hertz < 3.03e9, "the blocker counts wrong cycles");
}

int main() {
  for (size_t n : {1, 255, 256, 257, 1023, 1024, 1025, 4096 + 300}) {
    const std::string size = " of " + std::to_string(n);
    const Vectors a = numbers(n, 1), b = numbers(n, 2);
    Vectors either(n);
    for (size_t i = 0; i < n; ++i) either[i] = {a[i].x ^ b[i].x, a[i].y ^ b[i].y, a[i].z ^ b[i].z, a[i].w ^ b[i].w};
    const uint4 byte{0x5a5a5a5a, 0x5a5a5a5a, 0x5a5a5a5a, 0x5a5a5a5a};
    expect(same(written(copy, n, a), a), "copy" + size);
    expect(same(written(copy_streaming, n, a), a), "copy_streaming" + size);
    expect(same(written(merge, n, a, b), either), "merge" + size);
    expect(same(written(merge_streaming, n, a, b), either), "merge_streaming" + size);
    expect(same(written(fill, n), Vectors(n, byte)), "fill" + size);
    expect(same(written(fill_streaming, n), Vectors(n, byte)), "fill_streaming" + size);
    check_read(kernels::read, n, "read");
    check_read(read_streaming, n, "read_streaming");
    // The flush: every vector is read by one thread of few, so the exclusive or of all sinks is that of all words.
    Vectors zeros(n, uint4{0, 0, 0, 0});
    unsigned sink = 99;
    sim::launch(flush, 2, 256, 0, zeros.data(), n, &sink);
    expect(sink == 99, "flush writes when it reads zeros");
    zeros[n - 1].z = 5;
    sim::launch(flush, 2, 256, 0, zeros.data(), n, &sink);
    expect(sink == 5, "flush does not read the last vector" + size);
  }
  check_blocker(1, 200'000'000, true);
  check_blocker(0, 2'000'000, false);
  std::printf(failures ? "%d checks failed\n" : "all is right\n", failures);
  return failures != 0;
}
