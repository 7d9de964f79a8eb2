// Who waits for whom in one running block of sim.h, and which meetings can never take place. Knows nothing of how
// threads are run: sim.cpp does that, with fibers or with OS threads (then it holds the lock of the warp or the block
// around these calls). A broken rule throws Misuse.
#pragma once

#include <algorithm>
#include <cstdio>
#include <string>

#include "../sim.h"

namespace geoact::sim {

struct Misuse : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline const char* name_of(Kind kind) {
  static constexpr const char* names[] = {
      "nothing",           "a shuffle",         "__ballot_sync",     "__any_sync",
      "__all_sync",        "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync",
      "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",
      "__reduce_xor_sync", "__syncwarp",        "__syncthreads",     "__syncthreads_count",
      "__syncthreads_and", "__syncthreads_or"};
  return names[int(kind)];
}

inline std::string at(Kind kind, const Site& site) {
  return std::string(name_of(kind)) + " (" + site.file + ":" + std::to_string(site.line) + ")";
}
inline std::string at(Kind kind, unsigned mask, const Site& site) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return std::string(name_of(kind)) + " of lanes " + text + " (" + site.file + ":" + std::to_string(site.line) + ")";
}

struct Request {
  Kind kind;
  unsigned mask;
  int source;  // lane a shuffle reads
  uint64_t payload;
  Site site;
};

struct Warp {
  unsigned exists, returned, waiting;
  unsigned ready;  // may run on; kept by the scheduler
  bool uniform;    // all that wait, wait for `kind` with `mask`
  Kind kind;
  unsigned mask;
  Request request[32];
  uint64_t result[32];
};

struct Barrier {
  Kind kind;
  Site site;
  unsigned arrived, count;
  int result;
};

struct Block {
  static constexpr int max_warps = 32;

  dim3 size;
  uint3 index{};
  unsigned threads = 0, warp_count = 0, returned = 0;
  Warp warps[max_warps];
  Barrier barrier;

  void start(dim3 block_size, uint3 block_index) {
    size = block_size;
    index = block_index;
    threads = size.x * size.y * size.z;
    warp_count = (threads + 31) / 32;
    returned = 0;
    barrier = {Kind::none, {}, 0, 0, 0};
    for (unsigned w = 0; w < warp_count; ++w) {
      const unsigned lanes = std::min(threads - w * 32, 32u);
      warps[w].exists = lanes == 32 ? ~0u : (1u << lanes) - 1;
      warps[w].returned = warps[w].waiting = 0;
      warps[w].ready = 0;
      warps[w].uniform = true;
      warps[w].mask = 0;
    }
  }

  uint3 thread_index(unsigned thread) const {
    return {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
  }

  // The lanes that may go on because this thread came, their results stored; 0: it has to wait.
  unsigned arrive(unsigned thread, const Request& request) {
    Warp& warp = warps[thread / 32];
    const unsigned lane = thread % 32, mask = request.mask;
    if (!(mask >> lane & 1)) refuse(thread, request, "the mask does not name the thread itself");
    if (const unsigned missing = mask & ~(warp.exists & ~warp.returned))
      refuse(thread, request,
             "the mask names lane " + std::to_string(std::countr_zero(missing)) +
                 (missing & warp.returned & -missing ? ", which has returned" : ", which does not exist"));
    if (request.source >= 0 && (request.source > 31 || !(mask >> request.source & 1)))
      refuse(thread, request, "reads lane " + std::to_string(request.source) + ", which is outside the mask");
    if (warp.waiting == 0) {
      warp.uniform = true;
      warp.kind = request.kind;
      warp.mask = mask;
    } else if (!warp.uniform || warp.kind != request.kind || warp.mask != mask) {
      warp.uniform = false;
      for (unsigned rest = warp.waiting & mask; rest; rest &= rest - 1) {
        const int other = std::countr_zero(rest);
        const Request& theirs = warp.request[other];
        if ((theirs.mask >> lane & 1) && (theirs.kind != request.kind || theirs.mask != mask))
          refuse(thread, request,
                 "lane " + std::to_string(other) + " waits for it elsewhere, at " +
                     at(theirs.kind, theirs.mask, theirs.site));
      }
    }
    warp.request[lane] = request;
    warp.waiting |= 1u << lane;
    if ((warp.waiting & mask) != mask) return 0;
    if (!warp.uniform)
      for (unsigned rest = mask; rest; rest &= rest - 1) {
        const Request& theirs = warp.request[std::countr_zero(rest)];
        if (theirs.kind != request.kind || theirs.mask != mask) return 0;
      }
    meet(warp, request.kind, mask);
    warp.waiting &= ~mask;
    return mask;
  }

  // Whether the last thread of the block has come; barrier.result is what all of them get.
  bool arrive(unsigned thread, Kind kind, bool predicate, const Site& site) {
    if (returned)
      throw Misuse(name(thread) + " waits at " + at(kind, site) + ", but " + std::to_string(returned) +
                   " threads of the block have returned");
    if (barrier.arrived == 0) {
      barrier.kind = kind;
      barrier.site = site;
      barrier.count = 0;
    } else if (barrier.kind != kind || barrier.site != site) {
      throw Misuse(name(thread) + " waits at " + at(kind, site) + ", but " + std::to_string(barrier.arrived) +
                   " threads of the block wait at another barrier, " + at(barrier.kind, barrier.site));
    }
    barrier.count += predicate;
    if (++barrier.arrived < threads) return false;
    barrier.arrived = 0;
    barrier.result = kind == Kind::block_count ? int(barrier.count)
                     : kind == Kind::block_and ? barrier.count == threads
                                               : barrier.count != 0;
    return true;
  }

  void leave_warp(unsigned thread) {
    Warp& warp = warps[thread / 32];
    for (unsigned rest = warp.waiting; rest; rest &= rest - 1) {
      const int other = std::countr_zero(rest);
      const Request& theirs = warp.request[other];
      if (theirs.mask >> (thread % 32) & 1)
        throw Misuse(name(thread) + " returned, but lane " + std::to_string(other) + " waits for it at " +
                     at(theirs.kind, theirs.mask, theirs.site));
    }
    warp.returned |= 1u << thread % 32;
  }
  void leave_block(unsigned thread) {
    if (barrier.arrived)
      throw Misuse(name(thread) + " returned, but " + std::to_string(barrier.arrived) +
                   " threads of the block wait for it at " + at(barrier.kind, barrier.site));
    ++returned;
  }

  std::string name(unsigned thread) const {
    const auto text = [](uint3 v) {
      return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
    };
    return "geoact::sim: block " + text(index) + ", thread " + text(thread_index(thread));
  }

  // What the threads wait for once none of them can go on.
  std::string describe_deadlock() const {
    std::string text = "geoact::sim: deadlock: ";
    if (barrier.arrived)
      text += std::to_string(barrier.arrived) + " of " + std::to_string(threads) + " threads wait at " +
              at(barrier.kind, barrier.site) + "; ";
    int told = 0;
    for (unsigned w = 0; w < warp_count; ++w)
      for (unsigned rest = warps[w].waiting; rest && told < 4; rest &= rest - 1, ++told) {
        const int lane = std::countr_zero(rest);
        const Request& request = warps[w].request[lane];
        text += name(w * 32 + lane).substr(13) + " waits at " + at(request.kind, request.mask, request.site) + "; ";
      }
    return text + std::to_string(returned) + " have returned";
  }

 private:
  [[noreturn]] void refuse(unsigned thread, const Request& request, const std::string& why) const {
    throw Misuse(name(thread) + " at " + at(request.kind, request.mask, request.site) + ": " + why);
  }

  static void meet(Warp& warp, Kind kind, unsigned mask) {
    if (kind == Kind::warp) return;
    if (kind == Kind::shuffle) {
      for (unsigned rest = mask; rest; rest &= rest - 1) {
        const int lane = std::countr_zero(rest);
        warp.result[lane] = warp.request[warp.request[lane].source].payload;
      }
      return;
    }
    uint64_t result = 0;
    bool first = true;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      const uint32_t mine = uint32_t(warp.request[lane].payload), so_far = uint32_t(result);
      result = kind == Kind::ballot ? so_far | mine << lane : first ? mine : fold(kind, so_far, mine);
      first = false;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1) warp.result[std::countr_zero(rest)] = result;
  }
  static uint32_t fold(Kind kind, uint32_t a, uint32_t b) {
    switch (kind) {
      case Kind::add:
        return a + b;
      case Kind::min_int:
        return uint32_t(std::min(int(a), int(b)));
      case Kind::max_int:
        return uint32_t(std::max(int(a), int(b)));
      case Kind::min_unsigned:
        return std::min(a, b);
      case Kind::max_unsigned:
        return std::max(a, b);
      case Kind::any:
      case Kind::bit_or:
        return a | b;
      case Kind::all:
      case Kind::bit_and:
        return a & b;
      default:
        return a ^ b;
    }
  }
};

}  // namespace geoact::sim
