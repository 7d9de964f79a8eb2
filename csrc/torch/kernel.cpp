#include "kernel.h"

#include <ATen/EmptyTensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/variable.h>

namespace geoact::torch_fast {

Links links;

namespace {

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kHalf:
      return DType::float16;
    case at::kBFloat16:
      return DType::bfloat16;
    case at::kDouble:
      return DType::float64;
    default:
      return DType::float32;
  }
}

}  // namespace

bool is_plain(const at::Tensor& tensor) {
  using c10::DispatchKey;
  // Anything beyond these is a wrapper, a lazy view or another kind of storage or device; the neg bit is a key too.
  constexpr c10::DispatchKeySet usual{DispatchKey::CPU, DispatchKey::AutogradCPU, DispatchKey::ADInplaceOrView,
                                      DispatchKey::AutocastCPU};
  const c10::DispatchKeySet keys = tensor.key_set();
  if ((keys.raw_repr() & ~usual.raw_repr()) != 0 || !keys.has(DispatchKey::CPU)) return false;
  const at::ScalarType type = tensor.scalar_type();
  if (type != at::kFloat && type != at::kDouble && type != at::kHalf && type != at::kBFloat16) return false;
  return !tensor._fw_grad(0).defined();
}

bool is_plain_thread() {
  const c10::DispatchKeySet included = c10::impl::tls_local_dispatch_key_set().included_;
  return (included - c10::default_included_set).empty();
}

at::Tensor new_like(const at::Tensor& tensor) {
  if (!tensor.is_non_overlapping_and_dense()) return at::empty_like(tensor);
  return at::detail::empty_strided_cpu(tensor.sizes(), tensor.strides(), tensor.scalar_type());
}

Request request(Direction direction, const Row& row, const Parameters& parameters) {
  Request request;
  request.direction = direction;
  request.activation = row.index;
  request.inputs = direction == Direction::forward ? 1 : 2;
  request.in_place = false;
  request.numbers = parameters.numbers;
  for (int k = 0; k < parameters.numbers; ++k) request.number[k] = parameters.number[k];
  request.channel_axis = parameters.channel_axis;
  request.locked = true;
  return request;
}

void describe(bindings::Described& into, const at::Tensor& tensor, const void* data) {
  into.data = const_cast<void*>(data);  // the kernels write only to `out`
  into.shape = tensor.sizes().data();
  into.stride = tensor.strides().data();
  into.rank = int(tensor.dim());
  into.dtype = dtype_of(tensor);
}

}  // namespace geoact::torch_fast
