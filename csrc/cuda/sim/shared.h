// What every way to run a block needs: the launch, a random sequence, shared memory.
#pragma once

#include <chrono>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "block.h"

namespace geoact::sim {

inline constexpr unsigned char poison = 0xff;

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
    fixed_ = 0;
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
    fixed_ += variable.memory.size;
    used_ += variable.memory.size;
    if (fixed_ > fixed_limit)
      throw Misuse("geoact::sim: the block uses " + std::to_string(fixed_) +
                   " bytes of static shared memory, the limit is " + std::to_string(fixed_limit));
    if (used_ > limit_)
      throw Misuse("geoact::sim: the block uses " + std::to_string(used_) + " bytes of shared memory, the limit is " +
                   std::to_string(limit_));
    return variable.memory.data;
  }
  Memory dynamic_;
  std::vector<Variable> variables_;
  static constexpr size_t fixed_limit = 48 * 1024;  // nvcc's
  size_t used_ = 0, fixed_ = 0, limit_ = 0;
  uint64_t serial_ = 0;
};

inline const char* const timed_out = " still spins on an atomic at the end of settings().timeout";

}  // namespace geoact::sim
