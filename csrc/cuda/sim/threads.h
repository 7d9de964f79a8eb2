// Every CUDA thread an OS thread, for ThreadSanitizer: it must see no order between two threads which the kernel did
// not ask for. So a warp has its own lock, the barrier another, and all the rest is relaxed.
#pragma once

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "shared.h"

namespace geoact::sim {
namespace {

struct Cancelled {};  // another thread of the block has failed
struct Stuck {};      // this was the last thread that could run

// Wakes one thread.
class Signal {
 public:
  void raise() {
    raised_.store(1, std::memory_order_release);
    raised_.notify_one();
  }
  void await() {
    while (!raised_.exchange(0, std::memory_order_acquire)) raised_.wait(0, std::memory_order_relaxed);
  }
  void lower() { raised_.store(0, std::memory_order_relaxed); }

 private:
  std::atomic<int> raised_{0};
};

// The OS threads live on from block to block: to start one costs a millisecond under ThreadSanitizer. They are never
// joined, and a Processor is never destroyed.
class Processor {
 public:
  std::string run(const Launch& launch, uint3 index);
  uint64_t meet_warp(const Request& request);
  int meet_block(Kind kind, bool predicate, const Site& site);
  void pass_atomic();
  unsigned present() {
    const unsigned w = self() / 32;
    std::lock_guard lock(warp_locks_[w]);
    return block_.warps[w].exists & ~block_.warps[w].returned;
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
  void serve(unsigned thread);
  void live(unsigned thread);
  void leave(unsigned thread);
  void wait(unsigned thread) {
    signals_[thread].await();
    if (failed()) throw Cancelled();
  }
  void stop_running() {
    if (running_.fetch_sub(1, std::memory_order_relaxed) == 1) throw Stuck();
  }
  void fail(const std::string& error) {
    {
      std::lock_guard lock(error_lock_);
      if (error_.empty()) error_ = error;
    }
    failed_.store(true, std::memory_order_relaxed);
    for (unsigned i = 0; i < block_.threads; ++i) signals_[i].raise();
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }

  const Launch* launch_ = nullptr;
  Block block_;
  Shared shared_;
  std::mutex warp_locks_[Block::max_warps], block_lock_, shared_lock_, error_lock_;
  Signal starts_[Block::max_warps * 32], signals_[Block::max_warps * 32], done_;
  unsigned started_ = 0;
  std::atomic<unsigned> unfinished_{0};
  std::atomic<int> running_{0};  // neither waiting nor returned
  std::atomic<bool> failed_{false};
  std::string error_;
};

thread_local Processor* processor = nullptr;

const char* const stuck = "stuck";

std::string Processor::run(const Launch& launch, uint3 index) {
  launch_ = &launch;
  block_.start(launch.block, index);
  shared_.start(launch);
  error_.clear();
  failed_ = false;
  running_ = int(block_.threads);
  unfinished_ = block_.threads;
  while (started_ < block_.threads) {
    std::thread([this, thread = started_] { serve(thread); }).detach();
    ++started_;
  }
  std::vector<unsigned> order(block_.threads);
  for (unsigned i = 0; i < block_.threads; ++i) order[i] = i;
  if (launch.order == Order::reverse) std::reverse(order.begin(), order.end());
  if (launch.order == Order::random) std::shuffle(order.begin(), order.end(), std::mt19937_64(launch.seed));
  for (unsigned thread : order) signals_[thread].lower();  // a failed block may have left it raised
  for (unsigned thread : order) starts_[thread].raise();
  done_.await();
  return error_ == stuck ? block_.describe_deadlock() : error_;
}

void Processor::serve(unsigned thread) {
  self() = thread;
  for (;;) {
    starts_[thread].await();
    live(thread);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) done_.raise();
  }
}

void Processor::live(unsigned thread) {
  processor = this;
  gridDim = launch_->grid;
  blockDim = launch_->block;
  blockIdx = block_.index;
  threadIdx = block_.thread_index(thread);
  try {
    launch_->body(launch_->context);
    leave(thread);
  } catch (const Cancelled&) {
  } catch (const Stuck&) {
    fail(stuck);
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
  const unsigned thread = self(), first = thread & ~31u;
  {
    std::lock_guard lock(warp_locks_[thread / 32]);
    if (failed()) throw Cancelled();
    const unsigned released = block_.arrive(thread, request);
    running_.fetch_add(std::popcount(released), std::memory_order_relaxed);
    for (unsigned rest = released; rest; rest &= rest - 1) signals_[first + std::countr_zero(rest)].raise();
    stop_running();
  }
  wait(thread);
  return block_.warps[thread / 32].result[thread % 32];
}

int Processor::meet_block(Kind kind, bool predicate, const Site& site) {
  {
    std::lock_guard lock(block_lock_);
    if (failed()) throw Cancelled();
    if (block_.arrive(self(), kind, predicate, site)) {
      running_.fetch_add(int(block_.threads), std::memory_order_relaxed);
      for (unsigned i = 0; i < block_.threads; ++i) signals_[i].raise();
    }
    stop_running();
  }
  wait(self());
  return block_.barrier.result;
}

void Processor::pass_atomic() {
  static thread_local unsigned passed = 0;
  if (failed()) throw Cancelled();
  if (launch_->order == Order::random) std::this_thread::yield();
  if (++passed % 1024 == 0 && Clock::now() > launch_->deadline) throw Misuse(name() + timed_out);
}

}  // namespace
}  // namespace geoact::sim
