// WHAT a gated activation is: y = f(gate) h(up), one pass over two arrays. A gate is the struct of its f, which
// may be an activation that stands alone, and says what it multiplies by. Adding one takes the struct, its name
// in the list at the end, and a row in python/geoact/gates.py.
//
//   factor(up)                  h(up)
//   factor_gradient(d, up)      d h'(up)
//
// Edges are those of torch's operators written one after the other.
#pragma once

#include "activations.h"

namespace geoact::GEOACT_ISA {

template <class V>
struct ByUp {  // h(up) = up
  GEOACT_HD static V factor(V up) { return up; }
  GEOACT_HD static V factor_gradient(V d, V) { return d; }
};

template <class V>
struct Swiglu : Silu<V>, ByUp<V> {
  static constexpr const char* name = "swiglu";
};
template <class V>
struct Geglu : Gelu<V>, ByUp<V> {
  static constexpr const char* name = "geglu";
};
template <class V>
struct GegluTanh : GeluTanh<V>, ByUp<V> {
  static constexpr const char* name = "geglu_tanh";
};
template <class V>
struct Reglu : Relu<V>, ByUp<V> {
  static constexpr const char* name = "reglu";
};

// f(gate) = x sigma(alpha x) of x = min(gate, limit), h(up) = 1 + up within [-limit, limit]
template <class V>
struct SwigluClipped : Activation {
  static constexpr const char* name = "swiglu_clipped";
  static constexpr int parameters = 2;
  V alpha, limit;
  GEOACT_HD SwigluClipped(V alpha, V limit) : alpha(alpha), limit(limit) {}
  GEOACT_HD V value(V gate) const { return Swish<V>(alpha).value(min(limit, gate)); }
  GEOACT_HD V slope(V gate, V y) const { return gradient(lit<V>(1), gate, y); }
  GEOACT_HD V gradient(V dy, V gate, V y) const {
    return select(gate <= limit, dy * Swish<V>(alpha).slope(gate, y), lit<V>(0));
  }
  GEOACT_HD V factor(V up) const { return max(-limit, min(limit, up)) + lit<V>(1); }
  GEOACT_HD V factor_gradient(V d, V up) const { return select(abs(up) <= limit, d, lit<V>(0)); }
};

// The order is the numbering of kernels.
using gates = list<Swiglu, SwigluClipped, Geglu, GegluTanh, Reglu>;

}  // namespace geoact::GEOACT_ISA
