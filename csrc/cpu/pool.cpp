#include "pool.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

#include "kernels.h"

namespace geoact {
namespace {

class Pool {
 public:
  void run(int64_t n, int helpers, void (*body)(void*, int64_t), void* context) {
    {
      std::lock_guard lock(mutex_);
      while (int(threads_.size()) < helpers) {
        threads_.emplace_back([this, id = int(threads_.size())] { serve(id); });
        threads_.back().detach();  // they outlive us asleep: joining at exit could wait for a forked-away thread
      }
      body_ = body;
      context_ = context;
      size_ = n;
      next_.store(0, std::memory_order_relaxed);
      wanted_ = helpers;
      running_ = helpers;
      ++generation_;
    }
    wake_.notify_all();
    take(body, context, n);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
  }

  std::mutex caller;  // held by the one call that uses the pool

 private:
  void take(void (*body)(void*, int64_t), void* context, int64_t n) {
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n;) body(context, i);
  }
  void serve(int id) {
    uint64_t seen = 0;
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (id >= wanted_) continue;
      const auto body = body_;
      const auto context = context_;
      const auto n = size_;
      lock.unlock();
      take(body, context, n);
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  std::atomic<int64_t> next_{0};
  void (*body_)(void*, int64_t) = nullptr;
  void* context_ = nullptr;
  int64_t size_ = 0;
  int wanted_ = 0, running_ = 0;
  uint64_t generation_ = 0;
};

std::atomic<Pool*> pool{nullptr};
std::atomic<int> threads{0};

// A forked child has the pool's memory but none of its threads: it starts over and leaves the old one alone.
void forget_pool() { pool.store(nullptr); }

Pool& the_pool() {
  Pool* p = pool.load();
  if (p) return *p;
#if defined(__unix__) || defined(__APPLE__)
  static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
  (void)registered;
#endif
  auto fresh = std::make_unique<Pool>();
  if (pool.compare_exchange_strong(p, fresh.get())) return *fresh.release();  // lives as long as the process
  return *p;
}

thread_local bool inside = false;

struct Scratch {
  void* memory = ::operator new(size_t(scratch_bytes), std::align_val_t(64));
  ~Scratch() { ::operator delete(memory, std::align_val_t(64)); }
};

}  // namespace

void parallel_for(int64_t n, void (*body)(void*, int64_t), void* context) {
  const int64_t helpers = (n < num_threads() ? n : num_threads()) - 1;
  if (helpers > 0 && !inside) {
    Pool& p = the_pool();
    if (std::unique_lock lock(p.caller, std::try_to_lock); lock) {
      inside = true;
      p.run(n, int(helpers), body, context);
      inside = false;
      return;
    }
  }
  for (int64_t i = 0; i < n; ++i) body(context, i);
}

int default_num_threads() {
  if (const char* text = std::getenv("GEOACT_NUM_THREADS")) {
    char* end = nullptr;
    const long n = std::strtol(text, &end, 10);
    if (end != text && *end == 0 && n >= 1 && n <= 4096) return int(n);
    return -1;
  }
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n ? int(n) : 1;
}

int num_threads() {
  const int n = threads.load(std::memory_order_relaxed);
  if (n) return n;
  const int fallback = default_num_threads();
  threads.store(fallback > 0 ? fallback : 1);
  return threads.load();
}
void set_num_threads(int n) { threads.store(n); }

void* thread_scratch() {
  thread_local Scratch scratch;
  return scratch.memory;
}

}  // namespace geoact
