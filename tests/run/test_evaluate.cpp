#include "llmz/run/evaluate.h"

#include <cmath>
#include <numbers>

#include "catch.h"
#include "engine/tiny_engine.h"
#include "llmz/data/shard.h"
#include "run/temp_folder.h"

using namespace llmz;
using namespace llmz::engine;
using namespace llmz::run;

namespace {

constexpr int64_t kTokens = 61, kSequence = 8, kVocab = 29;
constexpr uint64_t kTextBytes = 200;

/// Loss of token `t` given the tokens from `start` on, by itself in a batch.
double loss_of(Engine& engine, const std::vector<int32_t>& ids, int64_t start, int64_t t) {
  std::vector<int32_t> tokens(2 * kSequence, 0), targets(2 * kSequence, -1);
  for (int64_t i = start; i < t; ++i) tokens[static_cast<size_t>(i - start)] = ids[static_cast<size_t>(i)];
  targets[static_cast<size_t>(t - 1 - start)] = ids[static_cast<size_t>(t)];
  double sum = 0;
  for (float loss : engine.evaluate(tokens, targets)) sum += static_cast<double>(loss);
  return sum;
}

}  // namespace

TEST_CASE("evaluation sums every token's loss once, with the context that the stride gives it") {
  const test::TempFolder temp;
  const auto ids = test::random_ids(kTokens, 0, kVocab);
  data::ShardWriter writer(temp.path() / "val.llmz", kVocab, 0);
  writer.append(ids, kTextBytes);
  writer.finish();
  const std::string input = (temp.path() / "val.llmz").string();
  const auto dataset = data::Dataset::open(std::span(&input, 1), data::Split::validation);

  EngineOptions options;
  options.model = test::tiny_model("gpt2");
  options.model.vocab_size = kVocab;
  options.model.context = kSequence;
  options.micro_batch = 2;
  options.sequence = kSequence;
  options.training = false;
  Engine engine(options);
  engine.initialise(4);

  for (int64_t stride : {int64_t{0}, int64_t{1}, int64_t{3}, kSequence}) {
    INFO("stride " << stride);
    const int64_t advance = stride == 0 ? kSequence : stride;
    double sum = 0;
    for (int64_t t = 1; t < kTokens; ++t) {
      // The first window whose targets reach t: window w has the targets w·advance + 1 … w·advance + S.
      const int64_t window = t <= kSequence ? 0 : (t - kSequence + advance - 1) / advance;
      sum += loss_of(engine, ids, window * advance, t);
    }
    const Evaluation e = evaluate(engine, dataset, stride, 0);
    CHECK(e.tokens == kTokens - 1);
    CHECK(e.loss == Approx(sum / (kTokens - 1)).epsilon(1e-6));  // fp32 losses
    CHECK(e.perplexity == Approx(std::exp(e.loss)));
    CHECK(e.bits_per_byte == Approx(sum / std::numbers::ln2 / kTextBytes).epsilon(1e-6));
  }
  const Evaluation part = evaluate(engine, dataset, 0, 2);
  CHECK(part.tokens < kTokens - 1);
  CHECK(part.bits_per_byte == 0);
}
