// The few things asked of a device: who it is, to run a kernel, to move memory. One file per kind of device implements
// them: runtime_cuda.cpp, runtime_sim.cpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "launch.h"
#include "mask_launch.h"
#include "observe_launch.h"

namespace geoact::cuda {

struct Device {
  std::string name;
  int major = 0, minor = 0, multiprocessors = 1;
};

// Why nothing can run, or "" if it can; never raises.
std::string why_unavailable();
int device_count();
const Device& device(int id);  // raises std::runtime_error

int resident_blocks(const Entry& entry, int threads, int id);  // of the whole device
void launch(const Entry& entry, int64_t grid, int threads, int id, void* stream, const Plan& plan);
void launch(MaskKernel kernel, int64_t grid, int threads, int id, void* stream, const MaskPlan& plan);
void launch(ObserveKernel kernel, int64_t grid, int threads, int id, void* stream, const ObservePlan& plan);

bool capturing(int id, void* stream);
void fill(void* to, int byte, int64_t bytes, int id, void* stream);            // in the stream's order
void upload(void* to, const void* from, int64_t bytes, int id, void* stream);  // `from` may be reused at once
void download(void* to, const void* from, int64_t bytes, int id);              // after all work on the device
inline constexpr const char* kind =
#if defined(GEOACT_SIM)
    "sim";
#else
    "cuda";
#endif

}  // namespace geoact::cuda
