// The contract that every codec keeps.
#include <cmath>
#include <cstring>
#include <vector>

#include "catch.h"
#include "codec/rig.h"

using namespace llmz;
using codec::CodecConfig;
using test::CodecRig;
using test::random_values;

namespace {

constexpr int64_t kTokens = 37, kWidth = 30, kOutputs = 11;

struct Case {
  std::string name;
  CodecConfig config;
};

CodecConfig sketch(const std::string& kind, float rank, float random_rank = 0.25f, const std::string& random = "haar") {
  CodecConfig c{.codec = "sketch"};
  c.projector.kind = subspace::projector_kinds().value(kind, "kind");
  c.projector.rank = rank;
  c.projector.random_rank = random_rank;
  c.projector.random = subspace::random_kinds().value(random, "random");
  c.projector.decomposition = subspace::Decomposition::exact;
  return c;
}

CodecConfig quant(int64_t bits, int64_t group, int64_t rotate, const std::string& rounding) {
  CodecConfig c{.codec = "quant"};
  c.quant = {
      .bits = bits, .group = group, .rotate = rotate, .rounding = codec::roundings().value(rounding, "rounding")};
  return c;
}

CodecConfig packed(CodecConfig c, int64_t bits) {
  c.quant.bits = bits;
  return c;
}

/// Every codec of the registry, every projector, every packing.
std::vector<Case> all_cases() {
  std::vector<Case> cases = {{"store", {.codec = "store"}}, {"recompute", {.codec = "recompute"}}};
  for (const std::string& kind : subspace::projector_kinds().list()) {
    if (kind != "prac") cases.push_back({"sketch " + kind, sketch(kind, 0.4f)});
  }
  for (const std::string& random : subspace::random_kinds().list()) {
    cases.push_back({"sketch prac " + random, sketch("prac", 0.3f, 0.3f, random)});
  }
  cases.push_back({"sketch sign, 8 bits", packed(sketch("sign", 0.5f), 8)});
  cases.push_back({"sketch prac haar, 4 bits", packed(sketch("prac", 0.3f, 0.3f), 4)});
  for (int64_t bits : {8, 4}) {
    for (int64_t group : {0, 8}) {
      for (int64_t rotate : {0, 16}) {
        for (const char* rounding : {"nearest", "stochastic"}) {
          cases.push_back({fmt::format("quant {} bits, group {}, rotate {}, {}", bits, group, rotate, rounding),
                           quant(bits, group, rotate, rounding)});
        }
      }
    }
  }
  return cases;
}

std::vector<float> dense_gradient(const std::vector<float>& x, const std::vector<float>& dy) {
  std::vector<float> g(kOutputs * kWidth);
  for (int64_t i = 0; i < kOutputs; ++i) {
    for (int64_t j = 0; j < kWidth; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < kTokens; ++t) {
        sum += static_cast<double>(dy[t * kOutputs + i]) * static_cast<double>(x[t * kWidth + j]);
      }
      g[i * kWidth + j] = static_cast<float>(sum);
    }
  }
  return g;
}

double norm(const std::vector<float>& v) {
  double sum = 0;
  for (float e : v) sum += static_cast<double>(e) * static_cast<double>(e);
  return std::sqrt(sum);
}

double relative_error(const std::vector<float>& got, const std::vector<float>& want) {
  std::vector<float> difference(want.size());
  for (size_t i = 0; i < want.size(); ++i) difference[i] = got[i] - want[i];
  return norm(difference) / norm(want);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

}  // namespace

TEST_CASE("planned bytes of a code are written bytes, all but the alignment's padding") {
  constexpr size_t kPadding = 256;
  for (const Case& c : all_cases()) {
    INFO(c.name);
    CodecRig rig(c.config, random_values(kTokens * kWidth, 0), kTokens, random_values(kTokens * kOutputs, 1));
    const auto a = rig.code_after(0x00), b = rig.code_after(0xff);
    REQUIRE(a.size() == b.size());
    CHECK((a.empty()) == (c.config.codec == "recompute"));
    for (size_t i = 0; i < a.size(); ++i) {
      size_t unwritten = 0;
      for (size_t j = 0; j < a[i].size(); ++j) unwritten += a[i][j] == 0x00 && b[i][j] == 0xff;
      CHECK(unwritten < kPadding);
    }
  }
}

TEST_CASE("the bytes of a code are those of its numbers and scales") {
  const auto bytes = [](const CodecConfig& config) {
    CodecRig rig(config, random_values(64 * 128, 0), 64, random_values(64 * 4, 1));
    return rig.code_bytes();
  };
  // 64 rows of 128: all multiples of the alignment.
  CHECK(bytes({.codec = "store"}) == 64 * 128 * 4);
  CHECK(bytes(quant(8, 0, 0, "nearest")) == 64 * (128 + 2) + 128);  // 128: the scales' 128 bytes are padded to 256
  CHECK(bytes(quant(4, 32, 0, "nearest")) == 64 * (64 + 4 * 2));
  CHECK(bytes(sketch("gaussian", 0.25f)) == 64 * 32 * 4);
  CHECK(bytes(packed(sketch("sign", 0.5f), 8)) == 64 * (64 + 2) + 128);
}

TEST_CASE("exact codecs give back every bit") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0), dy = random_values(kTokens * kOutputs, 1);
  for (const char* name : {"store", "recompute"}) {
    INFO(name);
    CodecRig rig({.codec = name}, x, kTokens, dy);
    CHECK(rig.codec().facts().exact);
    const auto result = rig.run(1);
    CHECK(same_bits(result.decoded, x));
    CHECK(relative_error(result.gradient, dense_gradient(x, dy)) < 1e-6);  // fp32 sums of 37 products
  }
}

TEST_CASE("full rank reproduces the dense gradient, and many bits come near it") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0), dy = random_values(kTokens * kOutputs, 1);
  const std::vector<float> dense = dense_gradient(x, dy);
  const auto error = [&](const CodecConfig& config) {
    CodecRig rig(config, x, kTokens, dy);
    return relative_error(rig.run(1).gradient, dense);
  };
  // A few products of fp32 matrices with orthonormal columns: their roundings add up to some 1e-7.
  for (const char* kind : {"sign", "haar", "principal"}) {
    INFO(kind);
    CHECK(error(sketch(kind, 1.0f)) < 3e-6);
  }
  CHECK(error(sketch("prac", 0.5f, 0.5f, "haar")) < 3e-6);
  // Rounding errors of at most half a step, uniform: s/√12 with s = max|x|/127.5 of a row, max|x| < 4.5 here.
  CHECK(error(quant(8, 0, 0, "nearest")) < 4.5 / 127.5 / std::sqrt(12.0) * 1.2);
  CHECK(error(quant(4, 8, 0, "nearest")) < 4.5 / 7.5 / std::sqrt(12.0) * 1.2);
  CHECK(error(quant(4, 8, 0, "nearest")) > error(quant(8, 0, 0, "nearest")));
  // A Gaussian projector is not orthogonal at any rank: its error at r = n is √((n + 1)/n) on the average.
  CHECK(error(sketch("gaussian", 1.0f)) > 0.5);
}

TEST_CASE("a code is a function of the seed and the step") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0), dy = random_values(kTokens * kOutputs, 1);
  for (const Case& c : all_cases()) {
    INFO(c.name);
    CodecRig one(c.config, x, kTokens, dy), other(c.config, x, kTokens, dy);
    const auto first = one.run(5);
    one.run(6);
    const auto again = one.run(5), elsewhere = other.run(5);
    CHECK(same_bits(first.gradient, again.gradient));
    CHECK(same_bits(first.decoded, elsewhere.decoded));
    const bool draws = c.config.quant.rounding == codec::Rounding::stochastic || c.config.quant.rotate != 0 ||
                       (c.config.codec == "sketch" && c.config.projector.kind != subspace::ProjectorKind::principal);
    CHECK(same_bits(first.decoded, one.run(6).decoded) != draws);
  }
}

TEST_CASE("a sketch made by the op that makes x is the codec's own, and only sign sketches are") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0), dy = random_values(kTokens * kOutputs, 1);
  for (const Case& c : all_cases()) {
    INFO(c.name);
    CodecRig alone(c.config, x, kTokens, dy), ahead(c.config, x, kTokens, dy, nullptr, true);
    const auto a = alone.run(5), b = ahead.run(5);
    CHECK(same_bits(a.decoded, b.decoded));
    CHECK(same_bits(a.gradient, b.gradient));
    CHECK(alone.code_bytes() == ahead.code_bytes());
  }
  const auto asks = [&](const CodecConfig& config) {
    Memory memory;
    subspace::Clock clock;
    const auto codec = codec::make_codec({.config = config, .name = "x", .widths = {kWidth}, .clock = &clock}, memory);
    Exec exec(memory);
    const ProgramScope program(memory, "pass");
    const bool present = codec->sketch_epilogue(exec, kTokens).present();
    codec->drop();
    return present;
  };
  CHECK(asks(sketch("sign", 0.25f)));
  CHECK(asks(packed(sketch("sign", 0.25f), 8)));
  CHECK_FALSE(asks(sketch("gaussian", 0.25f)));
  CHECK_FALSE(asks(sketch("prac", 0.25f, 0.25f, "sign")));
  CHECK_FALSE(asks({.codec = "store"}));
}

TEST_CASE("projectors change when their period ends, and not before") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0), dy = random_values(kTokens * kOutputs, 1);
  for (const char* kind : {"gaussian", "sign", "haar"}) {
    INFO(kind);
    CodecConfig config = sketch(kind, 0.4f);
    config.projector.refresh = 3;
    CodecRig rig(config, x, kTokens, dy);
    const auto step0 = rig.run(1, 0).decoded, step2 = rig.run(1, 2).decoded, step3 = rig.run(1, 3).decoded,
               step4 = rig.run(1, 4).decoded;
    CHECK(same_bits(step0, step2));
    CHECK_FALSE(same_bits(step0, step3));
    CHECK(same_bits(step3, step4));
    CHECK(rig.codec().facts().projector->age == 1);
    CHECK_FALSE(rig.codec().facts().projector->changed);
  }
}

TEST_CASE("a store with a projector makes the low-rank gradient that a sketch makes") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0), dy = random_values(kTokens * kOutputs, 1);
  for (const char* kind : {"gaussian", "sign", "haar", "principal"}) {
    INFO(kind);
    const CodecConfig sketched = sketch(kind, 0.4f);
    const codec::GradientConfig gradient{.form = codec::GradientForm::low_rank, .projector = sketched.projector};
    CodecRig kept({.codec = "store"}, x, kTokens, dy, &gradient), coded(sketched, x, kTokens, dy);
    const auto a = kept.run(9), b = coded.run(9);
    CHECK(same_bits(a.decoded, x));
    CHECK(same_bits(a.gradient, b.gradient));
  }
}

TEST_CASE("an unknown codec is refused with the known ones") {
  Memory memory;
  CHECK_THROWS_WITH(codec::make_codec({.config = {.codec = "stroe"}, .name = "x", .widths = {3}}, memory),
                    contains("'stroe'") && contains("store, recompute, sketch, quant"));
}
