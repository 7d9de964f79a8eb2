// The kernels of observe.cuh for all storage types, compiled by nvcc or, as C++, for the simulation.
#include "observe.cuh"

namespace geoact::cuda {

const ObserveKernels (&observe_kernels())[4] {
  static const ObserveKernels kernels[4] = {{copy_aside<float16>, observe<float16>, fold_observed<float16>},
                                            {copy_aside<bfloat16>, observe<bfloat16>, fold_observed<bfloat16>},
                                            {copy_aside<float>, observe<float>, fold_observed<float>},
                                            {copy_aside<double>, observe<double>, fold_observed<double>}};
  return kernels;
}

int64_t tier_layout_size(const Tiers& tiers) {
  return ops::TierLayout(tiers.histogram != Histogram::none, tiers.pairs, tiers.sketch).size;
}

}  // namespace geoact::cuda
