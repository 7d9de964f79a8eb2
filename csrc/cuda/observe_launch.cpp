#include "observe_launch.h"

#include <algorithm>

#include "runtime.h"

namespace geoact::cuda {
namespace {

ObservePlan plan_of(const Call& call, void* aside, int id) {
  ObservePlan plan{};
  const int axis = call.tiers.channel_axis;
  plan.at[0] = call.in[0].data, plan.at[1] = call.out[0].data;
  plan.aside = static_cast<char*>(aside);
  plan.rows = 1, plan.columns = call.rank ? call.shape[axis] : 1;
  plan.column_step[0] = call.rank ? call.in[0].stride[axis] : 0;
  plan.column_step[1] = call.rank ? call.out[0].stride[axis] : 0;
  for (int i = 0; i < call.rank; ++i) {
    if (i == axis) continue;
    plan.size[plan.rank] = call.shape[i];
    plan.step[0][plan.rank] = call.in[0].stride[i], plan.step[1][plan.rank] = call.out[0].stride[i];
    plan.rows *= call.shape[i];
    ++plan.rank;
  }
  plan.histogram = int(call.tiers.histogram), plan.pairs = call.tiers.pairs, plan.sketch = call.tiers.sketch;
  // A block of rows begins at an even one, so that no pair is cut. Sketches have large records: fewer blocks.
  const int64_t most = device(id).multiprocessors * (plan.sketch ? 1 : 4), pairs = (plan.rows + 1) / 2;
  plan.rows_per_block = 2 * ((pairs + most - 1) / most);
  plan.blocks = (plan.rows + plan.rows_per_block - 1) / plan.rows_per_block;
  return plan;
}

}  // namespace

int64_t observe_bytes(const Call& call, int id) {
  return plan_of(call, nullptr, id).blocks * tier_layout_size(call.tiers) * int64_t(sizeof(double));
}

void run_aside(const Call& call, void* aside, int id, void* stream) {
  const ObservePlan plan = plan_of(call, aside, id);
  launch(observe_kernels()[int(call.dtype)].copy, plan.blocks, observe_threads, id, stream, plan);
}

void run_observe(const Call& call, void* aside, void* state, void* partials, int id, void* stream) {
  ObservePlan plan = plan_of(call, aside, id);
  plan.state = static_cast<int64_t*>(state), plan.partials = static_cast<double*>(partials);
  const ObserveKernels& kernels = observe_kernels()[int(call.dtype)];
  launch(kernels.observe, plan.blocks, observe_threads, id, stream, plan);
  launch(kernels.fold, 1, observe_threads, id, stream, plan);
}

}  // namespace geoact::cuda
