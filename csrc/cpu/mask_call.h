// ReLU with its bit mask (call/mask.h): one call cut into boxes that stay in cache, spread over the threads.
#pragma once

#include "dispatch.h"

namespace geoact {

// Forward: y = relu(x) and the bits. Backward: dx of dy and the bits, which are read. `cells`
// [cells_per_group][groups], of the forward call alone, are overwritten with its record; or null.
void execute_masked(const Call& call, uint8_t* mask, double* cells);

}  // namespace geoact
