// Written by coefficients.py: change the script and run it again.
#pragma once

#ifndef GEOACT_ISA
#define GEOACT_ISA scalar
#endif

namespace geoact::GEOACT_ISA {

// ln 2 in two parts: n * high is exact for every exponent n.
template <class T>
struct Ln2;
template <>
struct Ln2<float> {
  static constexpr float high = float(0x1.62e4000000000p-1);
  static constexpr float low = float(0x1.7f7d1c0000000p-20);
  static constexpr float inverse = float(0x1.7154760000000p+0);
};
template <>
struct Ln2<double> {
  static constexpr double high = double(0x1.62e42fefa3800p-1);
  static constexpr double low = double(0x1.ef35793c76730p-45);
  static constexpr double inverse = double(0x1.71547652b82fep+0);
};

// (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2, weighted for a small relative error of exp(r).
template <class T>
struct ExpTail;
template <>
struct ExpTail<float> {
  static constexpr int degree = 4;
  static constexpr float c[] = {
      float(0x1.fffffc0000000p-2),
      float(0x1.55548c0000000p-3),
      float(0x1.5558580000000p-5),
      float(0x1.123de00000000p-7),
      float(0x1.6ac71c0000000p-10),
  };
};
template <>
struct ExpTail<double> {
  static constexpr int degree = 9;
  static constexpr double c[] = {
      double(0x1.000000000000ap-1),
      double(0x1.55555555554fap-3),
      double(0x1.555555555087cp-5),
      double(0x1.1111111127be9p-7),
      double(0x1.6c16c1842a13bp-10),
      double(0x1.a01a012a5696fp-13),
      double(0x1.a0199a0c61387p-16),
      double(0x1.71df2554b3e4ap-19),
      double(0x1.28ad72d24e8e1p-22),
      double(0x1.ad7f6b1b85d4cp-26),
  };
};

// log(1 + e) / e for 0 <= e <= 1, small relative error.
template <class T>
struct Log1pRatio;
template <>
struct Log1pRatio<float> {
  static constexpr int degree = 8;
  static constexpr float c[] = {
      float(0x1.fffffe0000000p-1),
      float(-0x1.fffeac0000000p-2),
      float(0x1.5530040000000p-2),
      float(-0x1.fcc8c60000000p-3),
      float(0x1.874a800000000p-3),
      float(-0x1.17d2c20000000p-3),
      float(0x1.4069dc0000000p-4),
      float(-0x1.e369f20000000p-6),
      float(0x1.56ee0c0000000p-8),
  };
};
template <>
struct Log1pRatio<double> {
  static constexpr int degree = 20;
  static constexpr double c[] = {
      double(0x1.0000000000000p+0),
      double(-0x1.fffffffffff6dp-2),
      double(0x1.555555554ff6ep-2),
      double(-0x1.fffffffd7fd98p-3),
      double(0x1.9999994a63576p-3),
      double(-0x1.55554f4f228fdp-3),
      double(0x1.2491fa7b6a608p-3),
      double(-0x1.fffa4ca9f23f8p-4),
      double(0x1.c6f5553d44f0fp-4),
      double(-0x1.98cd2ff36dd40p-4),
      double(0x1.711cf4d14ce7bp-4),
      double(-0x1.4ad866084f3d2p-4),
      double(0x1.1fddbd54fbe5cp-4),
      double(-0x1.d61fd1c863899p-5),
      double(0x1.596dd1ee82409p-5),
      double(-0x1.b432572a09549p-6),
      double(0x1.c2c43c73080b6p-7),
      double(-0x1.6896e1a3a3af4p-8),
      double(0x1.9ea33c1cfba71p-10),
      double(-0x1.2ed64dce9e778p-12),
      double(0x1.a42184ecfb3c8p-16),
  };
};

// a P(N(0,1) > a) rounds to 0 beyond.
template <class T>
struct NormalTailBound;
template <>
struct NormalTailBound<float> {
  static constexpr float value = float(0x1.d000000000000p+3);
};
template <>
struct NormalTailBound<double> {
  static constexpr double value = double(0x1.3800000000000p+5);
};

// exp(a^2/2) P(N(0,1) > a) for 0 <= a <= bound, small relative error: numerator.
template <class T>
struct NormalTailAbove;
template <>
struct NormalTailAbove<float> {
  static constexpr int degree = 4;
  static constexpr float c[] = {
      float(0x1.0000000000000p-1),
      float(0x1.c0d07c0000000p-2),
      float(0x1.7744160000000p-3),
      float(0x1.4cde3a0000000p-5),
      float(0x1.0dc4640000000p-8),
  };
};
template <>
struct NormalTailAbove<double> {
  static constexpr int degree = 9;
  static constexpr double c[] = {
      double(0x1.0000000000000p-1),
      double(0x1.8cbd29e54abcfp-1),
      double(0x1.30282890744fcp-1),
      double(0x1.2848c2928c82ap-2),
      double(0x1.9030c78833420p-4),
      double(0x1.830c20c3263a3p-6),
      double(0x1.0c03365f28476p-8),
      double(0x1.012359b999370p-11),
      double(0x1.3889a16beaa8cp-15),
      double(0x1.7402dc73d071ap-20),
  };
};

// Its denominator. All coefficients of both are positive: nothing cancels.
template <class T>
struct NormalTailBelow;
template <>
struct NormalTailBelow<float> {
  static constexpr int degree = 5;
  static constexpr float c[] = {
      float(0x1.0000000000000p+0),
      float(0x1.acaa6e0000000p+0),
      float(0x1.33d74e0000000p+0),
      float(0x1.e0bd120000000p-2),
      float(0x1.a136f00000000p-4),
      float(0x1.52195e0000000p-7),
  };
};
template <>
struct NormalTailBelow<double> {
  static constexpr int degree = 10;
  static constexpr double c[] = {
      double(0x1.0000000000000p+0),
      double(0x1.2c7fa9c1f6365p+1),
      double(0x1.47d779533552cp+1),
      double(0x1.b6e3a47753b8dp+0),
      double(0x1.906a1ad3a6a34p-1),
      double(0x1.0516843e8ae2dp-2),
      double(0x1.ef1b2adebf99ap-5),
      double(0x1.52f6d168d4604p-7),
      double(0x1.432f78f18a122p-10),
      double(0x1.87b5337ab4824p-14),
      double(0x1.d23f32a552c90p-19),
  };
};

// 2 sqrt(2 / pi) (x + 0.044715 x^3), each coefficient in two parts.
template <class T>
struct GeluTanhArgument;
template <>
struct GeluTanhArgument<float> {
  static constexpr float linear = float(0x1.9888000000000p+0);
  static constexpr float linear_tail = float(-0x1.d6615e0000000p-15);
  static constexpr float cubic = float(0x1.2444f20000000p-4);
  static constexpr float cubic_tail = float(0x1.49b16a0000000p-29);
};
template <>
struct GeluTanhArgument<double> {
  static constexpr double linear = double(0x1.9884533d44000p+0);
  static constexpr double linear_tail = double(-0x1.35ee5e0698760p-41);
  static constexpr double cubic = double(0x1.2444f2a4d8b4bp-4);
  static constexpr double cubic_tail = double(-0x1.6c843a29d1c70p-61);
};

}  // namespace geoact::GEOACT_ISA
