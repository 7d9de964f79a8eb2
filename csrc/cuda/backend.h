// A device that can run calls, as geoact._core sees it: `_cuda` and `_cusim` each hand one over in a capsule, so that
// the core links no CUDA. Both sides are of one build.
#pragma once

#include <string>

#include "launch.h"

namespace geoact::cuda {

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string why_unavailable() const = 0;  // "" where it can run
  virtual Launch prepare(const Request& request, bool again) const = 0;
  virtual void run(Launch& launch, void* tickets, void* workspace) const = 0;
  virtual void mask(const Call& call, uint8_t* bits, int id, void* stream) const = 0;  // mask_launch.h
  // observe_launch.h; `observes` says whether this backend has them
  virtual bool observes() const = 0;
  virtual int64_t observe_bytes(const Call& call, int id) const = 0;
  virtual void aside(const Call& call, void* to, int id, void* stream) const = 0;
  virtual void observe(const Call& call, void* aside, void* state, void* partials, int id, void* stream) const = 0;
  virtual bool capturing(int id, void* stream) const = 0;
  virtual void fill(void* to, int byte, int64_t bytes, int id, void* stream) const = 0;  // may be captured
  virtual void upload(void* to, const void* from, int64_t bytes, int id, void* stream) const = 0;
  virtual void download(void* to, const void* from, int64_t bytes, int id) const = 0;
};

inline constexpr const char* backend_capsule = "geoact._core.backend";
const Backend& backend();  // of this build: backend.cpp

}  // namespace geoact::cuda
