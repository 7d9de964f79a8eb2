// Every CUDA thread a fiber of the OS thread that runs its block.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include "shared.h"

#if defined(GEOACT_SIM_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(GEOACT_SIM_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace geoact::sim {

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
// As after a call: the address to return to (there is none) lies 8 below a multiple of 16.
static void** first_frame(char* top, void (*entry)()) {
  void** sp = reinterpret_cast<void**>(top);
  *--sp = nullptr;
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
  void* fake = nullptr;   // AddressSanitizer's
  void* fiber = nullptr;  // ThreadSanitizer's
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
  unsigned favourite_ = 0, stay_ = 0;      // in random order
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
#if defined(GEOACT_SIM_TSAN)
  __tsan_switch_to_fiber(to.fiber, 0);  // 0: what came before the switch happened before what follows
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
#if defined(GEOACT_SIM_TSAN)
  if (!stack.fiber) stack.fiber = __tsan_create_fiber(0);  // slow; a few calls given up on its shadow stack do no harm
#endif
  stack.sp = first_frame(stack.low + stack.size - thread * 13 % 64 * 64, &Processor::enter);
}

std::string Processor::run(const Launch& launch, uint3 index) {
  prepare(launch.block.x * launch.block.y * launch.block.z);
  launch_ = &launch;
  block_.start(launch.block, index);
  shared_.start(launch);
  error_.clear();
  random_.state = launch.seed;  // mixed once: streams of neighbouring seeds would be one stream, shifted
  random_.state = random_.next() + index.x + (uint64_t(index.y) << 32) + (uint64_t(index.z) << 48);
  stay_ = 0;
  wake_all();
  home_ = {};
#if defined(GEOACT_SIM_TSAN)
  home_.fiber = __tsan_get_current_fiber();
#endif
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
      // One warp runs ahead for a while, 1 to 2048 turns, its lanes drawn one by one. If all threads were drawn alike,
      // no warp would ever get far enough ahead to meet a slow one's data.
      if (stay_-- == 0 || !(ready_ >> favourite_ & 1)) {
        favourite_ = nth_bit(ready_, random_.below(unsigned(std::popcount(ready_))));
        stay_ = 1u << random_.below(12);
      }
      const unsigned lanes = block_.warps[favourite_].ready;
      return favourite_ * 32 + nth_bit(lanes, random_.below(unsigned(std::popcount(lanes))));
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

}  // namespace geoact::sim
