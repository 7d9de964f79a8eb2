// A GPU through the CUDA runtime, linked statically: it looks for the driver when it is first asked.
#include <cuda_runtime_api.h>

#include <map>
#include <mutex>
#include <stdexcept>

#include "runtime.h"

namespace geoact::cuda {
namespace {

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next call of anybody would report it
  throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
}

// The device of the arrays for the time of a call.
class On {
 public:
  explicit On(int id) {
    check(cudaGetDevice(&before_), "no current device");
    if (before_ != id) check(cudaSetDevice(id), "the device of the arrays cannot be used");
    changed_ = before_ != id;
  }
  ~On() {
    if (changed_) cudaSetDevice(before_);
  }
  On(const On&) = delete;
  On& operator=(const On&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

}  // namespace

std::string why_unavailable() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaSuccess) return count > 0 ? "" : "no CUDA device is visible";
  cudaGetLastError();
  if (status == cudaErrorNoDevice) return "no CUDA device is visible";
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    const auto version = [](int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); };
    if (driver == 0) return "no NVIDIA driver is installed";
    return "the NVIDIA driver is too old: it supports CUDA " + version(driver) + ", this build needs " +
           version(runtime) + "; update the driver, or build geoact with an older CUDA toolkit";
  }
  return cudaGetErrorString(status);
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) cudaGetLastError(), count = 0;
  return count;
}

const Device& device(int id) {
  static std::mutex lock;
  static std::map<int, Device> known;
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = known.find(id);
  if (found != known.end()) return found->second;
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, id), "the device cannot be asked");
  return known[id] = Device{properties.name, properties.major, properties.minor, properties.multiProcessorCount};
}

int resident_blocks(const Entry& entry, int threads, int id) {
  static std::mutex lock;
  static std::map<std::pair<const void*, int>, int> known;
  const std::lock_guard<std::mutex> guard(lock);
  const auto* kernel = reinterpret_cast<const void*>(entry.kernel);
  const auto key = std::make_pair(kernel, id * 2048 + threads);
  const auto found = known.find(key);
  if (found != known.end()) return found->second;
  const On on(id);
  if (entry.shared_bytes > 48 * 1024)  // more than a kernel may have unasked
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, entry.shared_bytes);
  int blocks = 0;
  const cudaError_t status =
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, size_t(entry.shared_bytes));
  if (status == cudaErrorInvalidDeviceFunction || status == cudaErrorNoKernelImageForDevice) {
    cudaGetLastError();
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, id), "the device cannot be asked");
    throw std::runtime_error("this build of geoact has no code for " + std::string(properties.name) + " (sm_" +
                             std::to_string(properties.major) + std::to_string(properties.minor) +
                             "); build it with CUDAARCHS=" + std::to_string(properties.major) +
                             std::to_string(properties.minor) + "-real");
  }
  check(status, "the kernel cannot be asked");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, id), "the device cannot be asked");
  return known[key] = (blocks > 0 ? blocks : 1) * properties.multiProcessorCount;
}

void launch(const Entry& entry, int64_t grid, int threads, int id, void* stream, const Plan& plan) {
  const On on(id);
  void* arguments[] = {const_cast<Plan*>(&plan)};
  check(cudaLaunchKernel(reinterpret_cast<const void*>(entry.kernel), dim3(unsigned(grid)), dim3(unsigned(threads)),
                         arguments, size_t(entry.shared_bytes), stream_of(stream)),
        "the kernel could not be launched");
}

void launch(MaskKernel kernel, int64_t grid, int threads, int id, void* stream, const MaskPlan& plan) {
  const On on(id);
  void* arguments[] = {const_cast<MaskPlan*>(&plan)};
  check(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(unsigned(grid)), dim3(unsigned(threads)),
                         arguments, 0, stream_of(stream)),
        "the kernel could not be launched");
}

void launch(ObserveKernel kernel, int64_t grid, int threads, int id, void* stream, const ObservePlan& plan) {
  const On on(id);
  void* arguments[] = {const_cast<ObservePlan*>(&plan)};
  check(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(unsigned(grid)), dim3(unsigned(threads)),
                         arguments, 0, stream_of(stream)),
        "the kernel could not be launched");
}

bool capturing(int id, void* stream) {
  const On on(id);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream_of(stream), &status), "the stream cannot be asked");
  return status != cudaStreamCaptureStatusNone;
}

void fill(void* to, int byte, int64_t bytes, int id, void* stream) {
  const On on(id);
  check(cudaMemsetAsync(to, byte, size_t(bytes), stream_of(stream)), "memory could not be cleared");
}

void upload(void* to, const void* from, int64_t bytes, int id, void* stream) {
  const On on(id);
  check(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyHostToDevice, stream_of(stream)),
        "memory could not be written");
}

void download(void* to, const void* from, int64_t bytes, int id) {
  const On on(id);
  check(cudaDeviceSynchronize(), "work on the device failed");
  check(cudaMemcpy(to, from, size_t(bytes), cudaMemcpyDeviceToHost), "memory could not be read");
}

}  // namespace geoact::cuda
