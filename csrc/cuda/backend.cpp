#include "backend.h"

#include "mask_launch.h"
#include "observe_launch.h"
#include "runtime.h"

namespace geoact::cuda {
namespace {

class Runtime final : public Backend {
 public:
  std::string why_unavailable() const override { return cuda::why_unavailable(); }
  Launch prepare(const Request& request, bool again) const override { return cuda::prepare(request, again); }
  void run(Launch& launch, void* tickets, void* workspace) const override { cuda::run(launch, tickets, workspace); }
  void mask(const Call& call, uint8_t* bits, int id, void* stream) const override {
    cuda::run_mask(call, bits, id, stream);
  }
  bool observes() const override { return true; }
  int64_t observe_bytes(const Call& call, int id) const override { return cuda::observe_bytes(call, id); }
  void aside(const Call& call, void* to, int id, void* stream) const override { cuda::run_aside(call, to, id, stream); }
  void observe(const Call& call, void* aside, void* state, void* partials, int id, void* stream) const override {
    cuda::run_observe(call, aside, state, partials, id, stream);
  }
  bool capturing(int id, void* stream) const override { return cuda::capturing(id, stream); }
  void fill(void* to, int byte, int64_t bytes, int id, void* stream) const override {
    cuda::fill(to, byte, bytes, id, stream);
  }
  void upload(void* to, const void* from, int64_t bytes, int id, void* stream) const override {
    cuda::upload(to, from, bytes, id, stream);
  }
  void download(void* to, const void* from, int64_t bytes, int id) const override {
    cuda::download(to, from, bytes, id);
  }
};

}  // namespace

const Backend& backend() {
  static const Runtime runtime;
  return runtime;
}

}  // namespace geoact::cuda
