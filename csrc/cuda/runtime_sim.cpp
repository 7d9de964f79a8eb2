// The simulated device: host memory, one stream, everything done when a call returns.
#include <algorithm>
#include <cstring>

#include "runtime.h"
#include "sim.h"

namespace geoact::cuda {

std::string why_unavailable() { return ""; }
int device_count() { return 1; }
const Device& device(int) {
  static const Device simulated{"simulation", 0, 0, 2};
  return simulated;
}

// Few, so that blocks take several segments in turn.
int resident_blocks(const Entry&, int threads, int) { return threads >= 256 ? 3 : 4; }

void launch(const Entry& entry, int64_t grid, int threads, int, void*, const Plan& plan) {
  sim::launch(entry.kernel, dim3(unsigned(grid)), dim3(unsigned(threads)), size_t(entry.shared_bytes), plan);
}

void launch(MaskKernel kernel, int64_t grid, int threads, int, void*, const MaskPlan& plan) {
  sim::launch(kernel, dim3(unsigned(grid)), dim3(unsigned(threads)), 0, plan);
}

void launch(ObserveKernel kernel, int64_t grid, int threads, int, void*, const ObservePlan& plan) {
  sim::launch(kernel, dim3(unsigned(grid)), dim3(unsigned(threads)), 0, plan);
}

bool capturing(int, void*) { return false; }
void fill(void* to, int byte, int64_t bytes, int, void*) { std::memset(to, byte, size_t(bytes)); }
void upload(void* to, const void* from, int64_t bytes, int, void*) { std::memcpy(to, from, size_t(bytes)); }
void download(void* to, const void* from, int64_t bytes, int) { std::memcpy(to, from, size_t(bytes)); }

}  // namespace geoact::cuda
