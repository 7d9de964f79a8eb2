// WHAT an activation is: one struct with its value, its slope, and what backward has to keep. Adding one takes the
// struct, its name in the list at the end, and a row in each of the two registries (docs/adding.md).
//
//   name, parameters         parameters are the members, in the order of the public arguments
//   saves                    what backward reads: x, or y alone (the input may then be overwritten)
//   value(x)
//   slope(x, y)              f'(x). Saving y, backward calls slope(y, y): nothing but the sign of x may be read
//   param_slope(x, y)        df/dparameter, where trainable
//   gradient(dy, x, y)       only where dx is not dy * slope for dy = inf or x = NaN
//   nonnegative              y >= 0 for every x
//
// Edges (NaN, infinities, -0, the slope at a kink) are those of torch.
#pragma once

#include "vocabulary.h"

namespace geoact::GEOACT_ISA {

enum class Saves { x, y };

struct Activation {  // what most of them are
  static constexpr Saves saves = Saves::x;
  static constexpr int parameters = 0;
  static constexpr bool trainable = false;
  static constexpr bool nonnegative = false;
};
struct ActivationSavingY : Activation {
  static constexpr Saves saves = Saves::y;
};

// --- sigmoids --------------------------------------------------------------------------------------------------------

template <class V>
struct Sigmoid : ActivationSavingY {
  static constexpr const char* name = "sigmoid";
  static constexpr bool nonnegative = true;
  GEOACT_HD V value(V x) const { return logistic(x).value(); }
  GEOACT_HD V slope(V, V y) const { return y * (lit<V>(1) - y); }
};

// tanh(x / 2) / 2, a sigmoid about zero
template <class V>
struct CenteredSigmoid : ActivationSavingY {
  static constexpr const char* name = "centered_sigmoid";
  GEOACT_HD V value(V x) const {
    const TanhQuotient<V> q = tanh_of_half<2>(abs(x));
    return copysign(q.above / q.below, x);
  }
  GEOACT_HD V slope(V, V y) const { return square_below(y, scalar_of<V>(0.5)); }
};

template <class V>
struct Tanh : ActivationSavingY {
  static constexpr const char* name = "tanh";
  GEOACT_HD V value(V x) const {
    const TanhQuotient<V> q = tanh_of_half<1>(abs(x + x));
    return copysign(q.above / q.below, x);
  }
  GEOACT_HD V slope(V, V y) const { return square_below(y, scalar_of<V>(1)); }
};

// --- piecewise polynomials -------------------------------------------------------------------------------------------

template <class V>
struct Relu : ActivationSavingY {
  static constexpr const char* name = "relu";
  static constexpr bool nonnegative = true;
  GEOACT_HD V value(V x) const { return max(lit<V>(0), x); }
  GEOACT_HD V slope(V, V y) const { return gradient(lit<V>(1), y, y); }
  GEOACT_HD V gradient(V dy, V, V y) const { return select(y <= lit<V>(0), lit<V>(0), dy); }
};

template <class V>
struct LeakyRelu : Activation {
  static constexpr const char* name = "leaky_relu";
  static constexpr int parameters = 1;
  V negative_slope;
  GEOACT_HD explicit LeakyRelu(V negative_slope) : negative_slope(negative_slope) {}
  GEOACT_HD V value(V x) const { return select(x > lit<V>(0), x, x * negative_slope); }
  GEOACT_HD V slope(V x, V) const { return select(x > lit<V>(0), lit<V>(1), negative_slope); }
};

template <class V>
struct ReluSquared : Activation {
  static constexpr const char* name = "relu_squared";
  static constexpr bool nonnegative = true;
  GEOACT_HD V value(V x) const {
    const V positive = max(lit<V>(0), x);
    return positive * positive;
  }
  GEOACT_HD V slope(V x, V) const {
    const V positive = max(lit<V>(0), x);
    return positive + positive;
  }
  GEOACT_HD V gradient(V dy, V x, V) const { return select(x <= lit<V>(0), lit<V>(0), dy * (x + x)); }
};

// --- exponential and smooth ------------------------------------------------------------------------------------------

template <class V>
struct Elu : ActivationSavingY {
  static constexpr const char* name = "elu";
  static constexpr int parameters = 1;
  V alpha;
  GEOACT_HD explicit Elu(V alpha) : alpha(alpha) {}
  GEOACT_HD V value(V x) const {
    const V bounded = max(lit<V>(per_precision<V>(-30, -60)), min(lit<V>(0), x));
    return select(x >= lit<V>(0), x, alpha * expm1(bounded));
  }
  GEOACT_HD V slope(V x, V y) const { return select(x > lit<V>(0), lit<V>(1), y + alpha); }
};

template <class V>
struct Silu : Activation {
  static constexpr const char* name = "silu";
  GEOACT_HD V value(V x) const {
    const Logistic<V> s = logistic(x);
    return ldexp(x / s.denominator(), s.n);
  }
  GEOACT_HD V slope(V x, V) const {
    const Logistic<V> s = logistic(x);
    const V inverse = lit<V>(1) / s.denominator(), sigma = s.power * inverse;
    const V bounded = max(V(logistic_zero<V>), min(V(logistic_one<V>), x));
    return fma(bounded * sigma, s.complement(inverse), sigma);
  }
};

// x P(N(0,1) < x)
template <class V>
struct Gelu : Activation {
  static constexpr const char* name = "gelu";
  GEOACT_HD V value(V x) const {
    const NormalTailParts<V> tail = normal_tail(abs(x));
    const V lost = ldexp(tail.a * (tail.density * tail.ratio), tail.n);  // |x| P(N(0,1) > |x|)
    return nan_at_minus_infinity(x, select(x > lit<V>(0), x - lost, -lost));
  }
  GEOACT_HD V slope(V x, V) const {
    const NormalTailParts<V> tail = normal_tail(abs(x));
    const V weighted = tail.a * tail.density * lit<V>(0.39894228040143267794);  // |x| times the density
    const V lost = ldexp(tail.density * tail.ratio - weighted, tail.n);
    return select(x > lit<V>(0), lit<V>(1) - lost, lost);
  }
};

// The approximation of gelu by x sigma(2 sqrt(2 / pi) (x + 0.044715 x^3))
template <class V>
struct GeluTanh : Activation {
  static constexpr const char* name = "gelu_tanh";
  GEOACT_HD V value(V x) const {
    const V bounded = max(V(zero), x);
    const Logistic<V> s = logistic(argument(min(V(one), bounded)));
    return nan_at_minus_infinity(x, ldexp(bounded / s.denominator(), s.n));
  }
  GEOACT_HD V slope(V x, V) const {
    const V bounded = min(V(one), max(V(zero), x));
    const Logistic<V> s = logistic(argument(bounded));
    const V inverse = lit<V>(1) / s.denominator(), sigma = s.power * inverse;
    const V rate = fma(bounded * bounded, V(3 * Argument::cubic), V(Argument::linear + Argument::linear_tail));
    return fma(bounded * sigma * rate, s.complement(inverse), sigma);
  }

 private:
  static constexpr scalar_of<V> zero = per_precision<V>(-13, -30), one = per_precision<V>(8, 12);
  using Argument = GeluTanhArgument<scalar_of<V>>;

  // x (linear + cubic x^2) as head + tail: exp makes a relative error of y out of an absolute one here.
  GEOACT_HD static Sum<V> argument(V x) {
    // The head of the linear coefficient has so few bits that it is a multiple of the last place of any sum below:
    // what the addition rounds off is found exactly.
    const Sum<V> w = square(x), c = product(w.head, V(Argument::cubic));
    const V linear = V(Argument::linear), sum = c.head + linear, lost = c.head - (sum - linear);
    const V small = fma(w.tail, V(Argument::cubic), c.tail + V(Argument::linear_tail));
    const V tail = fma(w.head, V(Argument::cubic_tail), small) + lost;
    const Sum<V> z = product(x, sum);
    return {z.head, fma(x, tail, z.tail)};
  }
};

// log(1 + exp(beta x)) / beta, and x itself once beta x > threshold
template <class V>
struct Softplus : Activation {
  static constexpr const char* name = "softplus";
  static constexpr int parameters = 2;
  static constexpr bool nonnegative = true;
  V beta, threshold;
  GEOACT_HD explicit Softplus(V beta, V threshold) : beta(beta), threshold(threshold) {}
  GEOACT_HD V value(V x) const {
    const V z = x * beta;
    const Sum<V> a = product(abs(x), abs(beta));
    const V bounded = min(lit<V>(per_precision<V>(160, 1200)), a.head);
    const Power<V> e = exp_parts<-1>(Sum<V>{bounded, bounded_tail(a)});
    const V rest = ldexp(e.p * log1p_ratio(ldexp(e.p, e.n)) * (lit<V>(1) / beta), e.n);
    return select(z > threshold, x, select(z <= lit<V>(0), lit<V>(0), x) + rest);
  }
  GEOACT_HD V slope(V x, V) const {
    return select(x * beta > threshold, lit<V>(1), logistic(product(x, beta)).value());
  }
};

template <class V>
struct HardSigmoid : Activation {
  static constexpr const char* name = "hardsigmoid";
  static constexpr bool nonnegative = true;
  GEOACT_HD V value(V x) const {
    return sixth(min(lit<V>(6), max(lit<V>(0), x + lit<V>(3))));
  }
  GEOACT_HD V slope(V x, V y) const { return gradient(lit<V>(1), x, y); }
  GEOACT_HD V gradient(V dy, V x, V) const {
    return select(abs(x) < lit<V>(3), dy * lit<V>(1.0 / 6), lit<V>(0));
  }
};

template <class V>
struct HardSwish : Activation {
  static constexpr const char* name = "hardswish";
  GEOACT_HD V value(V x) const { return x * HardSigmoid<V>{}.value(x); }
  GEOACT_HD V slope(V x, V y) const { return gradient(lit<V>(1), x, y); }
  GEOACT_HD V gradient(V dy, V x, V) const {
    const V inside = dy * ((x + lit<V>(1.5)) * lit<V>(1.0 / 3));
    return select(x <= lit<V>(-3), lit<V>(0), select(x >= lit<V>(3), dy, inside));
  }
};

// x tanh(softplus(x)) = x w / (w + 2) with w = e (e + 2), e = exp(x)
template <class V>
struct Mish : Activation {
  static constexpr const char* name = "mish";
  GEOACT_HD V value(V x) const {
    const V bounded = max(V(zero), x);
    const Exponential e = exponential(min(V(one), bounded));
    return nan_at_minus_infinity(x, ldexp(bounded * (fma(e.p, e.value, e.p + e.p) * e.inverse), e.n));
  }
  GEOACT_HD V slope(V x, V) const {
    const V bounded = min(V(one), max(V(zero), x));
    const Exponential e = exponential(bounded);
    const V w = e.value * (e.value + lit<V>(2));
    return e.inverse * fma(lit<V>(4) * bounded * e.inverse, w - e.value, w);
  }

 private:
  static constexpr scalar_of<V> zero = per_precision<V>(-160, -1200), one = per_precision<V>(15, 30);
  struct Exponential {
    V p, n, value, inverse;  // value = e = p 2^n, inverse = 1 / (w + 2)
  };
  GEOACT_HD static Exponential exponential(V x) {
    const Power<V> e = exp_parts(x);
    const V value = ldexp(e.p, e.n);
    return {e.p, e.n, value, lit<V>(1) / fma(value, value + lit<V>(2), lit<V>(2))};
  }
};

// --- with a trained parameter ----------------------------------------------------------------------------------------

template <class V>
struct Prelu : Activation {
  static constexpr const char* name = "prelu";
  static constexpr int parameters = 1;
  static constexpr bool trainable = true;
  V weight;
  GEOACT_HD explicit Prelu(V weight) : weight(weight) {}
  GEOACT_HD V value(V x) const { return select(x > lit<V>(0), x, x * weight); }
  GEOACT_HD V slope(V x, V) const { return select(x > lit<V>(0), lit<V>(1), weight); }
  GEOACT_HD V param_slope(V x, V) const { return min(lit<V>(0), x); }
};

// x sigma(beta x)
template <class V>
struct Swish : Activation {
  static constexpr const char* name = "swish";
  static constexpr int parameters = 1;
  static constexpr bool trainable = true;
  V beta;
  GEOACT_HD explicit Swish(V beta) : beta(beta) {}
  GEOACT_HD V value(V x) const {
    const Logistic<V> s = logistic(product(x, beta));
    return ldexp(x / s.denominator(), s.n);
  }
  GEOACT_HD V slope(V x, V) const {
    const Logistic<V> s = logistic(product(x, beta));
    const V inverse = lit<V>(1) / s.denominator(), sigma = s.power * inverse;
    const V z = max(V(logistic_zero<V>), min(V(logistic_one<V>), x * beta));
    return fma(z * sigma, s.complement(inverse), sigma);
  }
  GEOACT_HD V param_slope(V x, V) const {
    const Logistic<V> s = logistic(product(x, beta));
    const V inverse = lit<V>(1) / s.denominator();
    const V inside = select(abs(x * beta) > lit<V>(1000), lit<V>(0), x);
    return (inside * s.power * inverse) * (inside * s.complement(inverse));
  }
};

// The order is the numbering of kernels.
template <template <class> class... A>
struct list {};
using activations = list<Sigmoid, CenteredSigmoid, Tanh, Relu, LeakyRelu, ReluSquared, Elu, Silu, Gelu, GeluTanh, Softplus,
                         HardSigmoid, HardSwish, Mish, Prelu, Swish>;

}  // namespace geoact::GEOACT_ISA
