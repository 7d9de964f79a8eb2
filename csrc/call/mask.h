// WHERE the bits of a mask lie: one per element of a call, in C order whatever the strides of the arrays, each row of
// the last axis from a byte of its own. Bit i % 8 of byte i / 8 belongs to element i of its row; bits past a row are 0.
#pragma once

#include "call.h"

namespace geoact {

// One axis of a call with a mask. Steps are bytes, and that of the last axis in the mask is one byte per 8 elements.
struct MaskAxis {
  int64_t size, in, out, mask;
};

// The axes of the call as they came, the last one innermost; at least one. Returns how many.
int mask_axes(const Call& call, MaskAxis* axes);
int64_t mask_bytes(const Call& call);

// Axes of one element dropped, and rows joined to the last axis where they follow each other without bits between them.
int merge(MaskAxis* axes, int rank);

}  // namespace geoact
