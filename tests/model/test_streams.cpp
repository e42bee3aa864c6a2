// Random numbers belong to a tensor's name: what else a model has does not change them.
#include <algorithm>
#include <set>

#include "catch.h"
#include "llmz/model/model.h"
#include "llmz/subspace/streams.h"

using namespace llmz;
using subspace::StreamsBy;

namespace {

std::vector<float> initial_head(int64_t layers, StreamsBy by) {
  const model::ModelConfig config{.architecture = "llama",
                                  .vocab_size = 11,
                                  .hidden = 8,
                                  .intermediate = 12,
                                  .layers = layers,
                                  .heads = 2,
                                  .context = 4};
  model::BuildOptions options;
  options.streams = by;
  Memory recorder;
  model::make_model(config, options, recorder);
  Memory memory(recorder.finish());
  const auto model = model::make_model(config, options, memory);
  Exec exec(memory);
  model->initialise(exec, 7);
  for (const Parameter* p : model->parameters()) {
    if (p->name == "head.weight") return {p->weight.as<float>(), p->weight.as<float>() + p->weight.numel()};
  }
  return {};
}

}  // namespace

TEST_CASE("initial weights are those of their name, whatever stands before them") {
  const std::vector<float> one = initial_head(1, StreamsBy::name);
  REQUIRE(one.size() == 88);
  CHECK(initial_head(2, StreamsBy::name) == one);
  CHECK(initial_head(2, StreamsBy::order) != initial_head(1, StreamsBy::order));
}

TEST_CASE("streams by order count parts, streams by name are hashes, and no two tensors share one") {
  subspace::StreamTable order(StreamsBy::order, 1), name(StreamsBy::name, 1);
  CHECK(order.add("a", 3).id == 1);
  CHECK(order.add("liquid").id == 4);
  CHECK(order.add("costarring").id == 5);
  CHECK(name.add("a", 3).id == 0xe40c292c);  // of the algorithm's published test vectors
  const subspace::StreamId liquid = name.add("liquid");
  CHECK(liquid.number == 4);
  const subspace::StreamId costarring = name.add("costarring");  // a known collision
  CHECK(costarring.id == subspace::hash_of("costarring#1"));
  CHECK(costarring.number == 5);
  CHECK_THROWS_WITH(name.add("liquid"), contains("two tensors") && contains("'liquid'"));
}

TEST_CASE("the deepest model that a configuration may ask for is announced, each tensor with streams of its own") {
  model::ModelConfig config{.architecture = "llama",
                            .vocab_size = 11,
                            .hidden = 8,
                            .intermediate = 12,
                            .layers = 10000,
                            .heads = 2,
                            .context = 4};
  Memory recorder;
  const auto model = model::make_model(config, {}, recorder);
  std::set<uint32_t> ids;
  for (const Parameter* p : model->parameters()) ids.insert(p->stream);
  CHECK(ids.size() == model->parameters().size());
  CHECK(ids.size() > 60000);
}
