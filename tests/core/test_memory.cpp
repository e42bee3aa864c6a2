#include <algorithm>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "catch.h"
#include "llmz/core/memory.h"
#include "llmz/core/random.h"

using llmz::Buffer;
using llmz::Category;
using llmz::DType;
using llmz::Error;
using llmz::Memory;
using llmz::MemoryPlan;
using llmz::PlannedBuffer;
using llmz::ProgramScope;
using llmz::Shape;
using llmz::Tensor;

namespace {

using Request = std::function<void(Memory&)>;

/// Records `request` and gives the plan.
MemoryPlan record(const Request& request) {
  Memory memory;
  request(memory);
  return memory.finish();
}

bool share_address(const PlannedBuffer& a, const PlannedBuffer& b) {
  return a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
}
bool share_time(const PlannedBuffer& a, const PlannedBuffer& b) { return a.begin < b.end && b.begin < a.end; }

/// A program of random buffers. On real memory each buffer is filled with its own byte and must still hold it when it
/// is dropped. Returns how many did not.
int random_program(Memory& memory, uint64_t seed) {
  struct Live {
    Buffer buffer;
    uint8_t mark;
  };
  const llmz::RandomStream random(seed, llmz::Purpose::test);
  const ProgramScope scope(memory, "program" + std::to_string(seed));
  std::vector<Live> live;
  int spoiled = 0;
  const auto drop = [&](size_t at) {
    if (!memory.recording()) {
      const auto* bytes = static_cast<const uint8_t*>(live[at].buffer.tensor().data);
      const auto same = [&](uint8_t b) { return b == live[at].mark; };
      spoiled += !std::all_of(bytes, bytes + live[at].buffer.tensor().bytes(), same);
    }
    live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
  };
  for (uint64_t i = 0; i < 300; ++i) {
    if (live.size() > 12 || (!live.empty() && random.uniform(3 * i) < 0.45f)) {
      drop(random.below(3 * i + 1, live.size()));
      continue;
    }
    const auto size = static_cast<int64_t>(random.below(3 * i + 2, 5000));  // zero bytes too
    Buffer buffer =
        memory.take("b" + std::to_string(i), static_cast<Category>(i % llmz::kCategories), {size}, DType::u8);
    if (!memory.recording()) std::memset(buffer.tensor().data, static_cast<int>(i & 0xff), static_cast<size_t>(size));
    live.push_back({std::move(buffer), static_cast<uint8_t>(i & 0xff)});
  }
  while (!live.empty()) drop(live.size() - 1);
  return spoiled;
}

int random_run(Memory& memory) {
  const Tensor weights = memory.persistent("weights", Category::weights, {1000, 3}, DType::f32);
  const Tensor moments = memory.persistent("moments", Category::optimizer, {1000, 3}, DType::bf16);
  if (!memory.recording()) std::memset(weights.data, 0xaa, weights.bytes());
  int spoiled = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) spoiled += random_program(memory, seed);
  if (!memory.recording()) {
    const auto* w = static_cast<const uint8_t*>(weights.data);
    const auto* m = static_cast<const uint8_t*>(moments.data);
    spoiled += !std::all_of(w, w + weights.bytes(), [](uint8_t b) { return b == 0xaa; });
    spoiled += !std::all_of(m, m + moments.bytes(), [](uint8_t b) { return b == 0; });  // persistent starts at zero
  }
  return spoiled;
}

/// Two buffers, the second in the place of the first.
void in_turn(Memory& memory) {
  const ProgramScope scope(memory, "step");
  memory.take("a", Category::activations, {1024}, DType::f32);
  memory.take("b", Category::activations, {1024}, DType::f32);
}

}  // namespace

TEST_CASE("buffers that live together never share an address", "[memory]") {
  const MemoryPlan plan = record([](Memory& m) { random_run(m); });
  REQUIRE(plan.programs.size() == 5);
  size_t persistent_end = 0;
  for (const PlannedBuffer& b : plan.persistent) {
    CHECK(b.offset == persistent_end);
    persistent_end += b.bytes;
  }
  int clashes = 0, misaligned = 0, outside = 0, pairs_together = 0;
  for (const auto& program : plan.programs) {
    for (const PlannedBuffer& a : program.spans) {
      misaligned += a.offset % 256 != 0;
      outside += a.offset < persistent_end || a.offset + a.bytes > plan.arena_bytes;
      for (const PlannedBuffer& b : program.spans) {
        if (&a == &b || !share_time(a, b)) continue;
        ++pairs_together;
        clashes += share_address(a, b);
      }
    }
  }
  CHECK(pairs_together > 1000);
  CHECK(clashes == 0);
  CHECK(misaligned == 0);
  CHECK(outside == 0);
}

TEST_CASE("totals by category add up to the arena", "[memory]") {
  const MemoryPlan plan = record([](Memory& m) { random_run(m); });
  const MemoryPlan::Totals totals = plan.totals();
  size_t sum = totals.packing;
  for (const size_t bytes : totals.by_category) sum += bytes;
  CHECK(sum == plan.arena_bytes);
  CHECK(totals.total == plan.arena_bytes);
  CHECK(totals.by_category[int(Category::weights)] >= 12000);
  // Packed in time and space: far below the sum of all buffers, and near the most that live at once.
  size_t all = 0;
  for (const PlannedBuffer& b : plan.programs[0].spans) all += b.bytes;
  CHECK(plan.arena_bytes < all / 2);
  CHECK(totals.packing < plan.arena_bytes / 4);
}

TEST_CASE("replayed memory keeps every buffer's bytes while it lives", "[memory]") {
  Memory memory(record([](Memory& m) { random_run(m); }));
  CHECK_FALSE(memory.recording());
  CHECK(random_run(memory) == 0);
  // Programs may come again, in any order.
  CHECK(random_program(memory, 4) == 0);
  CHECK(random_program(memory, 1) == 0);
}

TEST_CASE("buffers in turn use one place, shared handles hold it", "[memory]") {
  const MemoryPlan turn = record(in_turn);
  CHECK(turn.programs[0].bytes == 4096);
  const MemoryPlan held = record([](Memory& memory) {
    const ProgramScope scope(memory, "step");
    std::optional<Buffer> copy;
    {
      const Buffer a = memory.take("a", Category::activations, {1024}, DType::f32);
      copy = a;
    }
    memory.take("b", Category::activations, {1024}, DType::f32);
  });
  CHECK(held.programs[0].bytes == 8192);
}

TEST_CASE("handles move, copy and reset as counted references", "[memory]") {
  const MemoryPlan plan = record([](Memory& memory) {
    const ProgramScope scope(memory, "step");
    Buffer a = memory.take("a", Category::activations, {1024}, DType::f32);
    Buffer b = std::move(a);
    CHECK_FALSE(a);  // NOLINT(bugprone-use-after-move): a moved-from handle holds nothing
    CHECK(b);
    const Buffer& self = b;
    b = self;
    CHECK(b);
    CHECK(b.tensor().shape == Shape{1024});
    b.reset();
    CHECK_FALSE(b);
    memory.take("c", Category::activations, {1024}, DType::f32);
  });
  CHECK(plan.programs[0].bytes == 4096);
}

TEST_CASE("programs share a region behind the persistent buffers", "[memory]") {
  const MemoryPlan plan = record([](Memory& memory) {
    memory.persistent("w", Category::weights, {100}, DType::f32);
    for (const int64_t n : {1000, 3000, 2000}) {
      const ProgramScope scope(memory, "p" + std::to_string(n));
      memory.take("x", Category::activations, {n}, DType::f32);
    }
  });
  const size_t persistent = 512;  // 400 bytes, aligned to 256
  const size_t largest = 12032;   // 12000 bytes, aligned to 256
  const size_t pages = 4 * 4096;  // the arena is whole pages
  CHECK(plan.programs[1].bytes == largest);
  CHECK(persistent + largest <= pages);
  CHECK(plan.arena_bytes == pages);
  for (const auto& p : plan.programs) CHECK(p.spans[0].offset == persistent);
  CHECK(plan.totals().peak_program == "p3000");
}

TEST_CASE("a request that deviates from the plan is an error", "[memory]") {
  Memory memory(record([](Memory& m) {
    m.persistent("w", Category::weights, {100}, DType::f32);
    in_turn(m);
  }));
  CHECK_THROWS_WITH(memory.persistent("v", Category::weights, {100}, DType::f32), contains("'v'"));
  CHECK_THROWS_AS(memory.persistent("w", Category::weights, {1000}, DType::f32), Error);
  CHECK_NOTHROW(memory.persistent("w", Category::weights, {100}, DType::f32));
  CHECK_THROWS_AS(memory.persistent("w", Category::weights, {100}, DType::f32), Error);
  CHECK_THROWS_WITH(memory.begin_program("other"), contains("'other'"));

  const auto step = [&](const std::vector<std::pair<const char*, int64_t>>& requests) {
    const ProgramScope scope(memory, "step");
    for (const auto& [name, n] : requests) memory.take(name, Category::activations, {n}, DType::f32);
  };
  SECTION("another name") { CHECK_THROWS_WITH(step({{"c", 1024}}), contains("'c'") && contains("'step'")); }
  SECTION("another size") { CHECK_THROWS_WITH(step({{"a", 2048}}), contains("'a'")); }
  SECTION("one more") { CHECK_THROWS_WITH(step({{"a", 1024}, {"b", 1024}, {"b", 1024}}), contains("'b'")); }
  SECTION("none") { CHECK_NOTHROW(step({{"a", 1024}, {"b", 1024}})); }
  SECTION("a smaller size") { CHECK_THROWS_WITH(step({{"a", 1}, {"b", 1024}}), contains("'a'")); }
}

TEST_CASE("a program that may shrink asks for its recorded sizes or less", "[memory]") {
  const auto run = [](Memory& memory, int64_t n) {
    const ProgramScope scope(memory, "decode", /*may_shrink=*/true);
    memory.take("a", Category::activations, {n}, DType::f32);
  };
  Memory recorder;
  run(recorder, 1024);
  Memory smaller(recorder.finish());
  CHECK_NOTHROW(run(smaller, 1024));
  CHECK_NOTHROW(run(smaller, 1));
  CHECK_THROWS_WITH(run(smaller, 2048), contains("'a'"));
}

TEST_CASE("a buffer held longer than planned is an error", "[memory]") {
  Memory memory(record(in_turn));
  const auto program = [&] {
    const ProgramScope scope(memory, "step");
    const Buffer a = memory.take("a", Category::activations, {1024}, DType::f32);
    memory.take("b", Category::activations, {1024}, DType::f32);  // the same bytes as a
  };
  CHECK_THROWS_WITH(program(), contains("'a'") && contains("longer"));
}

TEST_CASE("programs neither nest nor end with buffers held", "[memory]") {
  Memory memory;
  CHECK_THROWS_WITH(memory.take("x", Category::activations, {1}, DType::f32), contains("outside"));
  Buffer held;
  memory.begin_program("step");
  CHECK_THROWS_WITH(memory.begin_program("inner"), contains("inner"));
  CHECK_THROWS_AS(memory.finish(), Error);
  held = memory.take("x", Category::activations, {1}, DType::f32);
  CHECK_THROWS_WITH(memory.end_program(), contains("1 buffers"));
  held.reset();
  memory.end_program();
  CHECK_THROWS_WITH(memory.begin_program("step"), contains("twice"));
  CHECK_THROWS_AS(memory.end_program(), Error);
}

TEST_CASE("planning allocates nothing", "[memory]") {
  // 2^50 bytes, more than any machine has.
  const MemoryPlan plan = record([](Memory& memory) {
    const Tensor w = memory.persistent("w", Category::weights, {int64_t{1} << 20, int64_t{1} << 28}, DType::f32);
    CHECK(w.is_meta());
    CHECK(w.data == nullptr);
  });
  CHECK(plan.arena_bytes == size_t{1} << 50);
  CHECK_THROWS_WITH(Memory(plan), contains("GiB"));
}
