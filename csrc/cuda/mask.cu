// The kernels of mask.cuh for all storage types, compiled by nvcc or, as C++, for the simulation.
#include "mask.cuh"

namespace geoact::cuda {

const MaskKernel (&mask_kernels())[4][2] {
  static const MaskKernel kernels[4][2] = {{relu_mask<float16, true>, relu_mask<float16, false>},
                                           {relu_mask<bfloat16, true>, relu_mask<bfloat16, false>},
                                           {relu_mask<float, true>, relu_mask<float, false>},
                                           {relu_mask<double, true>, relu_mask<double, false>}};
  return kernels;
}

}  // namespace geoact::cuda
