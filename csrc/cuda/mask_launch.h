// ReLU with its bit mask (call/mask.h): from a call to a launch. Host code, but for the plan that the kernel is handed.
#pragma once

#include "../call/mask.h"
#include "plan.h"

namespace geoact::cuda {

struct MaskPlan {
  const char* in;
  char* out;
  uint8_t* mask;
  int64_t rows, words;  // words of 32 elements of a row
  MaskAxis columns;
  int rank;  // of the axes of rows
  MaskAxis axis[most_axes];
};

using MaskKernel = void (*)(MaskPlan);
const MaskKernel (&mask_kernels())[4][2];  // by dtype and direction

// On the device `id`, in the order of the stream. Raises std::invalid_argument.
void run_mask(const Call& call, uint8_t* mask, int id, void* stream);

}  // namespace geoact::cuda
