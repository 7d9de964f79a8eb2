// The CUDA kernels of float32 and two activations, for kernels_sim.cpp where a sanitizer makes all of them too slow to
// compile. Activations keep their numbers: Sigmoid is 0, Relu is 3.
#define GEOACT_STORAGE float
#define GEOACT_TABLE rows_float32
#define GEOACT_ACTIVATIONS ops::list<ops::Sigmoid, ops::Sigmoid, ops::Sigmoid, ops::Relu>
#include "../../csrc/cuda/kernels.cu"

namespace geoact::cuda {

const Row* rows_float16() { return nullptr; }
const Row* rows_bfloat16() { return nullptr; }
const Row* rows_float64() { return nullptr; }

}  // namespace geoact::cuda
