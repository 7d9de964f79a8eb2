// The CUDA kernels of float32 and three activations, for kernels_sim.cpp where a sanitizer makes all of them too slow
// to compile. Sigmoid is 0 and Relu is 3, as in the whole list; Prelu, which is trained, is 1 here.
#define GEOACT_STORAGE float
#define GEOACT_TABLE rows_float32
#define GEOACT_ACTIVATIONS ops::list<ops::Sigmoid, ops::Prelu, ops::Sigmoid, ops::Relu>
#define GEOACT_GATES ops::list<>
#include "../../csrc/cuda/kernels.cu"
#include "../../csrc/cuda/mask.cu"
#include "../../csrc/cuda/observe.cu"

namespace geoact::cuda {

const Row* rows_float16(bool) { return nullptr; }
const Row* rows_bfloat16(bool) { return nullptr; }
const Row* rows_float64(bool) { return nullptr; }

}  // namespace geoact::cuda
