#include "call.h"

#include <algorithm>
#include <cstdlib>

namespace geoact {

int64_t elements_of(const Call& call) {
  int64_t total = 1;
  for (int i = 0; i < call.rank; ++i) total *= call.shape[i];
  return total;
}

int arrange(const Call& call, Axis* axes) {
  int rank = 0;
  for (int i = 0; i < call.rank; ++i) {
    if (call.shape[i] == 1) continue;
    Axis& axis = axes[rank++];
    axis = {call.shape[i], {}, call.group_stride[i], call.parameter_step[i]};
    for (int k = 0; k < call.inputs; ++k) axis.stride[k] = call.in[k].stride[i];
    for (int k = 0; k < call.outputs; ++k) axis.stride[call.inputs + k] = call.out[k].stride[i];
  }
  std::stable_sort(axes, axes + rank,
                   [](const Axis& a, const Axis& b) { return std::abs(a.stride[0]) > std::abs(b.stride[0]); });
  int last = 0;
  for (int i = 1; i < rank; ++i) {
    Axis& outer = axes[last];
    const Axis& inner = axes[i];
    bool alike = outer.group == inner.group * inner.size && outer.parameter == inner.parameter * inner.size;
    for (int k = 0; k < call.inputs + call.outputs; ++k) alike &= outer.stride[k] == inner.stride[k] * inner.size;
    if (alike) {
      const int64_t size = outer.size * inner.size;
      outer = inner;
      outer.size = size;
    } else {
      axes[++last] = inner;
    }
  }
  return rank ? last + 1 : 0;
}

}  // namespace geoact
