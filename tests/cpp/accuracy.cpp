// Largest error of every activation in units in the last place, as compiled for one instruction set.
//
//   accuracy [stride [samples]]   float32: every stride-th bit pattern against the float64 path (default 1,
//                                 all 2^32); float64: random and adversarial arguments against a 113-bit
//                                 reference; edges; slopes. Environment variable ONLY: one activation.
//   accuracy time                 nanoseconds per element on a 64 KiB buffer
//
// Compile with -DGEOACT_ISA=... and the flags of that set; x86 links libquadmath, on AArch64 long double has
// the bits. Exit status 1: an error is over its limit, or an edge (NaN, infinity, signed zero) is not torch's.
#include "../../csrc/cpu/vec.h"
// vec.h first: the verbs are found by overload
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "../../csrc/ops/activations.h"

#if defined(__x86_64__)
#include <quadmath.h>
using Quad = __float128;
#define GEOACT_QUAD(name) name##q
#else
using Quad = long double;
#define GEOACT_QUAD(name) name##l
#endif

namespace ga = geoact::GEOACT_ISA;

// --- what each activation ought to be, in the words of torch, with range and precision to spare ------------

static Quad exp_(Quad x) { return GEOACT_QUAD(exp)(x); }
static Quad sigmoid(Quad x) { return 1 / (1 + exp_(-x)); }
static Quad softplus(Quad x) { return x > 0 ? x + GEOACT_QUAD(log1p)(exp_(-x)) : GEOACT_QUAD(log1p)(exp_(x)); }
static Quad tanh_(Quad x) {
  const Quad e = GEOACT_QUAD(expm1)(-2 * GEOACT_QUAD(fabs)(x));
  return GEOACT_QUAD(copysign)(e / (e + 2), x);
}
static Quad normal_cdf(Quad x) { return GEOACT_QUAD(erfc)(-x / GEOACT_QUAD(sqrt)(2)) / 2; }
static Quad tanh_gelu_argument(Quad x) {
  static const Quad root = GEOACT_QUAD(sqrt)(1 / (2 * GEOACT_QUAD(atan)(1))) * 2;  // 2 sqrt(2 / pi)
  return root * (x + Quad(44715) / 1000000 * x * x * x);
}
static Quad clamp6(Quad x) { return x < 0 ? 0 : x > 6 ? 6 : x; }

using Reference = Quad (*)(Quad x, const Quad* p);

template <template <class> class A>
struct Test {
  Reference reference;
  double limit32, limit64;
  std::vector<std::vector<double>> parameters = {{}};
};

template <class V, template <class> class A>
GEOACT_INLINE A<V> make(const std::vector<double>& p) {
  using T = ga::scalar_of<V>;
  if constexpr (A<V>::parameters == 0)
    return A<V>{};
  else if constexpr (A<V>::parameters == 1)
    return A<V>{V(T(float(p[0])))};
  else
    return A<V>{V(T(float(p[0]))), V(T(float(p[1])))};
}

template <class T, template <class> class A>
__attribute__((noinline)) void evaluate(const std::vector<double>& p, const T* x, T* y, T* slope, int64_t n) {
  using V = ga::widest<T>;
  const A<V> a = make<V, A>(p);
  for (int64_t i = 0; i < n; i += V::W) {
    const V in = ga::storage<V, T>::load(x + i), out = a.value(in);
    ga::storage<V, T>::store(y + i, out);
    if (slope) ga::storage<V, T>::store(slope + i, a.slope(in, out));
  }
}

// --- errors ------------------------------------------------------------------------------------------------

struct Worst {
  double ulp = 0, at = 0;
  void take(double error, double x) {
    if (!(error <= ulp) && ulp <= 1e300) ulp = error == error ? error : INFINITY, at = x;
  }
};

// The size of float32's last place at a value is 2^(exponent - 23), and 2^-149 where that is smaller.
static inline double ulps32(float y, double reference) {
  uint64_t u;
  std::memcpy(&u, &reference, 8);
  uint64_t exponent = (u >> 52) & 0x7ff;
  exponent = exponent < 1023 - 126 ? 1023 - 126 : exponent;
  const uint64_t inverse = (1023 + 1023 + 23 - exponent) << 52;
  double scale;
  std::memcpy(&scale, &inverse, 8);
  return std::fabs(double(y) - reference) * scale;
}

static double ulps64(double y, Quad reference) {
  if (Quad(y) == reference) return 0;
  int exponent;
  GEOACT_QUAD(frexp)(reference, &exponent);
  exponent = std::max(exponent - 1, -1022);
  return double(GEOACT_QUAD(fabs)(GEOACT_QUAD(ldexp)(Quad(y) - reference, 52 - exponent)));
}

constexpr int block = 4096;

struct Errors32 {
  Worst value, slope;  // slope: in units of 2^-24, half a last place of 1
};

template <template <class> class A>
Errors32 float32_errors(const std::vector<double>& p, uint64_t stride) {
  static float x[block], y[block], s[block];
  static double wx[block], wy[block], ws[block], error[block];
  Errors32 worst;
  uint64_t pattern = 0;
  while (pattern < uint64_t(1) << 32) {
    for (int n = 0; n < block; pattern += stride) {
      const uint32_t b = uint32_t(pattern < uint64_t(1) << 32 ? pattern : 0);
      if ((b & 0x7f800000u) == 0x7f800000u) {
        pattern += (0x00800000u - (b & 0x007fffffu) + stride - 1) / stride * stride - stride;  // past inf and NaN
        continue;
      }
      std::memcpy(&x[n++], &b, 4);
    }
    for (int i = 0; i < block; ++i) wx[i] = x[i];
    evaluate<float, A>(p, x, y, s, block);
    evaluate<double, A>(p, wx, wy, ws, block);
    for (int i = 0; i < block; ++i) error[i] = std::fabs(wy[i]) > 3.4028234e38 ? 0 : ulps32(y[i], wy[i]);
    for (int i = 0; i < block; ++i) worst.value.take(error[i], wx[i]);
    for (int i = 0; i < block; ++i) {
      const double size = std::fabs(ws[i]);
      error[i] = size > 3.4e38 ? 0 : std::fabs(s[i] - ws[i]) * 0x1p24 / (size > 1 ? size : 1);
    }
    for (int i = 0; i < block; ++i) worst.slope.take(error[i], wx[i]);
  }
  return worst;
}

static std::vector<double> samples64(int64_t count) {
  std::mt19937_64 random(1);
  const auto uniform = [&] { return double(random() >> 11) * 0x1p-53; };
  std::vector<double> x;
  for (double edge : {0.0,
                      0.5,
                      1.0,
                      1.5,
                      3.0,
                      6.0,
                      8.0,
                      12.0,
                      15.0,
                      16.0,
                      20.0,
                      24.0,
                      30.0,
                      38.5,
                      40.0,
                      45.0,
                      708.4,
                      745.1,
                      751.0,
                      0.34657359027997264,
                      0.69314718055994531,
                      1e-8,
                      1e-16,
                      1e-300,
                      4.9e-324,
                      1.7e308})
    for (double sign : {-1.0, 1.0}) {
      double up = sign * edge, down = up;
      for (int i = 0; i < 64; ++i) {
        x.push_back(up = std::nextafter(up, INFINITY)), x.push_back(down = std::nextafter(down, -INFINITY));
      }
    }
  for (int n = -1100; n < 1100; ++n) {  // where the reduction of exp changes sides
    double z = (n + 0.5) * 0.69314718055994531;
    for (int i = 0; i < 3; ++i, z = std::nextafter(z, INFINITY))
      for (double c : {0.5, 1.0, 2.0}) x.push_back(z * c);
  }
  const double width[] = {800, 40, 40, 8, 2, 0.5};
  while (int64_t(x.size()) < count) {
    for (double w : width) x.push_back((2 * uniform() - 1) * w);
    x.push_back(-700 - 60 * uniform());
    x.push_back(-36 - 4 * uniform());
    x.push_back(-19 - 4 * uniform());
    x.push_back((uniform() < 0.5 ? -1 : 1) * std::ldexp(1 + uniform(), int(random() % 2098) - 1074));
  }
  x.resize(x.size() / block * block + block, 1.0);
  for (double& v : x)
    if (!std::isfinite(v)) v = 1;
  return x;
}

struct Errors64 {
  Worst value, slope;
};

template <template <class> class A>
Errors64 float64_errors(const std::vector<double>& p, Reference reference, const std::vector<double>& x) {
  std::vector<double> y(x.size()), s(x.size());
  evaluate<double, A>(p, x.data(), y.data(), s.data(), int64_t(x.size()));
  Quad q[2] = {};
  for (size_t k = 0; k < p.size(); ++k) q[k] = float(p[k]);
  Errors64 worst;
  for (size_t i = 0; i < x.size(); ++i) {
    const Quad ideal = reference(x[i], q);
    if (GEOACT_QUAD(fabs)(ideal) <= Quad(1.7976931348623157e308)) worst.value.take(ulps64(y[i], ideal), x[i]);
    if (i % 8 == 0 && std::fabs(x[i]) < 1e4 && std::fabs(x[i]) > 1e-4) {  // slope: against a difference quotient
      const Quad h = Quad(1e-12), at = reference(x[i], q);
      const Quad up = (reference(x[i] + h, q) - at) / h, down = (at - reference(x[i] - h, q)) / h;
      if (GEOACT_QUAD(fabs)(up - down) > Quad(1e-9)) continue;  // a kink
      const Quad d = (up + down) / 2, size = GEOACT_QUAD(fabs)(d);
      worst.slope.take(double(GEOACT_QUAD(fabs)(s[i] - d) / (size > 1 ? size : 1)) * 0x1p53, x[i]);
    }
  }
  return worst;
}

// --- edges -------------------------------------------------------------------------------------------------

template <class T>
static bool same(T a, T b) {
  return a != a ? b != b : a == b && std::signbit(a) == std::signbit(b);
}

template <class T, template <class> class A>
int wrong_edges(const std::vector<double>& p, Reference reference, const char* name) {
  using V = ga::widest<T>;
  const T infinity = T(INFINITY), huge = sizeof(T) == 4 ? T(3.4e38f) : T(1.7e308);
  const T edges[] = {T(0), T(-0.0), infinity, -infinity, T(NAN), -huge, huge, T(-1e30), T(1e30), T(-2000), T(2000)};
  Quad q[2] = {};
  for (size_t k = 0; k < p.size(); ++k) q[k] = float(p[k]);
  int wrong = 0;
  for (T x : edges) {
    T in[V::W], out[V::W];
    for (T& v : in) v = x;
    evaluate<T, A>(p, in, out, static_cast<T*>(nullptr), V::W);
    const T ideal = T(reference(x, q)), scalar = make<T, A>(p).value(x);
    for (T y : {out[0], out[V::W - 1], scalar})
      if (!same(y, ideal) && !(ideal != 0 && std::isfinite(y) && std::fabs(y - ideal) <= T(1e-6) * std::fabs(ideal))) {
        std::printf("  EDGE %s %s x=%g: %g, not %g\n", name, sizeof(T) == 4 ? "float32" : "float64", double(x),
                    double(y), double(ideal));
        ++wrong;
      }
  }
  return wrong;
}

// --- the table ---------------------------------------------------------------------------------------------

struct Run {
  uint64_t stride;
  std::vector<double> x64;
  const char* only;
  int failures = 0;

  template <template <class> class A>
  void operator()(Test<A> t) {
    const char* name = A<float>::name;
    if (only && std::strcmp(only, name)) return;
    for (const auto& p : t.parameters) {
      char label[64];
      int n = std::snprintf(label, sizeof label, "%s", name);
      for (size_t k = 0; k < p.size(); ++k)
        n += std::snprintf(label + n, sizeof label - n, "%c%g", k ? ',' : ' ', p[k]);
      const Errors64 e64 = float64_errors<A>(p, t.reference, x64);
      const Errors32 e32 = float32_errors<A>(p, stride);
      const int edges = wrong_edges<float, A>(p, t.reference, label) + wrong_edges<double, A>(p, t.reference, label);
      const bool bad = !(e32.value.ulp <= t.limit32) || !(e64.value.ulp <= t.limit64) || edges;
      failures += bad;
      std::printf("%-22s %-9s %7.3f %-14.8g %-9s %7.3f %-22.17g %6.2f %-12.5g %6.2f %-12.5g%s\n", label, "float32",
                  e32.value.ulp, e32.value.at, "float64", e64.value.ulp, e64.value.at, e32.slope.ulp, e32.slope.at,
                  e64.slope.ulp, e64.slope.at, bad ? "  FAILED" : "");
      std::fflush(stdout);
    }
  }
};

struct Timing {
  const char* only;
  template <class T, template <class> class A>
  double measure(const std::vector<double>& p, bool slope) {
    constexpr int n = 65536 / sizeof(T);
    alignas(64) static T x[n], y[n], s[n];
    for (int i = 0; i < n; ++i) x[i] = T(6.0 * (double(i * 7919 % n) / n - 0.5));
    double best = 1e9;
    for (int repeat = 0; repeat < 60; ++repeat) {
      const auto start = std::chrono::steady_clock::now();
      for (int k = 0; k < 20; ++k) evaluate<T, A>(p, x, y, slope ? s : nullptr, n);
      const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - start;
      best = std::min(best, spent.count() / (20.0 * n));
    }
    return best;
  }
  template <template <class> class A>
  void operator()(Test<A> t) {
    if (only && std::strcmp(only, A<float>::name)) return;
    const auto& p = t.parameters[0];
    std::printf("%-18s %8.3f %8.3f %8.3f %8.3f\n", A<float>::name, measure<float, A>(p, false),
                measure<float, A>(p, true), measure<double, A>(p, false), measure<double, A>(p, true));
  }
};

template <class F>
static void each(F& run) {
  using Q = const Quad*;
  run(Test<ga::Sigmoid>{[](Quad x, Q) { return sigmoid(x); }, 2, 4});
  run(Test<ga::CenteredSigmoid>{[](Quad x, Q) { return tanh_(x / 2) / 2; }, 2, 4});
  run(Test<ga::Tanh>{[](Quad x, Q) { return tanh_(x); }, 2, 4});
  run(Test<ga::Relu>{[](Quad x, Q) { return x < 0 ? 0 : x; }, 0, 0});
  run(Test<ga::LeakyRelu>{[](Quad x, Q p) { return x > 0 ? x : x * p[0]; }, 0.5, 0.5, {{0.01}, {0.1}}});
  run(Test<ga::ReluSquared>{[](Quad x, Q) { return x <= 0 ? 0 : x * x; }, 0.5, 0.5});
  run(Test<ga::Elu>{[](Quad x, Q p) { return x > 0 ? x : p[0] * GEOACT_QUAD(expm1)(x); }, 2, 4, {{1}, {0.3}, {1.7}}});
  run(Test<ga::Silu>{[](Quad x, Q) { return x * sigmoid(x); }, 2, 4});
  run(Test<ga::Gelu>{[](Quad x, Q) { return x * normal_cdf(x); }, 4, 4});
  run(Test<ga::GeluTanh>{[](Quad x, Q) { return x * sigmoid(tanh_gelu_argument(x)); }, 4, 4});
  run(Test<ga::Softplus>{[](Quad x, Q p) { return x * p[0] > p[1] ? x : softplus(x * p[0]) / p[0]; },
                         4,
                         4,
                         {{1, 20}, {0.7, 20}, {3.3, 20}, {1, 1e6}}});
  run(Test<ga::HardSigmoid>{[](Quad x, Q) { return clamp6(x + 3) / 6; }, 2, 4});
  run(Test<ga::HardSwish>{[](Quad x, Q) { return x * clamp6(x + 3) / 6; }, 2, 4});
  run(Test<ga::Mish>{[](Quad x, Q) { return x * tanh_(softplus(x)); }, 4, 4});
  run(Test<ga::Prelu>{[](Quad x, Q p) { return x > 0 ? x : x * p[0]; }, 0.5, 0.5, {{0.25}, {-0.3}}});
  run(Test<ga::Swish>{[](Quad x, Q p) { return x * sigmoid(p[0] * x); }, 2, 4, {{1.702}, {1}, {0.3}, {-1.3}, {0}}});
}

int main(int count, char** argument) {
  const char* only = std::getenv("ONLY");
  if (count > 1 && !std::strcmp(argument[1], "time")) {
    std::printf("%-18s %8s %8s %8s %8s   ns per element\n", "", "f32", "+slope", "f64", "+slope");
    Timing timing{only};
    each(timing);
    return 0;
  }
  Run run{count > 1 ? std::strtoull(argument[1], nullptr, 10) : 1,
          samples64(count > 2 ? std::atoll(argument[2]) : 300000), only};
  std::printf("%-22s %-9s %7s %-14s %-9s %7s %-22s %s\n", "activation", "dtype", "max ulp", "at x", "dtype", "max ulp",
              "at x", "slope error in 2^-24, at x; in 2^-53, at x");
  each(run);
  return run.failures != 0;
}
