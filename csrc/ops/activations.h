// WHAT an activation is: one struct with its value, its slope, and what backward has to keep. Adding one
// takes the struct, its name in the list at the end, and a row in each of the two registries (docs/adding.md).
//
//   name, parameters       parameters are the members, in the order of the public arguments
//   saves                  what backward reads: x, or y alone (the input may then be overwritten)
//   value(x)
//   slope(x, y)            f'(x). Saving y, backward calls slope(y, y): no more of x than its sign is read
//   param_slope(x, y)      df/dparameter, where trainable
//   gradient(dy, x, y)     only where dx is not dy * slope for dy = inf or x = NaN
//   nonnegative            y >= 0 for every x
//
// Edges (NaN, infinities, -0, the slope at a kink) are those of torch, except that slopes at infinity are
// their limits where torch multiplies infinity by 0.
#pragma once

#include "vocabulary.h"

namespace geoact::GEOACT_ISA {

enum class Saves { x, y };

struct Activation {  // what most of them are
  static constexpr Saves saves = Saves::x;
  static constexpr int parameters = 0;
  static constexpr bool trainable = false;
  static constexpr bool nonnegative = false, positive = false, increasing = false, rectifier = false, brief = false;
};
struct ActivationSavingY : Activation {
  static constexpr Saves saves = Saves::y;
};

// --- sigmoids ----------------------------------------------------------------------------------------------

template <class V>
struct Sigmoid : ActivationSavingY {
  static constexpr const char* name = "sigmoid";
  static constexpr bool nonnegative = true, positive = true, increasing = true;
  GEOACT_HD V value(V x) const { return logistic(x).value(); }
  // y - y^2 with one rounding where there is fma; elsewhere the product, which does not cancel
  GEOACT_HD V slope(V, V y) const { return fuses ? fma(-y, y, y) : y * (lit<V>(1) - y); }
};

// tanh(x / 2) / 2, a sigmoid about zero
template <class V>
struct CenteredSigmoid : ActivationSavingY {
  static constexpr const char* name = "centered_sigmoid";
  static constexpr bool increasing = true;
  GEOACT_HD V value(V x) const {
    const TanhQuotient<V> q = tanh_of_half<2>(abs(x));
    return with_sign(quotient(q.above, q.below), x);
  }
  GEOACT_HD V slope(V, V y) const { return square_below(y, scalar_of<V>(0.5)); }
};

template <class V>
struct Tanh : ActivationSavingY {
  static constexpr const char* name = "tanh";
  static constexpr bool increasing = true;
  GEOACT_HD V value(V x) const {
    const TanhQuotient<V> q = tanh_of_half<1>(abs(x + x));
    return with_sign(quotient(q.above, q.below), x);
  }
  GEOACT_HD V slope(V, V y) const { return square_below(y, scalar_of<V>(1)); }
};

// --- piecewise polynomials ---------------------------------------------------------------------------------

template <class V>
struct Relu : ActivationSavingY {
  static constexpr const char* name = "relu";
  static constexpr bool nonnegative = true, increasing = true, rectifier = true, brief = true;
  GEOACT_HD V value(V x) const { return max(lit<V>(0), x); }
  GEOACT_HD V slope(V, V y) const { return gradient(lit<V>(1), y, y); }
  GEOACT_HD V gradient(V dy, V, V y) const { return select(y <= lit<V>(0), lit<V>(0), dy); }
};

template <class V>
struct LeakyRelu : Activation {
  static constexpr const char* name = "leaky_relu";
  static constexpr bool brief = true;
  static constexpr int parameters = 1;
  V negative_slope;
  GEOACT_HD explicit LeakyRelu(V negative_slope) : negative_slope(negative_slope) {}
  GEOACT_HD V value(V x) const { return select(x > lit<V>(0), x, x * negative_slope); }
  GEOACT_HD V slope(V x, V) const { return select(x > lit<V>(0), lit<V>(1), negative_slope); }
};

template <class V>
struct ReluSquared : Activation {
  static constexpr const char* name = "relu_squared";
  static constexpr bool nonnegative = true, increasing = true, brief = true;
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

// --- exponential and smooth --------------------------------------------------------------------------------

template <class V>
struct Elu : Activation {
  static constexpr const char* name = "elu";
  static constexpr int parameters = 1;
  V alpha;
  GEOACT_HD explicit Elu(V alpha) : alpha(alpha) {}
  GEOACT_HD V value(V x) const {
    const V bounded = max(lit<V>(per_precision<V>(-30, -60)), min(lit<V>(0), x));
    return select(x >= lit<V>(0), x, alpha * expm1(bounded));
  }
  // Of x: y + alpha would lose what a narrow format rounded away of y, and the side where alpha is negative.
  GEOACT_HD V slope(V x, V) const {
    const V bounded = max(lit<V>(per_precision<V>(-110, -760)), min(lit<V>(0), x));  // where exp is 0
    return select(x > lit<V>(0), lit<V>(1), alpha * exp(bounded));
  }
};

template <class V>
struct Silu : Activation {
  static constexpr const char* name = "silu";
  GEOACT_HD V value(V x) const {
    const Logistic<V> s = logistic(x);
    return ldexp(quotient(x, s.denominator()), s.n);
  }
  GEOACT_HD V slope(V x, V) const {
    const Logistic<V> s = logistic(x);
    const V inverse = quotient(lit<V>(1), s.denominator()), sigma = s.power * inverse;
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
    const V lost = ldexp(tail.times_ratio(tail.times_a), tail.n);  // |x| P(N(0,1) > |x|)
    return nan_at_minus_infinity(x, select(x > lit<V>(0), x - lost, -lost));
  }
  GEOACT_HD V slope(V x, V) const {
    const NormalTailParts<V> tail = normal_tail(abs(x));
    const V weighted = tail.times_a * lit<V>(0.39894228040143267794);  // |x| times the normal density
    const V lost = ldexp(tail.times_ratio(tail.density) - weighted, tail.n);
    return select(x > lit<V>(0), lit<V>(1) - lost, lost);
  }
};

// The approximation of gelu by x sigma(2 sqrt(2 / pi) (x + 0.044715 x^3))
template <class V>
struct GeluTanh : Activation {
  static constexpr const char* name = "gelu_tanh";
  GEOACT_HD V value(V x) const {
    const V bounded = max(V(zero), x);
    const Logistic<V> s = logistic_unbounded(argument(min(V(one), bounded)));
    return nan_at_minus_infinity(x, ldexp(quotient(bounded, s.denominator()), s.n));
  }
  GEOACT_HD V slope(V x, V) const {
    const V bounded = min(V(one), max(V(zero), x));
    const Logistic<V> s = logistic_unbounded(argument(bounded));
    const V inverse = quotient(lit<V>(1), s.denominator()), sigma = s.power * inverse;
    const V rate = fma(bounded * bounded, V(3 * Argument::cubic), V(Argument::linear + Argument::linear_tail));
    return fma(bounded * sigma * rate, s.complement(inverse), sigma);
  }

 private:
  static constexpr scalar_of<V> zero = per_precision<V>(-12.5, -26), one = per_precision<V>(8, 12);
  using Argument = GeluTanhArgument<scalar_of<V>>;

  // x (linear + cubic x^2) as head + tail: exp makes a relative error of y out of an absolute one here.
  GEOACT_HD static Sum<V> argument(V x) {
    const Sum<V> w = square(x), sum = product_plus(w.head, V(Argument::cubic), V(Argument::linear));
    const V small = fma(w.tail, V(Argument::cubic), sum.tail + V(Argument::linear_tail));
    const V tail = fma(w.head, V(Argument::cubic_tail), small);
    const Sum<V> z = product(x, sum.head);
    return {z.head, fma(x, tail, z.tail)};
  }
};

// log(1 + exp(beta x)) / beta, and x itself once beta x > threshold
template <class V>
struct Softplus : Activation {
  static constexpr const char* name = "softplus";
  static constexpr bool nonnegative = true, positive = true, increasing = true;
  static constexpr int parameters = 2;
  V beta, threshold;
  GEOACT_HD explicit Softplus(V beta, V threshold) : beta(beta), threshold(threshold) {}
  GEOACT_HD V value(V x) const {
    const V z = x * beta, bound = V(per_precision<V>(160, 1200)) / abs(beta);  // exp(-|z|) is 0 beyond
    const Sum<V> a = product(min(bound, abs(x)), abs(beta)), inverse = reciprocal(beta);
    const V n = exponent<-1>(a.head), r = remainder<-1>(a.head, a.tail, n), ratio = expm1_ratio<-1>(r);
    const V e = ldexp(fma(ratio, r, lit<V>(1)), n);
    const V p_over_beta = fma(ratio * inverse.head, r, inverse.tail) + inverse.head;
    const V rest = ldexp(p_over_beta * log1p_ratio(e), n);
    return select(z > threshold, x, select(z <= lit<V>(0), lit<V>(0), x) + rest);
  }
  GEOACT_HD V slope(V x, V) const {
    return select(x * beta > threshold, lit<V>(1), logistic(product(x, beta)).value());
  }
};

template <class V>
struct HardSigmoid : Activation {
  static constexpr const char* name = "hardsigmoid";
  static constexpr bool nonnegative = true, increasing = true, brief = true;
  GEOACT_HD V value(V x) const { return sixth(min(lit<V>(6), max(lit<V>(0), x + lit<V>(3)))); }
  GEOACT_HD V slope(V x, V y) const { return gradient(lit<V>(1), x, y); }
  GEOACT_HD V gradient(V dy, V x, V) const { return select(abs(x) < lit<V>(3), dy * lit<V>(1.0 / 6), lit<V>(0)); }
};

template <class V>
struct HardSwish : Activation {
  static constexpr const char* name = "hardswish";
  static constexpr bool brief = true;
  GEOACT_HD V value(V x) const { return select(x >= lit<V>(3), x, sixth(x * max(lit<V>(0), x + lit<V>(3)))); }
  GEOACT_HD V slope(V x, V y) const { return gradient(lit<V>(1), x, y); }
  GEOACT_HD V gradient(V dy, V x, V) const {
    const V inside = dy * ((x + lit<V>(1.5)) * lit<V>(1.0 / 3));
    return select(x <= lit<V>(-3), lit<V>(0), select(x >= lit<V>(3), dy, inside));
  }
};

// x tanh(softplus(x)) = x e (e + 2) / (e (e + 2) + 2) with e = exp(x)
template <class V>
struct Mish : Activation {
  static constexpr const char* name = "mish";
  GEOACT_HD V value(V x) const {
    const V bounded = max(V(zero), x), low = min(V(one), bounded), n = exponent(low), r = remainder(low, n);
    const V ratio = expm1_ratio(r), e = ldexp(fma(ratio, r, lit<V>(1)), n);
    const V above = plus_2(e), share = quotient(above, below(e, above));
    const V times_p = fma(share * ratio, r, share);
    return nan_at_minus_infinity(x, ldexp(bounded * times_p, n));
  }
  GEOACT_HD V slope(V x, V) const {
    const V e = exp(min(V(one), max(V(zero), x)));
    const V above = plus_2(e), inverse = quotient(lit<V>(scale), below(e, above)), w = e * (e + lit<V>(2));
    return inverse * fma(lit<V>(4) * min(V(one), max(V(zero), x)) * inverse, fma(e, e, e), w);
  }

 private:
  static constexpr scalar_of<V> zero = per_precision<V>(-160, -1200), one = per_precision<V>(15, 30);
  // A factor of both that moves them to mid-binade for small e, where their roundings would weigh most.
  static constexpr double scale = 0.75;
  GEOACT_HD static V plus_2(V e) { return fma(e, lit<V>(scale), lit<V>(2 * scale)); }
  GEOACT_HD static V below(V e, V above) { return fma(e, above, lit<V>(2 * scale)); }
};

// --- with a trained parameter ------------------------------------------------------------------------------

template <class V>
struct Prelu : Activation {
  static constexpr const char* name = "prelu";
  static constexpr bool brief = true;
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
    return ldexp(quotient(x, s.finer_denominator()), s.n);
  }
  GEOACT_HD V slope(V x, V) const {
    const Logistic<V> s = logistic(product(x, beta));
    const V inverse = quotient(lit<V>(1), s.finer_denominator()), sigma = s.power * inverse;
    const V z = max(V(logistic_zero<V>), min(V(logistic_one<V>), x * beta));
    return fma(z * sigma, s.complement(inverse), sigma);
  }
  GEOACT_HD V param_slope(V x, V) const {
    const Logistic<V> s = logistic(product(x, beta));
    const V inverse = quotient(lit<V>(1), s.finer_denominator());
    const V inside = select(abs(x * beta) > lit<V>(1000), lit<V>(0), x);
    return (inside * s.power * inverse) * (inside * s.complement(inverse));
  }
};

// The order is the numbering of kernels.
template <template <class> class... A>
struct list {};
using activations = list<Sigmoid, CenteredSigmoid, Tanh, Relu, LeakyRelu, ReluSquared, Elu, Silu, Gelu, GeluTanh,
                         Softplus, HardSigmoid, HardSwish, Mish, Prelu, Swish>;

}  // namespace geoact::GEOACT_ISA
