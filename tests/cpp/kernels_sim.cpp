// The CUDA kernels on the simulated device, on memory of exactly the size they may touch: y against the same formula on
// the host, counts exactly, moments against float64; the tiers' launches and the mask's beside them. check_sim.sh
// builds it plain, with AddressSanitizer and UndefinedBehaviorSanitizer, and with one OS thread per CUDA thread and
// ThreadSanitizer.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "../../csrc/cuda/launch.h"
#include "../../csrc/cuda/mask_launch.h"
#include "../../csrc/cuda/observe_launch.h"
#include "../../csrc/cuda/runtime.h"
#define GEOACT_ISA scalar
#include "../../csrc/ops/activations.h"
#include "../../csrc/ops/statistics.h"
#include "../../csrc/ops/tiers.h"

using namespace geoact;
using scalar::Geometry;
using scalar::Gradient;

namespace {

int failures = 0;

void expect(bool ok, const char* what, const char* where) {
  if (ok) return;
  ++failures;
  std::printf("FAILED %s: %s\n", where, what);
}

bool close(double a, double b, double scale) { return std::abs(a - b) <= 1e-6 * std::max(std::abs(b), scale); }

struct Shape {
  const char* name;
  std::vector<int64_t> size;
  int channel;     // axis of the groups, or -1 for one record
  int64_t pad;     // elements between two rows of the last axis
  int64_t offset;  // elements from an aligned address
  bool in_place = false;
};

// As many groups as the axis has, or one.
template <class A>
void run_case(const Shape& shape, int activation, std::mt19937& random) {
  const int rank = int(shape.size.size());
  int64_t total = 1, last = shape.size.back(), rows = 1;
  for (const int64_t n : shape.size) total *= n;
  if (last > 0) rows = total / last;
  const int64_t pitch = last + shape.pad, extent = shape.offset + (rows - 1) * pitch + last;
  // On the heap, to the element: a sanitizer sees the first step too far.
  const auto memory = [&](int64_t n) {
    return std::unique_ptr<float, decltype(&std::free)>(
        static_cast<float*>(std::aligned_alloc(16, size_t((n * 4 + 15) / 16 * 16))), &std::free);
  };
  auto x = memory(extent), y = memory(extent);
  std::normal_distribution<float> normal(0.5f, 2.f);
  for (int64_t i = 0; i < extent; ++i) x.get()[i] = normal(random), y.get()[i] = -77.f;
  if (total > 40) x.get()[shape.offset + 3] = NAN, x.get()[shape.offset + 30] = INFINITY;

  cuda::Request request;
  Call& call = request.call;
  call.direction = Direction::forward;
  call.activation = activation;
  call.level = 2;
  call.dtype = DType::float32;
  call.rank = rank;
  call.inputs = 1;
  call.saturation = 0.05;
  call.in_place = shape.in_place;
  call.in[0].data = reinterpret_cast<char*>(x.get() + shape.offset);
  call.out[0].data = shape.in_place ? call.in[0].data : reinterpret_cast<char*>(y.get() + shape.offset);
  int64_t stride = 4;
  for (int i = rank - 1; i >= 0; --i) {
    call.shape[i] = shape.size[size_t(i)];
    call.in[0].stride[i] = call.out[0].stride[i] = stride;
    stride *= i == rank - 1 ? pitch : call.shape[i];
    call.group_stride[i] = i == shape.channel;
    call.parameter_step[i] = 0;
  }
  const int64_t groups = shape.channel < 0 ? 1 : shape.size[size_t(shape.channel)];
  call.groups = groups;
  std::vector<float> before(x.get(), x.get() + extent);

  std::vector<double> state(size_t(cuda::header_words + Geometry::size * groups));
  const int64_t header[cuda::header_words] = {1};
  std::memcpy(state.data(), header, sizeof header);
  for (int64_t g = 0; g < groups; ++g) {
    double record[Geometry::size];
    Geometry::init(record);
    for (int k = 0; k < Geometry::size; ++k) state[size_t(cuda::header_words + k * groups + g)] = record[k];
  }
  request.state = state.data();
  request.cells = Geometry::size;
  request.state_groups = groups;
  cuda::Launch launch = cuda::prepare(request);
  std::vector<unsigned> tickets(size_t(launch.tickets_bytes) / sizeof(unsigned));
  std::vector<double> workspace(size_t(launch.workspace_bytes) / sizeof(double));
  cuda::run(launch, tickets.data(), workspace.data());
  for (const unsigned ticket : tickets) expect(ticket == 0, "a ticket was not given back", shape.name);

  // The same in float64, group by group.
  const A a{};
  const float* const result = shape.in_place ? x.get() : y.get();
  std::vector<std::vector<double>> xs(static_cast<size_t>(groups)), ys(static_cast<size_t>(groups));
  int64_t inside = 1;
  for (int i = rank - 1; i > shape.channel && shape.channel >= 0; --i) inside *= shape.size[size_t(i)];
  for (int64_t i = 0; i < total; ++i) {
    const int64_t at = shape.offset + i / last * pitch + i % last;
    const float expected = a.value(before[size_t(at)]);
    const float got = result[at];
    expect(expected == got || (std::isnan(expected) && std::isnan(got)), "y differs", shape.name);
    const int64_t g = shape.channel < 0 ? 0 : i / inside % groups;
    xs[size_t(g)].push_back(before[size_t(at)]);
    ys[size_t(g)].push_back(got);
  }
  for (int64_t g = 0; g < groups; ++g) {
    const auto cell = [&](int k) { return state[size_t(cuda::header_words + k * groups + g)]; };
    double positive = 0, bad = 0, mean = 0, m2 = 0;
    const auto& v = xs[size_t(g)];
    for (const double e : v) positive += e > 0, bad += !(e - e == 0), mean += e / double(v.size());
    for (const double e : v) m2 += (e - mean) * (e - mean);
    expect(cell(Geometry::n) == double(v.size()), "n", shape.name);
    expect(cell(Geometry::positive) == positive, "positive", shape.name);
    expect(cell(Geometry::nonfinite_x) == bad, "nonfinite_x", shape.name);
    if (bad == 0) {
      expect(close(cell(Geometry::mean_x), mean, 1), "mean_x", shape.name);
      expect(close(cell(Geometry::m2_x), m2, 1e-3), "m2_x", shape.name);
    } else {
      expect(std::isnan(cell(Geometry::m2_x)), "m2_x of data with NaN", shape.name);
    }
  }
}

// Backward of prelu with a weight per channel: dx, the gradient of the weights, and the record of one group or of each
// channel. `axis` is that of the channels.
void run_backward(const char* name, std::vector<int64_t> size, int axis, bool per_channel, bool in_place,
                  std::mt19937& random) {
  int64_t total = 1, inside = 1;
  for (const int64_t n : size) total *= n;
  for (size_t i = size_t(axis) + 1; i < size.size(); ++i) inside *= size[i];
  const int64_t channels = size[size_t(axis)], groups = per_channel ? channels : 1;
  std::normal_distribution<float> normal(0.f, 1.f);
  const size_t all = size_t(total), many = size_t(channels);
  std::vector<float> dy(all), x(all), dx(all), weight(many), gradient(many, -77.f);
  for (float& v : dy) v = normal(random);
  for (float& v : x) v = normal(random);
  for (float& v : weight) v = normal(random);
  const std::vector<float> before = dy;

  cuda::Request request;
  Call& call = request.call;
  call.direction = Direction::backward;
  call.activation = 1;
  call.level = 2;
  call.dtype = DType::float32;
  call.rank = int(size.size());
  call.inputs = 2;
  call.in_place = in_place;
  call.in[0].data = reinterpret_cast<char*>(dy.data());
  call.in[1].data = reinterpret_cast<char*>(x.data());
  call.out[0].data = in_place ? call.in[0].data : reinterpret_cast<char*>(dx.data());
  int64_t stride = 4;
  for (int i = call.rank - 1; i >= 0; --i) {
    call.shape[i] = size[size_t(i)];
    call.in[0].stride[i] = call.in[1].stride[i] = call.out[0].stride[i] = stride;
    stride *= call.shape[i];
    call.parameter_step[i] = i == axis;
    call.group_stride[i] = per_channel && i == axis;
  }
  call.groups = groups;
  call.parameters = channels;
  call.parameter_varies[0] = true;
  request.weight[0] = weight.data();
  request.weight_stride[0] = 1;
  request.trained = 1;
  request.gradient[0] = gradient.data();
  std::vector<double> state(size_t(cuda::header_words + Gradient::size * groups));
  const int64_t header[cuda::header_words] = {1};
  std::memcpy(state.data(), header, sizeof header);
  request.state = state.data();
  request.cells = Gradient::size;
  request.state_groups = groups;
  cuda::Launch launch = cuda::prepare(request);
  expect(!launch.again, "two launches", name);
  std::vector<unsigned> tickets(size_t(launch.tickets_bytes) / sizeof(unsigned));
  std::vector<double> workspace(size_t(launch.workspace_bytes) / sizeof(double));
  cuda::run(launch, tickets.data(), workspace.data());
  for (const unsigned ticket : tickets) expect(ticket == 0, "a ticket was not given back", name);

  std::vector<double> wanted(many), terms(many), sum_sq(many);
  for (int64_t i = 0; i < total; ++i) {
    const size_t at = size_t(i), c = size_t(i / inside % channels);
    const float expected = before[at] * (x[at] > 0 ? 1.f : weight[c]);
    expect((in_place ? dy : dx)[at] == expected, "dx differs", name);
    const double term = double(before[at]) * std::min(x[at], 0.f);
    wanted[c] += term;
    terms[c] += std::abs(term);
    sum_sq[per_channel ? c : 0] += double(before[at]) * before[at];
  }
  for (size_t c = 0; c < many; ++c)
    expect(std::abs(gradient[c] - wanted[c]) <= 1e-6 * terms[c] + 1e-12, "the gradient of a weight", name);
  for (int64_t g = 0; g < groups; ++g) {
    const auto cell = [&](int k) { return state[size_t(cuda::header_words + k * groups + g)]; };
    expect(cell(Gradient::n) == double(total / groups), "n", name);
    expect(close(cell(Gradient::sum_sq_dy), sum_sq[size_t(g)], 1), "sum_sq_dy", name);
  }
}

// A call on contiguous rows of float32, for the launches beside the pass.
Call call_on_rows(int64_t rows, int64_t columns, const float* in, float* out) {
  Call call;
  call.direction = Direction::forward;
  call.activation = 3;
  call.level = 0;
  call.dtype = DType::float32;
  call.rank = 2;
  call.inputs = 1;
  call.shape[0] = rows, call.shape[1] = columns;
  call.in[0].data = reinterpret_cast<char*>(const_cast<float*>(in));
  call.out[0].data = reinterpret_cast<char*>(out);
  call.in[0].stride[0] = call.out[0].stride[0] = columns * 4;
  call.in[0].stride[1] = call.out[0].stride[1] = 4;
  return call;
}

// The launches of the opt-in tiers, on x and its relu: every value in the bucket that the host puts it into, every
// pair, every row of a sketch. In place, x is what was copied aside.
void run_tiers(const char* name, int64_t rows, int64_t columns, Tiers tiers, bool in_place, std::mt19937& random) {
  std::normal_distribution<float> normal(0.f, 2.f);
  std::vector<float> x(size_t(rows * columns)), y(x.size()), aside(x.size());
  for (float& v : x) v = normal(random);
  const std::vector<float> before = x;
  float* const out = in_place ? x.data() : y.data();
  Call call = call_on_rows(rows, columns, x.data(), out);
  call.tiers = tiers;
  call.tiers.channel_axis = 1;
  call.in_place = in_place;
  if (in_place) cuda::run_aside(call, aside.data(), 0, nullptr);
  for (size_t i = 0; i < x.size(); ++i) out[i] = before[i] > 0 ? before[i] : 0;

  const scalar::TierLayout layout(tiers.histogram != Histogram::none, tiers.pairs, tiers.sketch);
  std::vector<double> state(size_t(cuda::header_words + layout.size));
  const int64_t header[cuda::header_words] = {1};
  std::memcpy(state.data(), header, sizeof header);
  double* const record = state.data() + cuda::header_words;
  layout.init(record);
  std::vector<double> partials(size_t(cuda::observe_bytes(call, 0)) / sizeof(double));
  cuda::run_observe(call, in_place ? aside.data() : nullptr, state.data(), partials.data(), 0, nullptr);

  if (tiers.histogram != Histogram::none) {
    std::vector<double> wanted(size_t(2 * scalar::Buckets::size));
    for (int64_t i = 0; i < rows * columns; ++i)
      if (tiers.histogram == Histogram::all || scalar::SampledRuns::holds(i / columns, i % columns)) {
        ++wanted[size_t(scalar::Buckets::of(before[size_t(i)]))];
        ++wanted[size_t(scalar::Buckets::size + scalar::Buckets::of(out[i]))];
      }
    for (size_t i = 0; i < wanted.size(); ++i)
      expect(record[size_t(layout.histogram_x) + i] == wanted[i], "a bucket", name);
  }
  if (tiers.pairs) expect(record[layout.pairs + scalar::Pairs::count] == double(rows / 2), "pairs", name);
  if (tiers.sketch) {
    const scalar::Sketches& sketches = layout.sketches;
    const double* const sketch = record + layout.sketch;
    expect(sketch[scalar::Sketches::rows] == double(rows), "rows of the sketch", name);
    // Every value has one bucket and a sign, so the signed sum of the means of S is that of the channels' means.
    double sum = 0, wanted = 0, scale = 0;
    for (int lane = 0; lane < sketches.k; ++lane) sum += sketch[sketches.mean(scalar::Sketches::s_of_x) + lane];
    for (int64_t i = 0; i < rows * columns; ++i) {
      const int64_t block = i % columns / sketches.k;
      const int lane = int(i % columns % sketches.k);
      wanted += before[size_t(i)] * (scalar::SketchFold::negative(block, lane, 0) ? -1. : 1.) / double(rows);
      scale += std::abs(before[size_t(i)]) / double(rows);
    }
    expect(std::abs(sum - wanted) <= 1e-5 * scale, "the sketch of x", name);
  }
}

// ReLU with its mask, forward and backward.
void run_masked(const char* name, int64_t rows, int64_t columns, std::mt19937& random) {
  std::normal_distribution<float> normal(0.f, 1.f);
  std::vector<float> x(size_t(rows * columns)), y(x.size(), -77.f), dx(x.size(), -77.f);
  for (float& v : x) v = normal(random);
  Call call = call_on_rows(rows, columns, x.data(), y.data());
  std::vector<uint8_t> mask(size_t(mask_bytes(call)), uint8_t(0xff));
  cuda::run_mask(call, mask.data(), 0, nullptr);
  Call back = call_on_rows(rows, columns, x.data(), dx.data());  // any dy will do
  back.direction = Direction::backward;
  cuda::run_mask(back, mask.data(), 0, nullptr);
  const int64_t bytes = (columns + 7) / 8;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const bool fires = x[size_t(i)] > 0;
    const bool bit = mask[size_t(i / columns * bytes + i % columns / 8)] >> (i % columns % 8) & 1;
    expect(y[size_t(i)] == (fires ? x[size_t(i)] : 0), "y", name);
    expect(dx[size_t(i)] == (fires ? x[size_t(i)] : 0), "dx", name);
    expect(bit == fires, "a bit", name);
  }
}

}  // namespace

int main() {
  std::mt19937 random(7);
  const Shape shapes[] = {{"one element", {1}, -1, 0, 0},
                          {"a few", {13}, -1, 0, 0},
                          {"flat", {3001}, -1, 0, 0},
                          {"flat, off by one", {3001}, -1, 0, 1},
                          {"flat, in place", {3001}, -1, 0, 0, true},
                          {"rows apart", {17, 45}, -1, 3, 0},
                          {"channels in front", {3, 5, 49}, 1, 0, 0},
                          {"channels in front, in place", {3, 5, 49}, 1, 0, 0, true},
                          {"columns", {70, 37}, 1, 0, 0},
                          {"columns, in place", {70, 37}, 1, 0, 0, true},
                          {"columns apart", {70, 37}, 1, 2, 1},
                          {"rows", {9, 130}, 0, 0, 0}};
  for (const Shape& shape : shapes) {
    run_case<scalar::Sigmoid<float>>(shape, 0, random);
    run_case<scalar::Relu<float>>(shape, 3, random);
  }
  for (const bool per_channel : {false, true})
    for (const bool in_place : {false, true}) {
      run_backward("backward, channels in front", {3, 5, 49}, 1, per_channel, in_place, random);
      run_backward("backward, columns", {150, 37}, 1, per_channel, in_place, random);
    }
  const Tiers tiers[] = {{Histogram::sampled, false, 0}, {Histogram::all, true, 32}, {Histogram::none, false, 128}};
  for (const Tiers& asked : tiers)
    for (const bool in_place : {false, true}) {
      run_tiers("tiers", 21, 150, asked, in_place, random);
      run_tiers("tiers, one row", 1, 33, asked, in_place, random);
    }
  run_masked("mask", 7, 77, random);
  run_masked("mask, whole words", 4, 64, random);
  std::printf(failures ? "%d checks failed\n" : "ok\n", failures);
  return failures != 0;
}
