#include <cstdlib>

#include "catch.h"
#include "errors.h"
#include "forked.h"
#include "llmz/dist/world.h"
#include "src/dist/placement.h"

using namespace llmz;
using namespace llmz::dist;
using namespace llmz::testing;

namespace {

using Gpus = std::vector<std::string>;
const Gpus kTwo = {"GPU-a", "GPU-b"}, kFour = {"GPU-a", "GPU-b", "GPU-c", "GPU-d"};

RankView rank(const std::string& host, const std::string& asked, const Gpus& gpus) {
  return {.machine = host == "y" ? 1 : 0,
          .host = host,
          .asked = asked,
          .gpus = gpus,
          .reason = gpus.empty() ? "no NVIDIA driver is loaded" : ""};
}

std::string placed(const std::vector<RankView>& ranks) {
  std::string text;
  for (const Device& device : place_ranks(ranks)) text += device_name(device) + " ";
  return text;
}

}  // namespace

TEST_CASE("auto is a GPU where every rank sees one, the CPU where none does") {
  CHECK(placed({rank("x", "auto", kTwo), rank("x", "auto", kTwo)}) == "cuda:0 cuda:1 ");
  CHECK(placed({rank("x", "auto", {}), rank("y", "auto", {})}) == "cpu cpu ");
  CHECK_ERROR(place_ranks({rank("x", "auto", kTwo), rank("y", "auto", {}), rank("x", "auto", kTwo)}),
              "1 of 3 ranks see no GPU", "rank 1 (y)", "no NVIDIA driver", "train.device to cpu");
}

TEST_CASE("cpu is the CPU, for all or none") {
  CHECK(placed({rank("x", "cpu", {}), rank("x", "cpu", {})}) == "cpu cpu ");
  CHECK_ERROR(place_ranks({rank("x", "cpu", {}), rank("x", "cuda", kTwo)}), "cpu for rank 0 (x)", "same kind");
}

TEST_CASE("a rank gets the GPU of its place on its host") {
  CHECK(placed({rank("x", "cuda", kFour), rank("x", "cuda", kFour), rank("x", "cuda", kFour)}) ==
        "cuda:0 cuda:1 cuda:2 ");
  // By turns on two hosts, whose GPUs have other identities.
  const Gpus other = {"GPU-e", "GPU-f"};
  CHECK(placed({rank("x", "cuda", kTwo), rank("y", "cuda", other), rank("x", "cuda", kTwo),
                rank("y", "cuda", other)}) == "cuda:0 cuda:0 cuda:1 cuda:1 ");
}

TEST_CASE("a launcher that shows each rank a GPU of its own has chosen") {
  CHECK(placed({rank("x", "cuda", {"GPU-a"}), rank("x", "cuda", {"GPU-b"}), rank("x", "cuda", {"GPU-c"})}) ==
        "cuda:0 cuda:0 cuda:0 ");
}

TEST_CASE("more ranks than GPUs on a host") {
  const std::vector<RankView> four(4, rank("node7", "cuda", kTwo));
  CHECK_ERROR(place_ranks(four), "host node7 runs 4 ranks and has 2 GPUs", "at most 2", "ppr:2:node");
  CHECK_ERROR(place_ranks({rank("x", "cuda", {"GPU-a"}), rank("x", "cuda", {"GPU-a"})}), "host x runs 2 ranks",
              "has 1 GPU:", "at most 1");
  // Enough GPUs, but shown in a way from which no choice follows.
  CHECK_ERROR(place_ranks({rank("x", "cuda", kTwo), rank("x", "cuda", {"GPU-c"})}), "host x", "CUDA_VISIBLE_DEVICES");
}

TEST_CASE("a GPU that is named is taken, by one rank of a host") {
  CHECK(placed({rank("x", "cuda:1", kTwo), rank("y", "cuda:1", {"GPU-e", "GPU-f"})}) == "cuda:1 cuda:1 ");
  CHECK(placed({rank("x", "cuda:1", kTwo), rank("x", "cuda:0", kTwo)}) == "cuda:1 cuda:0 ");
  CHECK_ERROR(place_ranks({rank("x", "cuda:1", kTwo), rank("x", "cuda:1", kTwo)}), "rank 0 and rank 1", "cuda:1",
              "host x", "GPU-b");
  CHECK_ERROR(place_ranks({rank("x", "cuda:2", kTwo), rank("y", "cuda:0", kTwo)}), "rank 0 (x)", "sees 2 GPUs");
  CHECK_ERROR(place_ranks({rank("x", "cuda:0", kTwo), rank("x", "cuda", kTwo)}), "rank 0 and rank 1");
}

TEST_CASE("machines are told apart by their memory, not by their names") {
  // Containers on two nodes that have the same name.
  RankView other = rank("x", "cuda", {"GPU-e", "GPU-f"});
  other.machine = 7;
  CHECK(placed({rank("x", "cuda", kTwo), other, rank("x", "cuda", kTwo), other}) == "cuda:0 cuda:0 cuda:1 cuda:1 ");
  // Two containers on one node, which share neither name nor memory: its GPU is one.
  CHECK_ERROR(place_ranks({rank("x", "cuda", kTwo), rank("y", "cuda", kTwo)}), "rank 0 and rank 1", "GPU-a");
}

TEST_CASE("one GPU under two numbers is one GPU") {
  CHECK_ERROR(place_ranks({rank("x", "cuda", {"GPU-a", "GPU-b"}), rank("x", "cuda", {"GPU-b", "GPU-a"})}),
              "rank 0 and rank 1", "GPU-a");
}

TEST_CASE("a GPU is asked for and not there: the ranks without are named") {
  CHECK_ERROR(place_ranks({rank("x", "cuda", {}), rank("y", "cuda", {})}), "rank 0 (x), rank 1 (y)",
              "no NVIDIA driver");
  const std::vector<RankView> many(9, rank("x", "cuda", {}));
  CHECK_ERROR(place_ranks(many), "rank 3 (x) and 5 more");
}

TEST_CASE("assign_device tells all ranks the same") {
  const int port = free_port();
  const std::vector<Ended> ended = run_forked(3, [&](int r) {
    const auto world =
        make_world({.rendezvous = fmt::format("tcp:127.0.0.1:{}", port), .rank = r, .size = 3, .timeout_seconds = 20});
    check(assign_device(*world, "cpu") == Device(), "cpu");
    std::string message = error_of([&] { assign_device(*world, r == 1 ? "gpu" : "cpu"); });
    check(message == fmt::format("rank 1 of 3 ({}): no such device; allowed: auto, cpu, cuda, cuda:0, cuda:1 …",
                                 world->host()),
          "{}", message);
    // As if by nobody's GPU: this process then sees none, with or without CUDA.
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    check(assign_device(*world, "auto") == Device(), "auto without GPUs");
    message = error_of([&] { assign_device(*world, "cuda"); });
    check(message.starts_with("train.device asks for GPUs, but rank 0 ("), "{}", message);
    bool shared = false;
    try {
      assign_device(*world, "cuda");
    } catch (const SharedError&) {
      shared = true;
    }
    check(shared, "not a SharedError");
  });
  for (const Ended& e : ended) {
    CHECK(e.said == "");
    CHECK(e.code == 0);
  }
}
