// A pool of std::threads: made on first use, safe across fork, silent when idle. No OpenMP, because its runtime hangs
// in a forked child and would fight the copy that torch brings.
#pragma once

#include <cstdint>

namespace geoact {

// Calls body(context, i) once for every i in [0, n), on up to num_threads() threads, in any order; returns when all are
// done. Falls back to the calling thread while another call holds the pool, and inside a call.
void parallel_for(int64_t n, void (*body)(void* context, int64_t i), void* context);

int num_threads();
void set_num_threads(int n);  // 1 <= n
int default_num_threads();    // GEOACT_NUM_THREADS, else the processors this process may run on

// scratch_bytes of memory that belongs to the calling thread, 64-byte aligned.
void* thread_scratch();

}  // namespace geoact
