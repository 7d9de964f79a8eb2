// How the threads of sim.h are run: launches and their checks, shared memory, and one of two ways to run a block,
// fibers (the default) or OS threads (GEOACT_SIM_OS_THREADS).
#include "sim.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "sim_block.h"

#if defined(__SANITIZE_ADDRESS__)
#define GEOACT_SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GEOACT_SIM_ASAN 1
#endif
#endif
#if defined(GEOACT_SIM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(GEOACT_SIM_OS_THREADS)
#include <sys/mman.h>
#include <unistd.h>
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

// --- what both ways to run a block have in common ------------------------------------------------------------

namespace {

constexpr unsigned char poison = 0xff;

using Clock = std::chrono::steady_clock;

struct Launch {
  void (*body)(const void*);
  const void* context;
  dim3 grid, block;
  size_t shared_bytes;
  Order order;
  uint64_t seed;
  size_t shared_limit;
  Clock::time_point deadline;
};

struct Random {  // SplitMix64
  uint64_t state = 0;
  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  unsigned below(unsigned n) { return unsigned((next() >> 32) * n >> 32); }
};

// Heap blocks of the exact size, so that AddressSanitizer sees the first byte beyond.
struct Memory {
  static constexpr std::align_val_t alignment{128};
  void* data = nullptr;
  size_t size = 0;
  Memory() = default;
  explicit Memory(size_t size) : data(::operator new(size, alignment)), size(size) {}
  Memory(Memory&& other) noexcept : data(std::exchange(other.data, nullptr)), size(other.size) {}
  Memory& operator=(Memory&& other) noexcept {
    std::swap(data, other.data);
    std::swap(size, other.size);
    return *this;
  }
  ~Memory() { ::operator delete(data, alignment); }
  void clear() { std::memset(data, poison, size); }
};

class Shared {
 public:
  void start(const Launch& launch) {
    if (!dynamic_.data || dynamic_.size != launch.shared_bytes) dynamic_ = Memory(launch.shared_bytes);
    dynamic_.clear();
    limit_ = launch.shared_limit;
    used_ = launch.shared_bytes;
    ++serial_;
  }
  void* dynamic() { return dynamic_.data; }
  void* fixed(const void* key, size_t size) {
    for (Variable& variable : variables_)
      if (variable.key == key) return variable.serial == serial_ ? variable.memory.data : touch(variable);
    variables_.push_back({key, 0, Memory(size)});
    return touch(variables_.back());
  }

 private:
  struct Variable {
    const void* key;
    uint64_t serial;  // of the block that used it last
    Memory memory;
  };
  void* touch(Variable& variable) {
    variable.serial = serial_;
    variable.memory.clear();
    used_ += variable.memory.size;
    if (used_ > limit_)
      throw Misuse("geoact::sim: the block uses " + std::to_string(used_) + " bytes of shared memory, the limit is " +
                   std::to_string(limit_));
    return variable.memory.data;
  }
  Memory dynamic_;
  std::vector<Variable> variables_;
  size_t used_ = 0, limit_ = 0;
  uint64_t serial_ = 0;
};

const char* const timed_out = " still spins on an atomic at the end of settings().timeout";

}  // namespace

#if defined(GEOACT_SIM_OS_THREADS)

// --- every thread an OS thread -------------------------------------------------------------------------------

namespace {

struct Cancelled {};  // another thread of the block has failed
struct Stuck {};      // this was the last thread that could run

// Locks are per warp and per barrier, so that ThreadSanitizer sees no order between threads which the kernel did not
// ask for; everything else is relaxed.
class Processor {
 public:
  std::string run(const Launch& launch, uint3 index) {
    launch_ = &launch;
    block_.start(launch.block, index);
    shared_.start(launch);
    error_.clear();
    failed_ = stuck_ = false;
    generation_ = 0;
    running_ = int(block_.threads);
    std::vector<unsigned> order(block_.threads);
    for (unsigned i = 0; i < block_.threads; ++i) order[i] = i;
    if (launch.order == Order::reverse) std::reverse(order.begin(), order.end());
    if (launch.order == Order::random) std::shuffle(order.begin(), order.end(), std::mt19937_64(launch.seed));
    std::vector<std::thread> threads;
    try {
      for (unsigned thread : order) threads.emplace_back([this, thread] { live(thread); });
    } catch (const std::exception& e) {
      fail(std::string("geoact::sim: cannot start the threads of a block: ") + e.what());
    }
    for (std::thread& thread : threads) thread.join();
    return stuck_ ? block_.describe_deadlock() : error_;
  }

  uint64_t meet_warp(const Request& request);
  int meet_block(Kind kind, bool predicate, const Site& site);
  void pass_atomic();
  unsigned present() {
    Warp& warp = block_.warps[self() / 32];
    std::lock_guard lock(warp_locks_[self() / 32]);
    return warp.exists & ~warp.returned;
  }
  static unsigned& self() {
    static thread_local unsigned thread;
    return thread;
  }
  std::string name() { return block_.name(self()); }
  void* dynamic() { return shared_.dynamic(); }
  void* fixed(const void* key, size_t size) {
    std::lock_guard lock(shared_lock_);
    return shared_.fixed(key, size);
  }

 private:
  void live(unsigned thread);
  void leave(unsigned thread);
  void stop_running() {
    if (running_.fetch_sub(1, std::memory_order_relaxed) == 1) throw Stuck();
  }
  void fail(const std::string& error) {
    {
      std::lock_guard lock(error_lock_);
      if (error_.empty() && !stuck_) error.empty() ? void(stuck_ = true) : void(error_ = error);
    }
    failed_.store(true, std::memory_order_relaxed);
    for (unsigned w = 0; w < block_.warp_count; ++w) {
      std::lock_guard lock(warp_locks_[w]);
      warp_wakes_[w].notify_all();
    }
    std::lock_guard lock(block_lock_);
    block_wake_.notify_all();
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }

  const Launch* launch_ = nullptr;
  Block block_;
  Shared shared_;
  std::mutex warp_locks_[Block::max_warps], block_lock_, shared_lock_, error_lock_;
  std::condition_variable warp_wakes_[Block::max_warps], block_wake_;
  uint64_t generation_ = 0;  // of the barrier
  std::atomic<int> running_{0};
  std::atomic<bool> failed_{false};
  std::string error_;
  bool stuck_ = false;
};

thread_local Processor* processor = nullptr;

void Processor::live(unsigned thread) {
  processor = this;
  self() = thread;
  gridDim = launch_->grid;
  blockDim = launch_->block;
  blockIdx = block_.index;
  threadIdx = block_.thread_index(thread);
  try {
    launch_->body(launch_->context);
    leave(thread);
  } catch (const Cancelled&) {
  } catch (const Stuck&) {
    fail("");
  } catch (const Misuse& e) {
    fail(e.what());
  } catch (const std::exception& e) {
    fail(block_.name(thread) + " threw: " + e.what());
  }
}

void Processor::leave(unsigned thread) {
  {
    std::lock_guard lock(warp_locks_[thread / 32]);
    block_.leave_warp(thread);
  }
  std::lock_guard lock(block_lock_);
  block_.leave_block(thread);
  if (block_.returned < block_.threads) stop_running();
}

uint64_t Processor::meet_warp(const Request& request) {
  const unsigned thread = self(), bit = 1u << thread % 32;
  Warp& warp = block_.warps[thread / 32];
  auto& wake = warp_wakes_[thread / 32];
  std::unique_lock lock(warp_locks_[thread / 32]);
  if (failed()) throw Cancelled();
  if (const unsigned released = block_.arrive(thread, request)) {
    warp.ready |= released & ~bit;
    running_.fetch_add(std::popcount(released) - 1, std::memory_order_relaxed);
    wake.notify_all();
  } else {
    stop_running();
    wake.wait(lock, [&] { return (warp.ready & bit) || failed(); });
    if (!(warp.ready & bit)) throw Cancelled();
    warp.ready &= ~bit;
  }
  return warp.result[thread % 32];
}

int Processor::meet_block(Kind kind, bool predicate, const Site& site) {
  std::unique_lock lock(block_lock_);
  if (failed()) throw Cancelled();
  if (block_.arrive(self(), kind, predicate, site)) {
    ++generation_;
    running_.fetch_add(int(block_.threads) - 1, std::memory_order_relaxed);
    block_wake_.notify_all();
  } else {
    const uint64_t mine = generation_;
    stop_running();
    block_wake_.wait(lock, [&] { return generation_ != mine || failed(); });
    if (generation_ == mine) throw Cancelled();
  }
  return block_.barrier.result;
}

void Processor::pass_atomic() {
  static thread_local unsigned passed = 0;
  if (failed()) throw Cancelled();
  if (launch_->order == Order::random) std::this_thread::yield();
  if (++passed % 1024 == 0 && Clock::now() > launch_->deadline) throw Misuse(name() + timed_out);
}

}  // namespace

#else

// --- every thread a fiber --------------------------------------------------------------------------------------

// Saves the registers a call must preserve on the stack, stores its pointer in *from, and goes on from `to`, a pointer
// stored like that. The x86-64 one leaves by a jump, not `ret`: a return to an address that no call pushed is always
// mispredicted.
extern "C" void geoact_sim_switch(void** from, void* to) __asm__("geoact_sim_switch");
#if defined(__x86_64__) && defined(__linux__)
__asm__(R"(
.pushsection .text
.p2align 4
.local geoact_sim_switch
.type geoact_sim_switch, @function
geoact_sim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmpq *%rcx
.size geoact_sim_switch, . - geoact_sim_switch
.popsection
)");
// Return address, which a call would have pushed: 8 below a multiple of 16.
static void** first_frame(char* top, void (*entry)()) {
  void** sp = reinterpret_cast<void**>(top) - 2;
  *--sp = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
  return sp;
}
#elif defined(__aarch64__) && defined(__linux__)
__asm__(R"(
.pushsection .text
.p2align 4
.local geoact_sim_switch
.type geoact_sim_switch, %function
geoact_sim_switch:
  stp x29, x30, [sp, #-160]!
  stp x19, x20, [sp, #16]
  stp x21, x22, [sp, #32]
  stp x23, x24, [sp, #48]
  stp x25, x26, [sp, #64]
  stp x27, x28, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #16]
  ldp x21, x22, [sp, #32]
  ldp x23, x24, [sp, #48]
  ldp x25, x26, [sp, #64]
  ldp x27, x28, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  ldp x29, x30, [sp], #160
  br x30
.size geoact_sim_switch, . - geoact_sim_switch
.popsection
)");
static void** first_frame(char* top, void (*entry)()) {
  void** sp = reinterpret_cast<void**>(top) - 20;
  for (int i = 0; i < 20; ++i) sp[i] = nullptr;
  sp[1] = reinterpret_cast<void*>(entry);
  return sp;
}
#else
#error "geoact::sim has no fibers for this machine: define GEOACT_SIM_OS_THREADS"
#endif

namespace {

struct Stack {
  void* sp = nullptr;
  char* low = nullptr;
  size_t size = 0;
  void* fake = nullptr;  // AddressSanitizer's
};

unsigned nth_bit(unsigned mask, unsigned n) {
  while (n--) mask &= mask - 1;
  return unsigned(std::countr_zero(mask));
}

// The fibers that one running block needs. They live on from block to block, asleep at the end of the last one, and
// may be woken by another OS thread for the next.
class Processor {
 public:
  Processor() = default;
  Processor(const Processor&) = delete;
  ~Processor() {
    for (Stack& stack : fibers_) munmap(stack.low - page(), stack.size + page());
  }

  std::string run(const Launch& launch, uint3 index);
  uint64_t meet_warp(const Request& request) {
    Warp& warp = block_.warps[current_ / 32];
    const unsigned lane = current_ % 32;
    if (const unsigned released = block_.arrive(current_, request)) {
      warp.ready |= released;
      ready_ |= 1u << current_ / 32;
    }
    yield();
    return warp.result[lane];
  }
  int meet_block(Kind kind, bool predicate, const Site& site) {
    if (block_.arrive(current_, kind, predicate, site)) wake_all();
    yield();
    return block_.barrier.result;
  }
  void pass_atomic();
  unsigned present() const { return block_.warps[current_ / 32].exists & ~block_.warps[current_ / 32].returned; }
  unsigned self() const { return current_; }
  std::string name() { return block_.name(current_); }
  void* dynamic() { return shared_.dynamic(); }
  void* fixed(const void* key, size_t size) { return shared_.fixed(key, size); }

 private:
  static constexpr unsigned nobody = ~0u;
#if defined(GEOACT_SIM_ASAN)
  static constexpr size_t stack_size = 256 * 1024;
#else
  static constexpr size_t stack_size = 64 * 1024;
#endif
  static size_t page() {
    static const size_t size = size_t(sysconf(_SC_PAGESIZE));
    return size;
  }

  void prepare(unsigned count);
  void reset(unsigned thread);
  static void enter();
  static void live();
  void wake_all() {
    for (unsigned w = 0; w < block_.warp_count; ++w) block_.warps[w].ready = block_.warps[w].exists;
    ready_ = block_.warp_count == 32 ? ~0u : (1u << block_.warp_count) - 1;
  }
  unsigned choose();
  unsigned choose_after(unsigned thread) const;
  void yield() { resume(ready_ ? choose() : nobody); }
  void resume(unsigned thread);
  void change(Stack& from, Stack& to);
  void arrived(Stack& stack);

  const Launch* launch_ = nullptr;
  Block block_;
  Shared shared_;
  Random random_;
  unsigned current_ = nobody, ready_ = 0;  // warps with a thread that may run
  unsigned passed_ = 0;                    // atomics
  std::vector<Stack> fibers_;
  Stack home_;  // the stack of run()
  std::string error_;
};

thread_local Processor* processor = nullptr;

void Processor::change(Stack& from, Stack& to) {
#if defined(GEOACT_SIM_ASAN)
  __sanitizer_start_switch_fiber(&from.fake, to.low, to.size);
#endif
  geoact_sim_switch(&from.sp, to.sp);
  arrived(from);
}

void Processor::arrived([[maybe_unused]] Stack& stack) {
#if defined(GEOACT_SIM_ASAN)
  const void* low;
  size_t size;
  __sanitizer_finish_switch_fiber(stack.fake, &low, &size);
  if (!home_.low) home_.low = const_cast<char*>(static_cast<const char*>(low)), home_.size = size;
#endif
}

// Each stack has a page below it that faults. Their tops are staggered: at equal offsets they would share a few sets
// of the cache.
void Processor::prepare(unsigned count) {
  fibers_.reserve(Block::max_warps * 32);
  while (fibers_.size() < count) {
    void* memory =
        mmap(nullptr, stack_size + page(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, page(), PROT_NONE);
    fibers_.emplace_back();
    fibers_.back().low = static_cast<char*>(memory) + page();
    fibers_.back().size = stack_size;
    reset(unsigned(fibers_.size()) - 1);
  }
}

void Processor::reset(unsigned thread) {
  Stack& stack = fibers_[thread];
#if defined(GEOACT_SIM_ASAN)
  __asan_unpoison_memory_region(stack.low, stack.size);
#endif
  stack.fake = nullptr;
  stack.sp = first_frame(stack.low + stack.size - thread * 13 % 64 * 64, &Processor::enter);
}

std::string Processor::run(const Launch& launch, uint3 index) {
  prepare(launch.block.x * launch.block.y * launch.block.z);
  launch_ = &launch;
  block_.start(launch.block, index);
  shared_.start(launch);
  error_.clear();
  random_.state = launch.seed * 0x9e3779b97f4a7c15u + index.x + (uint64_t(index.y) << 32) + (uint64_t(index.z) << 48);
  wake_all();
  home_ = {};
  processor = this;
  gridDim = launch.grid;
  blockDim = launch.block;
  blockIdx = index;
  const unsigned first = choose();
  block_.warps[first / 32].ready &= ~(1u << first % 32);
  if (!block_.warps[first / 32].ready) ready_ &= ~(1u << first / 32);
  current_ = first;
  threadIdx = block_.thread_index(first);
  change(home_, fibers_[first]);
  processor = nullptr;
  // What threads still wait is given up where it stands: nothing in a kernel has a destructor that matters.
  if (block_.returned < block_.threads)
    for (unsigned i = 0; i < fibers_.size(); ++i) reset(i);
  return std::move(error_);
}

// Not inlined into one another: a fiber sleeps in enter() between blocks, and whoever wakes it may be another OS
// thread, so no address of a thread_local may be kept across.
void Processor::enter() {
  processor->arrived(processor->fibers_[processor->current_]);
  for (;;) live();
}

__attribute__((noinline)) void Processor::live() {
  Processor& p = *processor;
  try {
    p.launch_->body(p.launch_->context);
    p.block_.leave_warp(p.current_);
    p.block_.leave_block(p.current_);
  } catch (const Misuse& e) {
    p.error_ = e.what();
  } catch (const std::exception& e) {
    p.error_ = p.name() + " threw: " + e.what();
  }
  Stack& mine = p.fibers_[p.current_];
  if (!p.error_.empty() || p.block_.returned == p.block_.threads)
    p.change(mine, p.home_);
  else
    p.yield();
}

unsigned Processor::choose() {
  switch (launch_->order) {
    case Order::forward: {
      const unsigned w = unsigned(std::countr_zero(ready_));
      return w * 32 + unsigned(std::countr_zero(block_.warps[w].ready));
    }
    case Order::reverse: {
      const unsigned w = 31 - unsigned(std::countl_zero(ready_));
      return w * 32 + 31 - unsigned(std::countl_zero(block_.warps[w].ready));
    }
    default: {
      const unsigned w = nth_bit(ready_, random_.below(unsigned(std::popcount(ready_))));
      const unsigned lanes = block_.warps[w].ready;
      return w * 32 + nth_bit(lanes, random_.below(unsigned(std::popcount(lanes))));
    }
  }
}

unsigned Processor::choose_after(unsigned thread) const {
  for (unsigned i = 1; i <= block_.threads; ++i) {
    const unsigned next = (thread + i) % block_.threads;
    if (block_.warps[next / 32].ready >> next % 32 & 1) return next;
  }
  return nobody;
}

void Processor::resume(unsigned thread) {
  Stack& mine = fibers_[current_];
  if (thread == nobody) {
    error_ = block_.describe_deadlock();
    change(mine, home_);
    return;
  }
  Warp& warp = block_.warps[thread / 32];
  warp.ready &= ~(1u << thread % 32);
  if (!warp.ready) ready_ &= ~(1u << thread / 32);
  if (thread == current_) return;
  current_ = thread;
  threadIdx = block_.thread_index(thread);
  change(mine, fibers_[thread]);
}

// In random order another thread may come first; in the others it gets its turn now and then, for whoever waits for it
// by spinning.
void Processor::pass_atomic() {
  ++passed_;
  if (passed_ % 1024 == 0 && Clock::now() > launch_->deadline) throw Misuse(name() + timed_out);
  if (launch_->order != Order::random && passed_ % 256) return;
  block_.warps[current_ / 32].ready |= 1u << current_ % 32;
  ready_ |= 1u << current_ / 32;
  resume(launch_->order == Order::random ? choose() : choose_after(current_));
}

}  // namespace

#endif

// --- what kernels call -------------------------------------------------------------------------------------------

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
  throw Misuse(here().name() + " trapped (" + site.file_name() + ":" + std::to_string(site.line()) + ")");
}

// --- launches ----------------------------------------------------------------------------------------------------

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
