#include "llmz/data/loader.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "data/data_helpers.h"
#include "llmz/data/eval_windows.h"

namespace llmz::data {
namespace {

constexpr int64_t kVocab = 100'000;

/// Three shards of uneven length whose token at position i of the whole is i.
class CountingShards {
 public:
  explicit CountingShards(int32_t tokens) {
    std::vector<int32_t> ids(static_cast<size_t>(tokens));
    std::iota(ids.begin(), ids.end(), 0);
    const size_t a = ids.size() / 5, b = ids.size() / 2;
    write_shard(folder_ / "train_000000.llmz", std::span(ids).first(a), kVocab, 7, 10);
    write_shard(folder_ / "train_000001.llmz", std::span(ids).subspan(a, b - a), kVocab, 7, 20);
    write_shard(folder_ / "train_000002.llmz", std::span(ids).subspan(b), kVocab, 7, 30);
  }
  Dataset open() const {
    const std::vector<std::string> inputs = {(folder_ / "train_*.llmz").string()};
    return Dataset::open(inputs, Split::train);
  }

 private:
  TestFolder folder_;
};

struct Batch {
  std::vector<int32_t> tokens, targets;
  bool operator==(const Batch&) const = default;
};

Batch load(const Loader& loader, int64_t step, int micro_index, int rank, int world) {
  const auto size = static_cast<size_t>(loader.options().micro_batch * loader.options().sequence_length);
  Batch batch{std::vector<int32_t>(size, -7), std::vector<int32_t>(size, -7)};
  loader.batch(step, micro_index, rank, world, batch.tokens, batch.targets);
  return batch;
}

TEST_CASE("shards are read as one row of tokens, across their borders") {
  const CountingShards shards(1000);
  const Dataset dataset = shards.open();
  CHECK(dataset.tokens() == 1000);
  CHECK(dataset.vocab_size() == kVocab);
  CHECK(dataset.text_bytes() == 60);
  for (const int64_t first : {0, 199, 200, 150, 499, 0, 999}) {
    std::vector<int32_t> ids(static_cast<size_t>(std::min<int64_t>(first == 0 ? 1000 : 400, 1000 - first)));
    dataset.read(first, ids);
    for (size_t i = 0; i < ids.size(); ++i) REQUIRE(ids[i] == first + static_cast<int64_t>(i));
  }
  std::vector<int32_t> two(2);
  CHECK(contains(error_of([&] { dataset.read(999, two); }), "the dataset has 1000"));
}

/// Targets are the tokens themselves where the sample's number says so; nothing beyond the sequence is read.
class Echo final : public Objective {
 public:
  int64_t reads(int64_t length) const override { return length; }
  void make(std::span<const int32_t> text, uint64_t seed, int64_t sample, std::span<int32_t> tokens,
            std::span<int32_t> targets) const override {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const bool hidden = (static_cast<int64_t>(i) + sample + static_cast<int64_t>(seed)) % 3 == 0;
      tokens[i] = hidden ? 0 : text[i];
      targets[i] = hidden ? text[i] : -1;
    }
  }
};

TEST_CASE("another objective reads as much text as it wants and knows the sample's number") {
  const CountingShards shards(1000);
  const Dataset dataset = shards.open();
  const Echo echo;
  const Loader loader(dataset, {.seed = 5, .sequence_length = 10, .micro_batch = 2, .global_batch = 8}, echo);
  CHECK(loader.windows() == 100);
  const Batch batch = load(loader, 3, 1, 1, 2);
  for (int64_t i = 0; i < 20; ++i) {
    const int64_t sample = 3 * 8 + 3 * 2 + i / 10;
    const auto id = static_cast<int32_t>(loader.window_of(sample) * 10 + i % 10), at = static_cast<int32_t>(i);
    const bool hidden = (i % 10 + sample + 5) % 3 == 0;
    CHECK(batch.tokens[static_cast<size_t>(at)] == (hidden ? 0 : id));
    CHECK(batch.targets[static_cast<size_t>(at)] == (hidden ? id : -1));
  }
}

TEST_CASE("the order of an epoch is a permutation, another one each epoch and seed, unlike the natural order") {
  for (const int64_t size : {1, 2, 3, 5, 16, 17, 97, 1000, 4096, 10'007}) {
    const Permutation order(size, 42);
    for (const int64_t epoch : {int64_t{0}, int64_t{1}, int64_t{7}}) {
      std::vector<bool> seen(static_cast<size_t>(size));
      for (int64_t i = 0; i < size; ++i) {
        const int64_t at = order.at(epoch, i);
        REQUIRE((at >= 0 && at < size));
        REQUIRE_FALSE(seen[static_cast<size_t>(at)]);
        seen[static_cast<size_t>(at)] = true;
      }
    }
  }
  // 10007 random places: rank correlations have a standard deviation of 1/sqrt(10006) = 0.01, places that agree between
  // two orders a mean of 1 and Poisson's spread; 5 and 10 sigma leave no room for chance.
  constexpr int64_t kSize = 10'007;
  const Permutation order(kSize, 42), other_seed(kSize, 43);
  const auto correlation = [&](const std::function<int64_t(int64_t)>& a, const std::function<int64_t(int64_t)>& b) {
    const double mean = (kSize - 1) / 2.0, variance = (static_cast<double>(kSize) * kSize - 1) / 12;
    double sum = 0;
    for (int64_t i = 0; i < kSize; ++i) sum += (static_cast<double>(a(i)) - mean) * (static_cast<double>(b(i)) - mean);
    return sum / kSize / variance;
  };
  const auto agreeing = [&](const std::function<int64_t(int64_t)>& a, const std::function<int64_t(int64_t)>& b) {
    int64_t count = 0;
    for (int64_t i = 0; i < kSize; ++i) count += a(i) == b(i) ? 1 : 0;
    return count;
  };
  const auto first = [&](int64_t i) { return order.at(0, i); };
  const auto second = [&](int64_t i) { return order.at(1, i); };
  const auto seeded = [&](int64_t i) { return other_seed.at(0, i); };
  const auto natural = [](int64_t i) { return i; };
  const auto next = [&](int64_t i) { return order.at(0, (i + 1) % kSize); };
  for (const auto& [a, b] : std::vector<std::pair<std::function<int64_t(int64_t)>, std::function<int64_t(int64_t)>>>{
           {first, natural}, {first, second}, {first, seeded}, {first, next}}) {
    CHECK(std::abs(correlation(a, b)) < 0.05);
    CHECK(agreeing(a, b) <= 11);
  }
}

TEST_CASE("large permutations need no memory and stay inside their bounds") {
  const int64_t size = (int64_t{1} << 40) + 12345;
  const Permutation order(size, 1);
  std::set<int64_t> seen;
  for (int64_t i = 0; i < 2000; ++i) {
    const int64_t at = order.at(3, i * 1000 + 5);
    CHECK((at >= 0 && at < size));
    seen.insert(at);
  }
  CHECK(seen.size() == 2000);
}

TEST_CASE("an epoch takes every window once; targets are the tokens one later") {
  const CountingShards shards(1013);
  const Dataset dataset = shards.open();
  const Loader loader(dataset, {5, 7, 2, 4});
  CHECK(loader.windows() == 144);  // (1013 - 1) / 7
  CHECK(loader.epochs(36) == Approx(1.0));
  std::multiset<int32_t> epochs[2];
  for (int64_t step = 0; step < 72; ++step) {
    for (int m = 0; m < 2; ++m) {
      const Batch batch = load(loader, step, m, 0, 1);
      for (size_t i = 0; i < batch.tokens.size(); ++i) {
        REQUIRE(batch.targets[i] == batch.tokens[i] + 1);
        REQUIRE((i % 7 == 0 || batch.tokens[i] == batch.tokens[i - 1] + 1));
        epochs[step / 36].insert(batch.tokens[i]);
      }
    }
  }
  for (const auto& tokens : epochs) {
    REQUIRE(tokens.size() == 144 * 7);
    int32_t expected = 0;
    for (const int32_t token : tokens) REQUIRE(token == expected++);
  }
  CHECK_FALSE(load(loader, 0, 0, 0, 1) == load(loader, 36, 0, 0, 1));
}

TEST_CASE("ranks and micro-steps share one global batch, the same however it is divided") {
  const CountingShards shards(5000);
  const Dataset dataset = shards.open();
  const Loader loader(dataset, {9, 16, 3, 12});
  for (const int64_t step : {0, 1, 25, 26, 1000}) {  // 312 windows: step 26 starts the second epoch
    std::map<std::pair<int, int>, std::vector<int32_t>> orders;
    for (const auto& [world, micro] : {std::pair{1, 4}, {2, 2}, {4, 1}}) {
      REQUIRE(loader.micro_steps(world) == micro);
      std::vector<int32_t>& order = orders[{world, micro}];
      for (int m = 0; m < micro; ++m) {
        for (int rank = 0; rank < world; ++rank) {
          const Batch batch = load(loader, step, m, rank, world);
          for (size_t row = 0; row < 3; ++row) order.push_back(batch.tokens[row * 16]);
        }
      }
      CHECK(std::set<int32_t>(order.begin(), order.end()).size() == 12);
      for (size_t g = 0; g < 12; ++g) {
        CHECK(order[g] == 16 * loader.window_of(step * 12 + static_cast<int64_t>(g)));
      }
    }
    CHECK(orders[{1, 4}] == orders[{2, 2}]);
    CHECK(orders[{1, 4}] == orders[{4, 1}]);
  }
  CHECK(contains(error_of([&] { loader.micro_steps(3); }), "multiple of 9"));
  CHECK_THROWS_AS(load(loader, 0, 2, 0, 2), Error);
  CHECK_THROWS_AS(load(loader, 0, 0, 2, 2), Error);
  CHECK_THROWS_AS(load(loader, -1, 0, 0, 1), Error);
}

TEST_CASE("starting at a step gives what walking there gives, prefetched or not") {
  const CountingShards shards(3000);
  const Dataset dataset = shards.open();
  const Loader loader(dataset, {11, 8, 2, 8});
  std::vector<Batch> walked;
  Prefetcher all(loader, 0, 1, 2);
  for (int i = 0; i < 120; ++i) {
    Batch batch{std::vector<int32_t>(16), std::vector<int32_t>(16)};
    all.next(batch.tokens, batch.targets);
    walked.push_back(batch);
  }
  const Dataset again = shards.open();
  const Loader resumed(again, {11, 8, 2, 8});
  for (const int64_t step : {59, 17, 0}) {
    for (int m = 0; m < 2; ++m) CHECK(load(resumed, step, m, 1, 2) == walked[static_cast<size_t>(step * 2 + m)]);
  }
  Prefetcher late(resumed, 40, 1, 2);
  for (size_t i = 80; i < 90; ++i) {
    Batch batch{std::vector<int32_t>(16), std::vector<int32_t>(16)};
    late.next(batch.tokens, batch.targets);
    CHECK(batch == walked[i]);
  }
  const Loader other_seed(dataset, {12, 8, 2, 8});
  CHECK_FALSE(load(other_seed, 0, 0, 1, 2) == walked[0]);
}

TEST_CASE("the prefetcher passes errors on") {
  const TestFolder folder;
  const auto path = write_shard(folder / "a.llmz", random_ids(10'000, 300), 300);
  const std::vector<std::string> inputs = {path.string()};
  const Dataset dataset = Dataset::open(inputs, Split::train);
  const Loader loader(dataset, {1, 99, 100, 100});
  std::filesystem::resize_file(path, 2000);
  Prefetcher prefetcher(loader, 0, 0, 1);
  std::vector<int32_t> tokens(9900), targets(9900);
  CHECK(contains(error_of([&] { prefetcher.next(tokens, targets); }), "cut short"));
}

TEST_CASE("evaluation scores every token but the first exactly once, at any stride") {
  for (const int32_t count : {2, 7, 8, 9, 15, 16, 17, 100, 101, 123}) {
    const CountingShards shards(count);
    const Dataset dataset = shards.open();
    for (const int64_t stride : {0, 8, 5, 3, 1}) {
      const EvalWindows windows(dataset, 8, 3, stride);
      std::vector<int> scored(static_cast<size_t>(count));
      int64_t total = 0;
      for (int64_t b = 0; b < windows.batches(); ++b) {
        Batch batch{std::vector<int32_t>(24, -7), std::vector<int32_t>(24, -7)};
        int64_t here = 0;
        total += windows.batch(b, batch.tokens, batch.targets);
        for (size_t i = 0; i < 24; ++i) {
          REQUIRE(batch.tokens[i] >= 0);
          if (batch.targets[i] == -1) continue;
          ++here;
          REQUIRE(batch.targets[i] == batch.tokens[i] + 1);
          ++scored[static_cast<size_t>(batch.targets[i])];
          // Context: position in the window, at least S - stride but in the first window.
          const auto position = static_cast<int64_t>(i % 8);
          REQUIRE((batch.targets[i] <= 8 || position >= 8 - (stride == 0 ? 8 : stride)));
        }
        REQUIRE((here > 0));
      }
      CHECK(total == count - 1);
      CHECK(windows.scored_tokens() == count - 1);
      CHECK(scored[0] == 0);
      CHECK(std::all_of(scored.begin() + 1, scored.end(), [](int n) { return n == 1; }));
    }
  }
  const CountingShards shards(100);
  const Dataset dataset = shards.open();
  CHECK_THROWS_AS(EvalWindows(dataset, 8, 1, 9), Error);
  CHECK_THROWS_AS(EvalWindows(dataset, 8, 1, -1), Error);
}

TEST_CASE("a dataset that cannot serve is refused before the first step") {
  const TestFolder folder;
  const auto open = [&](std::vector<std::string> names, Split split = Split::train) {
    for (std::string& name : names) name = (folder / name).string();
    return Dataset::open(names, split);
  };
  write_shard(folder / "a.llmz", random_ids(50, 300), 300, 7);
  write_shard(folder / "b.llmz", random_ids(50, 300), 300, 8);
  write_shard(folder / "c.llmz", random_ids(50, 301), 301, 7);
  write_llmc_shard(folder / "fineweb_train_000001.bin", {1, 2, 50256});
  write_llmc_shard(folder / "fineweb_train_000000.bin", {0});
  write_llmc_shard(folder / "fineweb_val_000000.bin", {5, 6});

  for (const auto& mixed : {"b.llmz", "c.llmz", "fineweb_val_000000.bin"}) {
    const std::string message = error_of([&] { open({"a.llmz", mixed}); });
    CHECK(contains(message, "different tokenizers"));
    CHECK(contains(message, mixed));
  }
  CHECK(contains(error_of([&] { open({"none.llmz"}); }), "no such shard"));
  CHECK(contains(error_of([&] { open({"none*.llmz"}); }), "no shard matches"));
  CHECK(contains(error_of([&] { open({""}); }), "not run or not finished"));
  CHECK(contains(error_of([&] { splits().value("test", "split"); }), "train, val"));

  Dataset small = open({"a.llmz"});
  CHECK(contains(error_of([&] { Loader(small, {0, 50, 1, 1}); }), "has 50 tokens, fewer than one window of 50 + 1"));
  CHECK_NOTHROW(Loader(small, {0, 49, 1, 1}));
  CHECK(contains(error_of([&] { Loader(small, {0, 10, 4, 6}); }), "not a multiple"));
  CHECK(contains(error_of([&] { Loader(small, {0, 0, 1, 1}); }), "at least 1"));
  const std::string message = error_of([&] { check_vocabulary(small, 299); });
  CHECK(contains(message, "a vocabulary of 300"));
  CHECK(contains(message, "one of 299"));
  CHECK_NOTHROW(check_vocabulary(small, 300));
  CHECK_NOTHROW(check_vocabulary(small, 512));

  std::filesystem::remove(folder / "a.llmz");
  std::filesystem::remove(folder / "b.llmz");
  std::filesystem::remove(folder / "c.llmz");
  Dataset llmc = open({""});  // llm.c folders go by the names
  CHECK(llmc.tokens() == 4);
  CHECK(open({""}, Split::validation).tokens() == 2);
  CHECK(contains(error_of([&] { check_vocabulary(llmc, 50256); }), "id 50256"));
  CHECK_NOTHROW(check_vocabulary(llmc, 50257));
}

TEST_CASE("shards without a stated vocabulary are checked as they are read") {
  const TestFolder folder;
  std::vector<uint16_t> ids(1'000'100, 5);
  ids.back() = 900;  // past what check_vocabulary looks at
  const std::vector<std::string> inputs = {write_llmc_shard(folder / "x_train.bin", ids).string()};
  Dataset dataset = Dataset::open(inputs, Split::train);
  check_vocabulary(dataset, 600);
  std::vector<int32_t> out(100);
  dataset.read(0, out);
  CHECK(contains(error_of([&] { dataset.read(1'000'000, out); }), "id 900 at position 1000099"));
}

}  // namespace
}  // namespace llmz::data
