// Settings, launches and their checks, and what kernels call of sim.h. Of the two ways to run a block one is compiled.
#include "sim.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>

#if defined(GEOACT_SIM_OS_THREADS)
#include "sim/threads.h"
#else
#include "sim/fibers.h"
#endif

namespace geoact::sim {

// --- settings ----------------------------------------------------------------------------------------------

static bool parse(const char* text, uint64_t& value) {
  if (*text < '0' || *text > '9') return false;
  char* end;
  value = std::strtoull(text, &end, 10);
  return *end == 0;
}

struct Environment : Settings {
  Environment() {
    if (const char* text = std::getenv("GEOACT_SIM_ORDER")) {
      if (!std::strcmp(text, "forward"))
        order = Order::forward;
      else if (!std::strcmp(text, "reverse"))
        order = Order::reverse;
      else if (!std::strncmp(text, "random:", 7) && parse(text + 7, seed))
        order = Order::random;
      else
        throw Misuse(std::string("GEOACT_SIM_ORDER is forward, reverse or random:<seed>, not ") + text);
    }
    if (const char* text = std::getenv("GEOACT_SIM_THREADS")) {
      uint64_t value;
      if (!parse(text, value) || value < 1 || value > 1024)
        throw Misuse(std::string("GEOACT_SIM_THREADS is a number from 1 to 1024, not ") + text);
      os_threads = int(value);
    }
  }
};

Settings& settings() {
  static Environment instance;
  return instance;
}

// --- what kernels call -------------------------------------------------------------------------------------

static Processor& here() {
  if (!processor) throw Misuse("geoact::sim: a device function was called outside a kernel");
  return *processor;
}

void* dynamic_shared(size_t alignment) {
  if (alignment > 16) throw Misuse(here().name() + ": dynamic shared memory is aligned to 16 bytes at most");
  return here().dynamic();
}
void* static_shared(const void* key, size_t size, size_t alignment) {
  if (alignment > size_t(Memory::alignment))
    throw Misuse(here().name() + ": a shared variable asks for too much alignment");
  return here().fixed(key, size);
}

inline namespace
#if defined(GEOACT_SIM_OS_THREADS)
    os_threads {
#else
    fibers {
#endif

uint64_t meet_warp(Kind kind, unsigned mask, uint64_t payload, int source, const Site& site) {
  return here().meet_warp({kind, mask, source, payload, site});
}
int meet_block(Kind kind, bool predicate, const Site& site) { return here().meet_block(kind, predicate, site); }
unsigned present_lanes() { return here().present(); }
int lane() { return int(here().self() % 32); }
void pass_atomic() {
  if (processor) processor->pass_atomic();
}
void trap(const Site& site) {
  throw Misuse(here().name() + " trapped (" + site.file + ":" + std::to_string(site.line) + ")");
}

// --- launches ----------------------------------------------------------------------------------------------

static void check(const Launch& launch) {
  const auto text = [](dim3 d) {
    return "(" + std::to_string(d.x) + ", " + std::to_string(d.y) + ", " + std::to_string(d.z) + ")";
  };
  const dim3 grid = launch.grid, block = launch.block;
  if (processor) throw Misuse("geoact::sim: a kernel cannot launch kernels");
  if (block.x == 0 || block.y == 0 || block.z == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      uint64_t(block.x) * block.y * block.z > 1024)
    throw Misuse("geoact::sim: a block of " + text(block) + " threads: 1 to 1024 are allowed, at most 64 along z");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    throw Misuse("geoact::sim: a grid of " + text(grid) + " blocks: 1 to (2147483647, 65535, 65535) are allowed");
  if (launch.shared_bytes > launch.shared_limit)
    throw Misuse("geoact::sim: " + std::to_string(launch.shared_bytes) + " bytes of shared memory, the limit is " +
                 std::to_string(launch.shared_limit));
  if (settings().os_threads < 1) throw Misuse("geoact::sim: settings().os_threads must be at least 1");
}

namespace {

// Processors are kept: making fibers costs more than running a block.
class Idle {
 public:
  std::unique_ptr<Processor> take() {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<Processor>();
    auto processor = std::move(idle_.back());
    idle_.pop_back();
    return processor;
  }
  void give(std::unique_ptr<Processor> processor) {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(processor));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Processor>> idle_;
};

class Grid {
 public:
  explicit Grid(const Launch& launch)
      : launch_(launch), count_(uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z) {
    if (launch.order != Order::random) return;
    order_.resize(count_);
    for (uint64_t i = 0; i < count_; ++i) order_[i] = i;
    std::shuffle(order_.begin(), order_.end(), std::mt19937_64(launch.seed));
  }

  void run(Idle& idle, int os_threads) {
    std::vector<std::thread> helpers;
    try {
      while (helpers.size() + 1 < std::min<uint64_t>(uint64_t(os_threads), count_))
        helpers.emplace_back([&] { work(idle); });
    } catch (const std::system_error&) {  // fewer do as well
    }
    work(idle);
    for (std::thread& helper : helpers) helper.join();
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void work(Idle& idle) try {
    auto processor = idle.take();
    std::string error;
    for (uint64_t i; error.empty() && !stop_ && (i = next_++) < count_;) {
      const uint64_t b = launch_.order == Order::forward   ? i
                         : launch_.order == Order::reverse ? count_ - 1 - i
                                                           : order_[i];
      const unsigned x = launch_.grid.x, y = launch_.grid.y;
      error = processor->run(launch_, {unsigned(b % x), unsigned(b / x % y), unsigned(b / x / y)});
      ++settings().blocks;
    }
    idle.give(std::move(processor));
    if (!error.empty()) throw Misuse(error);
  } catch (...) {
    stop_ = true;
    std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }

  const Launch& launch_;
  const uint64_t count_;
  std::vector<uint64_t> order_;
  std::atomic<uint64_t> next_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

void run(void (*body)(const void*), const void* context, dim3 grid, dim3 block, size_t shared_bytes) {
  Settings& s = settings();
  const auto timeout = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s.timeout));
  const Launch launch{
      body, context, grid, block, shared_bytes, s.order, s.seed, s.shared_limit, Clock::now() + timeout};
  check(launch);
  static Idle* const idle = new Idle;  // never destroyed: launches may come from destructors at exit
  ++s.launches;
#if defined(GEOACT_SIM_OS_THREADS)
  static std::mutex one_block;  // __shared__ is static
  std::lock_guard lock(one_block);
  Grid(launch).run(*idle, 1);
#else
  Grid(launch).run(*idle, s.os_threads);
#endif
}

}  // namespace

}  // namespace geoact::sim
