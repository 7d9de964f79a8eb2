// Compiled once per storage type, by nvcc or, as C++, for the simulation: every kernel of that type, reached through
// one table. GEOACT_STORAGE is the type in memory, GEOACT_TABLE the one function that leaves the object.
#include "launch.h"
#include "pass.cuh"

#if !defined(GEOACT_ACTIVATIONS)  // tests compile some
#define GEOACT_ACTIVATIONS ops::activations
#endif
#if !defined(GEOACT_GATES)
#define GEOACT_GATES ops::gates
#endif

namespace geoact::cuda {
namespace {

using S = GEOACT_STORAGE;
using V = compute<S>::type;

template <class Pass, bool Columns, bool Measured>
Entry entry() {
  using Slots = typename Work<Pass, Columns, Measured>::Slots;
  constexpr bool reduces = Measured || Pass::weights > 0;
  return {pass<Pass, Columns, Measured>, reduces ? int(sizeof(Slots)) : 0, Slots::rare_fields};
}

template <class Pass>
void fill(Entry (&entries)[2][2]) {
  entries[false][false] = entry<Pass, false, false>();
  entries[false][true] = entry<Pass, false, true>();
  entries[true][true] = entry<Pass, true, true>();
  // Without statistics only a weight makes groups of columns.
  if constexpr (Pass::Activation::trainable > 0) entries[true][false] = entry<Pass, true, false>();
}

template <class Forward, class Backward>
Row row() {
  Row r;
  fill<Forward>(r.forward);
  fill<Backward>(r.backward);
  return r;
}

template <template <class> class... A>
const Row* activations(ops::list<A...>) {
  static const Row rows[] = {row<Forward<A, S>, Backward<A, S>>()...};
  return rows;
}
template <template <class> class... G>
const Row* gates(ops::list<G...>) {
  static const Row rows[] = {row<GatedForward<G, S>, GatedBackward<G, S>>()..., Row{}};  // there may be none
  return rows;
}

}  // namespace

const Row* GEOACT_TABLE(bool gated) { return gated ? gates(GEOACT_GATES{}) : activations(GEOACT_ACTIVATIONS{}); }

}  // namespace geoact::cuda
