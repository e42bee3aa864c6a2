// A recorded pass would repeat its random numbers: whether a codec draws new ones is its own word, which the model
// passes on to the engine (tests/cuda/test_engine.cpp asks that).
#include "catch.h"
#include "llmz/model/model.h"

using namespace llmz;

namespace {

/// Of no registry: nothing but its own facts can tell.
class Toy final : public codec::Codec {
 public:
  explicit Toy(bool draws) : draws_(draws) {}
  codec::CodecFacts facts() const override { return {.draws_each_pass = draws_}; }
  void keep(Exec&, Buffer x, codec::Rebuild) override { x_ = std::move(x); }
  Buffer decode(Exec&) override { return x_; }
  void drop() override { x_.reset(); }

 private:
  bool draws_;
  Buffer x_;
};

bool draws(std::vector<codec::Codec*> codecs) {
  model::Model::Parts parts;
  parts.codecs = std::move(codecs);
  return model::Model({}, {}, std::move(parts)).draws_each_pass();
}

bool draws(const codec::CodecConfig& gate_up) {
  Memory recorder;
  model::BuildOptions options;
  options.activations.gate_up = gate_up;
  const model::ModelConfig config{.architecture = "llama",
                                  .vocab_size = 11,
                                  .hidden = 8,
                                  .intermediate = 12,
                                  .layers = 1,
                                  .heads = 2,
                                  .context = 4};
  return model::make_model(config, options, recorder)->draws_each_pass();
}

}  // namespace

TEST_CASE("a model draws in each pass when one of its codecs says so") {
  Toy still(false), restless(true);
  CHECK_FALSE(draws({&still}));
  CHECK(draws({&still, &restless}));
}

TEST_CASE("codes rounded stochastically draw in each pass, others do not") {
  CHECK_FALSE(draws(codec::CodecConfig{}));
  CHECK_FALSE(draws({.codec = "sketch"}));
  CHECK_FALSE(draws({.codec = "quant"}));
  CHECK(draws({.codec = "quant", .quant = {.rounding = codec::Rounding::stochastic}}));
  CHECK(draws({.codec = "sketch", .quant = {.bits = 8, .rounding = codec::Rounding::stochastic}}));
  CHECK_FALSE(
      draws({.codec = "sketch", .quant = {.rounding = codec::Rounding::stochastic}}));  // its code stays as it is
}
