// WHAT an activation is: one struct with its value, its slope, and what backward has to keep. Adding one
// takes the struct, its name in the list at the end, and a row in each of the two registries (docs/adding.md).
//
//   name, parameters       parameters are the members, in the order of the public arguments
//   saves                  what backward reads: x, or y alone (the input may then be overwritten)
//   value(x)
//   slope(x, y)            f'(x). Saving y, backward calls slope(y, y): no more of x than its sign is read
//   trainable              how many parameters are trained: so many, from the first on
//   param_slope(x, y)      df/dparameter of each of them
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
  static constexpr int trainable = 0;
  static constexpr bool nonnegative = false, positive = false, increasing = false, rectifier = false, brief = false;
};
struct ActivationSavingY : Activation {
  static constexpr Saves saves = Saves::y;
};

// df/dparameter of the trained parameters, in their order
template <class V, int N>
struct Slopes {
  V of[N];
};
template <class V>
struct Slopes<V, 0> {};

// The activation whose parameter k is parameter(k).
template <class A, class F>
GEOACT_HD A with_parameters(const F& parameter) {
  static_assert(A::trainable <= A::parameters && A::parameters <= 4);
  if constexpr (A::parameters == 0)
    return A{};
  else if constexpr (A::parameters == 1)
    return A(parameter(0));
  else if constexpr (A::parameters == 2)
    return A(parameter(0), parameter(1));
  else if constexpr (A::parameters == 3)
    return A(parameter(0), parameter(1), parameter(2));
  else
    return A(parameter(0), parameter(1), parameter(2), parameter(3));
}

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

// A leaky rectifier that is moved and stretched
template <class V>
struct Gal : Activation {
  static constexpr const char* name = "gal";
  static constexpr bool brief = true;
  static constexpr int parameters = 3;
  V negative_slope, scale, shift;
  GEOACT_HD Gal(V negative_slope, V scale, V shift) : negative_slope(negative_slope), scale(scale), shift(shift) {}
  GEOACT_HD V value(V x) const { return scale * (select(x > lit<V>(0), x, x * negative_slope) - shift); }
  GEOACT_HD V slope(V x, V) const { return select(x > lit<V>(0), scale, scale * negative_slope); }
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
  static constexpr int trainable = 1;
  V weight;
  GEOACT_HD explicit Prelu(V weight) : weight(weight) {}
  GEOACT_HD V value(V x) const { return select(x > lit<V>(0), x, x * weight); }
  GEOACT_HD V slope(V x, V) const { return select(x > lit<V>(0), lit<V>(1), weight); }
  GEOACT_HD Slopes<V, 1> param_slope(V x, V) const { return {min(lit<V>(0), x)}; }
};

// x sigma(beta x)
template <class V>
struct Swish : Activation {
  static constexpr const char* name = "swish";
  static constexpr int parameters = 1;
  static constexpr int trainable = 1;
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
  GEOACT_HD Slopes<V, 1> param_slope(V x, V) const {
    const Logistic<V> s = logistic(product(x, beta));
    const V inverse = quotient(lit<V>(1), s.finer_denominator());
    const V inside = select(abs(x * beta) > lit<V>(1000), lit<V>(0), x);
    return {(inside * s.power * inverse) * (inside * s.complement(inverse))};
  }
};

// p1 x sigma(z) + p2 x sigma(-z) with z = beta (p1 - p2) x: both terms have the sign of their parameter, where the
// authors' (p1 - p2) x sigma(z) + p2 x cancels.
template <class V>
struct AconC : Activation {
  static constexpr const char* name = "acon_c";
  static constexpr int parameters = 3, trainable = 3;
  V p1, p2, beta;
  GEOACT_HD AconC(V p1, V p2, V beta) : p1(p1), p2(p2), beta(beta), apart(difference(p1, p2)) {
    const Sum<V> z = product(beta, apart.head);
    rate = {bounded(z.head), fma(beta, apart.tail, z.tail)};
  }
  GEOACT_HD V value(V x) const {
    const V inside = bounded(x);
    const Sides s = sides(inside);
    const V share = quotient(inside, s.below);
    const V y = fma(share, s.major, ldexp(share * s.p * s.minor, s.n));
    // infinite, unless both terms vanish there
    const V far = select(y == lit<V>(0), y, y * lit<V>(__builtin_inf()));
    return select(abs(x) <= V(largest_finite<V>), y, far);
  }
  GEOACT_HD V slope(V x, V) const {
    const Sides s = sides(bounded(x));
    const Rates h = s.rates();
    return fma(s.major, h.up, s.minor * h.down);
  }
  GEOACT_HD Slopes<V, 3> param_slope(V x, V) const {
    const Sides s = sides(bounded(x));
    const Rates h = s.rates();
    const V of_major = x * h.up, of_minor = select(h.down == lit<V>(0), h.down, x * h.down);
    const V d = select(s.p == lit<V>(0), lit<V>(0), apart.head * bounded(x));
    return {select(s.rising, of_major, of_minor), select(s.rising, of_minor, of_major), (d * h.low) * (d * h.high)};
  }

 private:
  using Mask = decltype(V(0) > V(0));
  Sum<V> apart, rate;  // p1 - p2, and beta times that
  // The lesser term is taken as 0 beyond, as it is for |x| < 2^100.
  static constexpr scalar_of<V> zero = per_precision<V>(174, 1416);

  struct Rates {
    V up, down, high, low;  // sigma(|z|) + |z| sigma', what that lacks of 1, sigma(|z|), sigma(-|z|)
  };
  // exp(-|z|) = p 2^n, below = 1 + exp(-|z|); which parameter weighs more, and which less
  struct Sides {
    Mask rising;
    V size, p, n, below, major, minor;
    GEOACT_HD Rates rates() const {
      const V high = quotient(lit<V>(1), below), low = ldexp(p * high, n);
      return {fma(size * low, high, high), low * fma(-size, high, lit<V>(1)), high, low};
    }
  };
  GEOACT_HD static V bounded(V x) { return max(V(-largest_finite<V>), min(V(largest_finite<V>), x)); }
  GEOACT_HD Sides sides(V x) const {
    const Sum<V> z = product(x, rate.head);
    const V tail = fma(x, rate.tail, z.tail);
    const Mask rising = z.head > lit<V>(0);
    const V size = min(V(zero), abs(z.head)), less = select(rising, tail, -tail);
    const V kept = max(min(less, lit<V>(1)), lit<V>(-1));  // of an infinite head the tail is NaN
    const V n = exponent<-1>(size), r = remainder<-1>(size, kept, n), factor = expm1_ratio<-1>(r);
    const V power = ldexp(lit<V>(1), n);
    const V p = select(size >= V(zero), lit<V>(0), fma(factor, r, lit<V>(1)));
    return {rising,
            size + kept,
            p,
            n,
            fma(factor * power, r, power) + lit<V>(1),
            select(rising, p1, p2),
            select(rising, p2, p1)};
  }
};

// Positive: a x^2 + beta x. Negative: b (exp(x) - 1 - x) + beta x, with a = softplus(alpha_p), s = softplus(alpha_n)
// and b = beta + s. Far out the latter is taken as b (exp(x) - 1) - s x, where the larger terms have cancelled.
template <class V>
struct Xielu : Activation {
  static constexpr const char* name = "xielu";
  static constexpr int parameters = 4, trainable = 2;
  V alpha_p, alpha_n, beta, eps;
  GEOACT_HD Xielu(V alpha_p, V alpha_n, V beta, V eps)
      : alpha_p(alpha_p),
        alpha_n(alpha_n),
        beta(beta),
        eps(eps),
        a(softplus(alpha_p)),
        s(softplus(alpha_n)),
        b(beta + s) {}
  GEOACT_HD V value(V x) const {
    const Below e = below(x);
    const V near = fma(b, e.beyond_linear, beta * x), far = fma(b, e.expm1, -s * x);
    return select(x > lit<V>(0), x * fma(a, x, beta), select(x > lit<V>(-4), near, far));
  }
  GEOACT_HD V slope(V x, V) const {
    const V ramp = select(x >= eps, lit<V>(-1), below(x).expm1);  // beyond eps, exp(eps) is a constant
    return select(x > lit<V>(0), fma(a + a, x, beta), fma(b, ramp, beta));
  }
  GEOACT_HD Slopes<V, 2> param_slope(V x, V) const {
    const V positive = max(lit<V>(0), x), of_p = logistic(alpha_p).value(), of_n = logistic(alpha_n).value();
    return {of_p * positive * positive, of_n * select(x > lit<V>(0), lit<V>(0), below(x).beyond_linear)};
  }

 private:
  V a, s, b;
  struct Below {
    V expm1, beyond_linear;  // exp(m) - 1 and exp(m) - 1 - x with m = min(x, eps)
  };
  GEOACT_HD Below below(V x) const {
    const V m = min(eps, x), bounded = max(V(per_precision<V>(-30, -60)), min(lit<V>(0), m));
    const V n = exponent(bounded), r = remainder(bounded, n), power = ldexp(lit<V>(1), n);
    const V square = r * r, bend = polynomial<ExpBend<scalar_of<V>>>(r), grown = fma(square, bend, r);
    const V rest = power - lit<V>(1);
    // With n = 0 the linear term has cancelled exactly.
    const V beyond = select(n == lit<V>(0), square * bend + (m - x), fma(power, grown, rest - x));
    return {fma(grown, power, rest), beyond};
  }
  GEOACT_HD static V softplus(V v) {
    const V e = exp(max(V(per_precision<V>(-110, -760)), -abs(v)));
    return max(lit<V>(0), v) + e * log1p_ratio(e);
  }
};

// weight tanh(alpha x) + bias
template <class V>
struct Dyt : Activation {
  static constexpr const char* name = "dyt";
  static constexpr int parameters = 3, trainable = 3;
  V alpha, weight, bias;
  GEOACT_HD Dyt(V alpha, V weight, V bias) : alpha(alpha), weight(weight), bias(bias) {}
  GEOACT_HD V value(V x) const { return fma(weight, tanh_of(x), bias); }
  GEOACT_HD V slope(V x, V) const { return (weight * alpha) * bell(x); }
  GEOACT_HD Slopes<V, 3> param_slope(V x, V) const {
    const V h = bell(x);
    return {weight * select(h == lit<V>(0), h, x * h), tanh_of(x), lit<V>(1)};
  }

 private:
  GEOACT_HD V argument(V x) const {
    return alpha * max(V(-largest_finite<V>), min(V(largest_finite<V>), x));  // 0 where alpha is, at infinity too
  }
  GEOACT_HD V tanh_of(V x) const {
    const V z = argument(x);
    const TanhQuotient<V> q = tanh_of_half<1>(abs(z + z));
    return with_sign(quotient(q.above, q.below), z);
  }
  // 1 - tanh^2 = 4 sigma(2 z) sigma(-2 z)
  GEOACT_HD V bell(V x) const {
    const Sum<V> z = product(max(V(-largest_finite<V>), min(V(largest_finite<V>), x)), lit<V>(2) * alpha);
    const V size = -abs(z.head), tail = select(z.head > lit<V>(0), -z.tail, z.tail);
    const Logistic<V> s = logistic(Sum<V>{size, tail});
    const V inverse = quotient(lit<V>(1), s.denominator());
    return lit<V>(4) * (s.power * inverse) * s.complement(inverse);
  }
};

// weight erf(alpha x + shift) + bias
template <class V>
struct Derf : Activation {
  static constexpr const char* name = "derf";
  static constexpr int parameters = 4, trainable = 4;
  V alpha, shift, weight, bias;
  GEOACT_HD Derf(V alpha, V shift, V weight, V bias) : alpha(alpha), shift(shift), weight(weight), bias(bias) {}
  GEOACT_HD V value(V x) const {
    // Without fma a product splits its factors, which takes a signalling NaN for infinity.
    return select(x == x, fma(weight, erf(argument(x).head), bias), x + x);
  }
  GEOACT_HD V slope(V x, V) const { return (weight * alpha) * bell(argument(x)); }
  GEOACT_HD Slopes<V, 4> param_slope(V x, V) const {
    const Sum<V> u = argument(x);
    const V h = bell(u), of_shift = weight * h;
    return {select(h == lit<V>(0), h, x * of_shift), of_shift, erf(u.head), lit<V>(1)};
  }

 private:
  GEOACT_HD Sum<V> argument(V x) const {
    const Sum<V> z = product(alpha, max(V(-largest_finite<V>), min(V(largest_finite<V>), x)));
    const Sum<V> u = difference(z.head, -shift);
    const V tail = u.tail + z.tail, head = u.head + tail;
    return {select(abs(u.head) <= V(largest_finite<V>), head, u.head), (u.head - head) + tail};
  }
  // erf'(u) = 2 / sqrt(pi) exp(-u^2)
  GEOACT_HD static V bell(Sum<V> u) {
    constexpr scalar_of<V> bound = per_precision<V>(11, 28);  // exp(-u^2) is 0 beyond
    const V size = min(V(bound), abs(u.head)), tail = select(u.head > lit<V>(0), u.tail, -u.tail);
    const V kept = max(min(tail, lit<V>(1e-3)), lit<V>(-1e-3));  // of an infinite head the tail is NaN
    const Sum<V> s = square(size);
    const V n = exponent<-1>(s.head), r = remainder<-1>(s.head, fma(size + size, kept, s.tail), n);
    return ldexp(fma(expm1_ratio<-1>(r), r, lit<V>(1)) * lit<V>(1.1283791670955125739), n);
  }
};

// The order is the numbering of kernels.
template <template <class> class... A>
struct list {};
using activations = list<Sigmoid, CenteredSigmoid, Tanh, Relu, LeakyRelu, ReluSquared, Elu, Silu, Gelu, GeluTanh,
                         Softplus, HardSigmoid, HardSwish, Mish, Gal, Prelu, Swish, AconC, Xielu, Dyt, Derf>;

}  // namespace geoact::GEOACT_ISA
