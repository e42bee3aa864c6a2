#pragma once

#include <algorithm>
#include <cstring>
#include <functional>

#include "catch.h"
#include "llmz/core/exec.h"

namespace llmz::test {

/// What an op was seen to do, planned and live.
struct OpRun {
  double planned_flops = 0, flops = 0;
  bool within_bounds = false;  ///< wrote nothing behind its workspace
};

/// Runs an op as a training run does: once recording, once live in an arena of the planned size. The workspace is
/// filled with NaN bits beforehand (an op may not count on zeros) and followed by a guard. Ranks may be given for
/// either. Asserts nothing, so it may be called on any thread.
inline OpRun plan_and_run(const std::function<void(Exec&)>& body, Communicator* planned_ranks = nullptr,
                          Communicator* ranks = nullptr) {
  constexpr size_t kGuard = 4096;
  Memory recorder;
  Exec dry(recorder);
  dry.ranks = planned_ranks;
  {
    ProgramScope scope(recorder, "test");
    body(dry);
  }
  MemoryPlan plan = recorder.finish();
  size_t extent = 0;
  for (const PlannedBuffer& span : plan.programs.at(0).spans) extent = std::max(extent, span.offset + span.bytes);
  plan.persistent.push_back({"workspace", Category::workspace, extent, 0, 0, 0});
  plan.persistent.push_back({"guard", Category::workspace, kGuard, extent, 0, 0});
  plan.arena_bytes = extent + kGuard;

  Memory memory(std::move(plan));
  Exec exec(memory);
  exec.ranks = ranks;
  const auto bytes = [&](const char* name, size_t n) {
    return static_cast<unsigned char*>(
        memory.persistent(name, Category::workspace, {static_cast<int64_t>(n)}, DType::u8).data);
  };
  unsigned char* workspace = bytes("workspace", extent);
  unsigned char* guard = bytes("guard", kGuard);
  std::memset(workspace, 0xff, extent);
  std::memset(guard, 0xa5, kGuard);
  {
    ProgramScope scope(memory, "test");
    body(exec);
  }
  return {dry.flops, exec.flops, std::all_of(guard, guard + kGuard, [](unsigned char c) { return c == 0xa5; })};
}

/// The same, alone. Requires that bounds were kept and that planning counted the same arithmetic, which it returns.
inline double run_op(const std::function<void(Exec&)>& body) {
  const OpRun run = plan_and_run(body);
  REQUIRE(run.within_bounds);
  REQUIRE(run.flops == run.planned_flops);
  return run.flops;
}

}  // namespace llmz::test
