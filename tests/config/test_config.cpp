#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "catch.h"
#include "errors.h"
#include "llmz/run/config_io.h"
#include "llmz/run/presets.h"
#include "src/run/config_schema.h"

using namespace llmz;
using namespace llmz::run;
using Json = nlohmann::ordered_json;

namespace {

RunConfig parse(const std::string& json, const std::vector<std::string>& overrides = {}) {
  return parse_run_config(json, "run.json", overrides);
}

Json value_at(const Json& root, const std::string& path) {
  std::string pointer = "/" + path;
  std::replace(pointer.begin(), pointer.end(), '.', '/');
  return root.at(Json::json_pointer(pointer));
}

/// Values unlike `now` that the key may take, likelier ones first.
std::vector<std::string> other_values(const config::Field& key, const Json& now) {
  if (!key.allowed.choices.empty()) return key.allowed.choices;
  if (now.is_boolean()) return {now.get<bool>() ? "false" : "true"};
  if (key.list != nullptr) return {R"([{"use": "adamw_factored", "where": "blocks.matrix"}])"};
  if (now.is_array()) return {"one.bin,two.bin"};
  if (now.is_string()) return {"some text"};
  const double x = now.get<double>();
  if (now.is_number_float()) return {Json(x * 0.5).dump(), "0.25"};
  std::vector<std::string> values;
  for (const double y : {x + 1, x + 500, x * 2, x / 2, x / 4}) values.push_back(Json(static_cast<int64_t>(y)).dump());
  return values;
}

}  // namespace

TEST_CASE("an empty object gives every default") {
  CHECK(to_json(parse("{}")) == to_json(RunConfig{}));
  CHECK(parse("{}").optimizer.lr == optim::OptimizerConfig{}.lr);
}

TEST_CASE("entries of optimizer.rules name a rule, where it is for, and its own settings") {
  const RunConfig c = parse(R"({"optimizer": {"beta2": 0.9, "rules": [
    {"where": "blocks.matrix", "use": "adamw_factored", "first_moment_bits": 8, "lr_scale": 2}, {"use": "adamw"}]}})");
  REQUIRE(c.optimizer.rules.size() == 2);
  CHECK(c.optimizer.rules[0].name == "adamw_factored");
  CHECK(c.optimizer.rules[0].settings.get<optim::RulePlace>().where == "blocks.matrix");
  CHECK(c.optimizer.rules[0].settings.get<optim::RulePlace>().lr_scale == 2);
  CHECK(c.optimizer.rules[1].settings.get<optim::RulePlace>().where == "all");
  const Json printed = Json::parse(to_json(c))["optimizer"]["rules"];
  CHECK(printed[0]["first_moment_bits"] == 8);
  CHECK(printed[1]["decay_scale"] == 1);
  CHECK(printed[1]["beta2"] == 0.9);
  CHECK_ERROR(parse(R"({"optimizer": {"rules": [{"use": "adam"}]}})"), "optimizer.rules[0].use", "adamw_factored");
  CHECK_ERROR(parse(R"({"optimizer": {"rules": [{"use": "adamw", "first_moment_bits": 8}]}})"), "first_moment_bits");
  CHECK_ERROR(
      parse(R"({"optimizer": {"rules": [{"use": "adamw"}, {"use": "adamw_factored", "first_moment_bits": 16}]}})"),
      "run.json: optimizer.rules[1].first_moment_bits = 16", "32, 8");
}

TEST_CASE("settings that an entry of optimizer.rules leaves out are as the keys of optimizer say") {
  const char* file = R"({"optimizer": {
    "rules": [{"use": "adamw", "eps": 1e-6}, {"use": "adamw_factored"}, {"use": "adamw_subspace", "beta1": 0.7}],
    "beta1": 0.1, "beta2": 0.5, "moments": "factored", "first_moment_bits": 8, "subspace": {"alpha": 2}}})";
  const RunConfig c = parse(file, {"optimizer.beta2=0.6"});
  const Json rules = Json::parse(to_json(c))["optimizer"]["rules"];
  CHECK((rules[0]["beta1"] == 0.1 && rules[0]["beta2"] == 0.6 && rules[0]["eps"] == 1e-6));
  CHECK((rules[1]["beta1"] == 0.1 && rules[1]["first_moment_bits"] == 8));
  CHECK((rules[2]["beta1"] == 0.7 && rules[2]["beta2"] == 0.6 && rules[2]["alpha"] == 2));
  // A printed entry says all of its settings itself.
  const RunConfig again = parse(to_json(c), {"optimizer.beta1=0.3"});
  CHECK(Json::parse(to_json(again))["optimizer"]["rules"] == rules);
  // Another method brings its own bits; what does not come from it stays.
  const RunConfig full = with_preset(c, "full");
  CHECK(Json::parse(to_json(full))["optimizer"]["rules"][1]["first_moment_bits"] == 32);
  CHECK(Json::parse(to_json(full))["optimizer"]["rules"][0] == rules[0]);
}

TEST_CASE("keys reach their members") {
  const RunConfig c = parse(R"({
    // a comment
    "model": {"architecture": "gpt2", "vocab_size": 300, "hidden": 64, "heads": 4, "norm_eps": 1e-5}, /* another */
    "data": {"train": ["a.bin", "b*.bin"], "tokenizer": "tok"},
    "activations": {"gate_up": {"codec": "recompute"}, "block": {"codec": "recompute"},
                    "qkv_input": {"codec": "sketch", "projector": "prac", "rank": 0.3, "refresh": 500, "bits": 8}},
    "optimizer": {"lr": 3e-4, "lr_scale": {"head": 0.5}, "decay_on": {"norms": true}},
    "schedule": {"kind": "wsd", "warmup": 7, "decay": 0.3},
    "train": {"seed": 18446744073709551615, "steps": 1e4, "global_batch": 16},
    "output": {"path": "out/x", "save_best": false}
  })");
  CHECK(c.model.architecture == "gpt2");
  CHECK(c.model.vocab_size == 300);
  CHECK(c.model.hidden == 64);
  CHECK(c.model.norm_eps == 1e-5f);
  CHECK(c.model.layers == model::ModelConfig{}.layers);
  CHECK(c.data.train == std::vector<std::string>{"a.bin", "b*.bin"});
  CHECK(c.data.tokenizer == "tok");
  CHECK(c.activations.gate_up.codec == "recompute");
  CHECK(c.activations.down_input.codec == "store");
  CHECK(c.activations.qkv_input.projector.kind == subspace::ProjectorKind::prac);
  CHECK(c.activations.qkv_input.projector.rank == 0.3f);
  CHECK(c.activations.qkv_input.projector.refresh == 500);
  CHECK(c.activations.qkv_input.quant.bits == 8);
  CHECK(c.activations.block == nn::BlockCodec::recompute);
  CHECK(c.optimizer.lr == 3e-4f);
  CHECK(c.optimizer.lr_scale.head == 0.5f);
  CHECK(c.optimizer.lr_scale.blocks == 1.0f);
  CHECK(c.optimizer.decay_on.norms);
  CHECK_FALSE(c.optimizer.decay_on.biases);
  CHECK(c.schedule.kind == "wsd");
  CHECK(c.schedule.warmup == 7.0f);
  CHECK(c.train.seed == 18446744073709551615u);
  CHECK(c.train.steps == 10000);
  CHECK(c.output.path == "out/x");
  CHECK_FALSE(c.output.save_best);
}

TEST_CASE("every key is read by --set, printed, and read again; it changes nothing else") {
  for (const config::Field& key : schema().fields()) {
    CAPTURE(key.path);
    std::vector<std::string> needed;  // what this key is refused without
    if (key.path == "optimizer.first_moment_bits") needed = {"optimizer.moments=factored"};
    const Json before = Json::parse(to_json(parse("{}", needed)));
    const Json now = value_at(before, key.path);
    std::string last_error = "no other value was tried";
    bool changed = false;
    std::vector<std::string> values = other_values(key, now);
    if (key.path == "train.device") values = {"cpu", "cuda:1"};  // a text, but not any text
    for (const std::string& value : values) {
      RunConfig config;
      try {
        std::vector<std::string> overrides = needed;
        overrides.push_back(key.path + "=" + value);
        config = parse("{}", overrides);
      } catch (const Error& error) {  // a value that the rest does not fit, such as 9 heads
        last_error = error.what();
        continue;
      }
      const Json after = Json::parse(to_json(config));
      if (value_at(after, key.path) == now) continue;
      changed = true;
      const Json difference = Json::diff(before, after);
      for (const Json& step : difference) {
        std::string pointer = "/" + key.path;
        std::replace(pointer.begin(), pointer.end(), '.', '/');
        CHECK(step["path"].get<std::string>().starts_with(pointer));
      }
      CHECK(to_json(parse(to_json(config))) == to_json(config));
      break;
    }
    if (key.allowed.choices.size() != 1) {
      INFO(last_error);
      CHECK(changed);
    }
  }
}

namespace {

/// Where a member lies.
struct Span {
  const char* begin;
  size_t size;
  std::string path;
};

struct SpanOf {
  const std::string& path;
  Span operator()(const config::Named& named) const {
    return {static_cast<const char*>(named.member()), named.size(), path};
  }
  template <class T>
  Span operator()(const T* member) const {
    return {reinterpret_cast<const char*>(member), sizeof(*member), path};
  }
};

}  // namespace

TEST_CASE("every member of the structs has a key") {
  // Members lie one behind the other but for alignment: a gap wider than that is a member without a key.
  RunConfig config;
  std::vector<Span> spans;
  for (const config::Field& key : schema().fields()) {
    spans.push_back(std::visit(SpanOf{key.path}, key.slot(&config)));
  }
  // Settings of components that the struct does not know.
  std::vector<const config::Bag*> bags = {&config.model.own, &config.schedule.own};
  for (const nn::ActivationRole& role : nn::activation_roles()) bags.push_back(&(config.activations.*role.config).own);
  for (const config::Bag* own : bags) spans.push_back({reinterpret_cast<const char*>(own), sizeof(*own), "own"});
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  const char* at = reinterpret_cast<const char*>(&config);
  for (const Span& span : spans) {
    INFO("before " << span.path);
    CHECK(span.begin >= at);
    CHECK(static_cast<size_t>(span.begin - at) < alignof(RunConfig));
    at = span.begin + span.size;
  }
  CHECK(static_cast<size_t>(reinterpret_cast<const char*>(&config + 1) - at) < alignof(RunConfig));
}

TEST_CASE("what is printed is read back as it was") {
  RunConfig c = parse("{}");
  c.model.rope_base = 12345.678f;
  c.optimizer.lr = std::nextafter(1e-3f, 1.0f);
  c.optimizer.eps = 1.5e-38f;
  c.data.train = {"with \"quotes\"", "and ünïcode", "and\nlines"};
  c.train.seed = 9007199254740993;  // 2^53 + 1: a double cannot hold it
  const RunConfig again = parse(to_json(c));
  CHECK(again.model.rope_base == c.model.rope_base);
  CHECK(again.optimizer.lr == c.optimizer.lr);
  CHECK(again.optimizer.eps == c.optimizer.eps);
  CHECK(again.data.train == c.data.train);
  CHECK(again.train.seed == c.train.seed);
  CHECK(to_json(again) == to_json(c));

  const std::string text = to_json(RunConfig{});
  CHECK(text.find("\"lr\": 0.001,") != std::string::npos);  // not 0.0010000000474974513
  const auto at = [&](const char* key) { return text.find("\"" + std::string(key) + "\": {"); };
  CHECK((at("model") < at("data") && at("data") < at("activations") && at("activations") < at("optimizer")));
  CHECK((at("optimizer") < at("schedule") && at("schedule") < at("train") && at("train") < at("output")));
}

TEST_CASE("every key is printed, also of what no codec uses; a screen gets those that were changed") {
  const std::string full = to_json(parse("{}"));
  const Json printed = Json::parse(full);
  for (const config::Field& key : schema().fields()) {
    INFO(key.path);
    CHECK_NOTHROW(value_at(printed, key.path));
  }
  CHECK(value_at(printed, "activations.qkv.rank") == 0.25);
  CHECK(changes_json(parse("{}")) == "{}\n");

  const RunConfig changed = parse(R"({"activations": {"qkv": {"codec": "quant", "bits": 4}}, "train": {"steps": 7}})");
  CHECK(Json::parse(changes_json(changed)) ==
        Json::parse(R"({"activations": {"qkv": {"codec": "quant", "bits": 4}}, "train": {"steps": 7}})"));
  CHECK(to_json(parse(changes_json(changed))) == to_json(changed));
}

TEST_CASE("text that is not JSON is an error with its line and column") {
  CHECK_ERROR(parse("{\n  \"train\": {\n    \"steps\": 10,\n  }\n}"), "run.json:4:3: not valid JSON", "'}'",
              "train.steps");
  CHECK_ERROR(parse("{\"train\" {}}"), "run.json:1:10: not valid JSON");
  CHECK_ERROR(parse("{\"optimizer\": {\"lr\": NaN}}"), "run.json:1:22", "not valid JSON", "optimizer.lr");
  CHECK_ERROR(parse("{\n\"optimizer\": {\n\"lr\": 1e999}}"), "run.json:3:", "1e999", "optimizer.lr", "overflow");
  CHECK_ERROR(parse("{\"ü\n"), "run.json:1:4");  // columns count characters, not bytes
  CHECK_ERROR(parse(""), "run.json:1:1", "end of input");
  CHECK_ERROR(parse("{\n\"train\": {"), "run.json:2:11", "end of input");
  CHECK_ERROR(parse("{} {}"), "run.json:1:4");
  CHECK_ERROR(parse("{\"a\": \"\xff\"}"), "run.json:1:", "UTF-8");
  CHECK_ERROR(parse("[]"), "run.json", "object", "[]");
  CHECK_ERROR(parse("17"), "run.json", "object", "17");
}

TEST_CASE("an unknown key is an error with its line and the nearest known key") {
  CHECK_ERROR(parse("{\n\"train\": {\n\"stpes\": 10}}"), "run.json:3: unknown key \"train.stpes\"",
              "did you mean \"train.steps\"?", "global_batch");
  CHECK_ERROR(parse("{\"modle\": {}}"), "run.json:1", "\"modle\"", "did you mean \"model\"?");
  CHECK_ERROR(parse("{\"lr\": 1}"), "\"lr\"", "did you mean \"optimizer.lr\"?");
  CHECK_ERROR(parse("{\"train\": {\"weight_decay\": 1}}"), "did you mean \"optimizer.weight_decay\"?");
  CHECK_ERROR(parse("{\"optimizer\": {\"lr_scale\": {\"heads\": 1}}}"), "\"optimizer.lr_scale.heads\"",
              "did you mean \"optimizer.lr_scale.head\"?");
  CHECK_ERROR(parse("{\"model\": {\"layer\": 1}}"), "did you mean \"model.layers\"?", "kv_heads");
  CHECK_ERROR(parse("{\"model\": {\"bass\": \"x\"}}"), "did you mean \"model.base\"?");
  CHECK_ERROR(parse("{\"optimizer\": {\"base\": \"x\"}}"), "unknown key \"optimizer.base\"");
  CHECK_ERROR(parse("{\"train.steps\": 10}"), "run.json:1", "\"train.steps\"", "dot", "nested");
  CHECK_ERROR(parse("{\"\": 10}"), "unknown key \"\"");
  CHECK_ERROR(parse("{\"two\\nlines\": 10}"), "unknown key \"two\\nlines\"");
}

TEST_CASE("a key that stands twice is an error with both lines") {
  CHECK_ERROR(parse("{\"train\": {\n\"steps\": 10,\n\"seed\": 1,\n\"steps\": 20}}"), "run.json:4", "\"train.steps\"",
              "line 2");
  CHECK_ERROR(parse("{\"train\": {},\n\"train\": {}}"), "run.json:2", "\"train\"", "line 1");
}

TEST_CASE("a wrong type is an error with key, value and what is wanted") {
  CHECK_ERROR(parse("{\"train\":\n {\"steps\": \"ten\"}}"), "run.json:2: \"train.steps\" must be a whole number",
              "\"ten\"", "string");
  CHECK_ERROR(parse("{\"train\": {\"steps\": 10.5}}"), "\"train.steps\" must be a whole number", "10.5");
  CHECK_ERROR(parse("{\"train\": {\"steps\": true}}"), "\"train.steps\" must be a whole number", "true");
  CHECK_ERROR(parse("{\"train\": {\"steps\": null}}"), "\"train.steps\" must be a whole number", "null");
  CHECK_ERROR(parse("{\"train\": {\"seed\": 1e30}}"), "\"train.seed\" must be a whole number", "1e+30");
  CHECK_ERROR(parse("{\"optimizer\": {\"lr\": \"high\"}}"), "\"optimizer.lr\" must be a number", "\"high\"");
  CHECK_ERROR(parse("{\"output\": {\"save_best\": 1}}"), "\"output.save_best\" must be true or false", "1");
  CHECK_ERROR(parse("{\"output\": {\"path\": 5}}"), "\"output.path\" must be a text", "5");
  CHECK_ERROR(parse("{\"data\": {\"train\": \"a.bin\"}}"), "\"data.train\" must be a list of texts", "\"a.bin\"");
  CHECK_ERROR(parse("{\"data\": {\"train\": [\"a.bin\", 3]}}"), "\"data.train\" must be a list of texts", "3");
  CHECK_ERROR(parse("{\"train\": 5}"), "\"train\" must be an object", "5");
  CHECK_ERROR(parse("{\"activations\": {\"qkv\": \"store\"}}"), "\"activations.qkv\" must be an object", "\"store\"");
  CHECK_ERROR(parse("{\"model\": 5}"), "\"model\" must be the name of a model or an object", "5");
  CHECK_ERROR(parse("{\"model\": {\"base\": 5}}"), "\"model.base\" must be the name of a model", "5");
}

TEST_CASE("a value out of range is an error with key, value and range") {
  CHECK_ERROR(parse("{\"train\":\n{\"steps\": 0}}"), "run.json:2: \"train.steps\" = 0 is out of range", "1 to");
  CHECK_ERROR(parse("{\"train\": {\"steps\": -3}}"), "\"train.steps\" = -3 is out of range");
  CHECK_ERROR(parse("{\"train\": {\"steps\": 18446744073709551615}}"), "\"train.steps\" = 18446744073709551615");
  CHECK_ERROR(parse("{\"train\": {\"steps\": 18446744073709551616}}"), "\"train.steps\"", "whole number");
  CHECK_ERROR(parse("{\"train\": {\"seed\": -1}}"), "\"train.seed\" = -1 is out of range", "at least 0");
  CHECK_ERROR(parse("{\"optimizer\": {\"lr\": -1e-3}}"), "\"optimizer.lr\" = -0.001 is out of range", "at least 0");
  CHECK_ERROR(parse("{\"optimizer\": {\"beta2\": 1}}"), "\"optimizer.beta2\" = 1", "at least 0 and below 1");
  CHECK_ERROR(parse("{\"optimizer\": {\"beta2\": 0.99999999999}}"), "\"optimizer.beta2\"", "below 1");  // 1 as a float
  CHECK_ERROR(parse("{\"optimizer\": {\"eps\": 0}}"), "\"optimizer.eps\" = 0", "above 0");
  CHECK_ERROR(parse("{\"optimizer\": {\"eps\": 1e-60}}"), "\"optimizer.eps\" = 1e-60", "above 0");  // 0 as a float
  CHECK_ERROR(parse("{\"optimizer\": {\"lr\": 1e39}}"), "\"optimizer.lr\" = 1e+39", "32-bit");
  CHECK_ERROR(parse("{\"schedule\": {\"final_fraction\": 1.5}}"), "\"schedule.final_fraction\" = 1.5", "0 to 1");
  CHECK_ERROR(parse("{\"model\": {\"vocab_size\": 3000000000}}"), "\"model.vocab_size\"", "1 to 2147483647");
}

TEST_CASE("an unknown choice is an error with the known ones") {
  CHECK_ERROR(parse("{\"schedule\": {\"kind\": \"cosin\"}}"), "run.json:1", "\"schedule.kind\" = \"cosin\"",
              "cosine, linear, constant, wsd");
  CHECK_ERROR(parse("{\"optimizer\": {\"name\": \"adam\"}}"), "\"optimizer.name\" = \"adam\"", "adamw");
  CHECK_ERROR(parse("{\"model\": {\"architecture\": \"bert\"}}"), "\"model.architecture\" = \"bert\"", "llama, gpt2");
  CHECK_ERROR(parse("{\"train\": {\"device\": \"tpu\"}}"), "\"train.device\" = \"tpu\"", "auto, cpu");
  CHECK_ERROR(parse("{\"activations\": {\"qkv\": {\"codec\": \"zip\"}}}"), "\"activations.qkv.codec\" = \"zip\"",
              "store, sketch, quant");
}

TEST_CASE("precision is an object of its keys, or a name for a set of them") {
  CHECK(parse(R"({"precision": "pure_bf16"})").precision.moments == DType::bf16);
  const RunConfig mixed = parse(R"({"precision": "bf16"})", {"precision.moments=bf16"});
  CHECK((mixed.precision.compute == run::Compute::bf16 && mixed.precision.weights == optim::Bf16Weights::master &&
         mixed.precision.moments == DType::bf16));
  CHECK(parse("{}", {"precision=tf32"}).precision.compute == run::Compute::tf32);
  CHECK_ERROR(parse(R"({"precision": "fp8"})"), "precision \"fp8\"", "fp32, tf32, bf16, bf16_stochastic, pure_bf16");
  CHECK_ERROR(parse(R"({"precision": {"weights": "fp16"}})"), "\"precision.weights\" = \"fp16\"", "master");
}

TEST_CASE("overrides come after the file, in order") {
  const std::string file = R"({"train": {"steps": 10, "seed": 3}, "data": {"path": "from file"}})";
  const RunConfig c = parse(file, {"train.steps=20", "optimizer.lr=1e-4", "train.steps=30", "data.path=from=here"});
  CHECK(c.train.steps == 30);
  CHECK(c.train.seed == 3);
  CHECK(c.optimizer.lr == 1e-4f);
  CHECK(c.data.path == "from=here");
}

TEST_CASE("override values are read by the type of their key") {
  CHECK(parse("{}", {"output.path=17"}).output.path == "17");
  CHECK(parse("{}", {"output.path=\"quoted\""}).output.path == "quoted");
  CHECK(parse("{}", {"output.path="}).output.path.empty());
  CHECK(parse("{}", {"output.save_best=false"}).output.save_best == false);
  CHECK(parse("{}", {"data.train=a.bin,b.bin"}).data.train == std::vector<std::string>{"a.bin", "b.bin"});
  CHECK(parse("{}", {"data.train=[\"a,b.bin\"]"}).data.train == std::vector<std::string>{"a,b.bin"});
  CHECK(parse("{}", {"data.train="}).data.train.empty());
  const RunConfig c = parse("{}", {R"(optimizer.lr_scale={"head": 0.5, "norms": 2})"});
  CHECK(c.optimizer.lr_scale.head == 0.5f);
  CHECK(c.optimizer.lr_scale.norms == 2.0f);
}

TEST_CASE("a bad override is an error that shows it") {
  CHECK_ERROR(parse("{}", {"train.stpes=5"}), "--set train.stpes=5", "did you mean \"train.steps\"?");
  CHECK_ERROR(parse("{}", {"train.steps=0"}), "--set train.steps=0", "out of range", "1 to");
  CHECK_ERROR(parse("{}", {"train.steps=many"}), "--set train.steps=many", "whole number", "\"many\"");
  CHECK_ERROR(parse("{}", {"train.steps="}), "--set train.steps=", "whole number");
  CHECK_ERROR(parse("{}", {"optimizer.lr=nan"}), "\"optimizer.lr\" must be a number", "nan");
  CHECK_ERROR(parse("{}", {"optimizer.lr=inf"}), "\"optimizer.lr\" must be a number", "inf");
  CHECK_ERROR(parse("{}", {"optimizer.lr=1e999"}), "--set optimizer.lr=1e999", "number");
  CHECK_ERROR(parse("{}", {"train.steps"}), "--set train.steps", "key=value");
  CHECK_ERROR(parse("{}", {"=5"}), "--set =5", "key=value");
  CHECK_ERROR(parse("{}", {"train=5"}), "\"train\" must be an object");
  CHECK_ERROR(parse("{}", {R"(train={"steps": 1, "steps": 2})"}), "--set train=", "twice");
  CHECK_ERROR(parse("{}", {R"(train={"stpes": 1})"}), "--set train=", "\"train.stpes\"");
  CHECK_ERROR(parse("{}", {"output.path=\xff\xfe"}), "output.path", "UTF-8");
}

TEST_CASE("keys that do not fit together are an error with file and keys") {
  CHECK_ERROR(parse(R"({"train": {"micro_batch": 3, "global_batch": 8}})"), "run.json: train.global_batch = 8",
              "multiple of train.micro_batch = 3");
  CHECK_ERROR(parse(R"({"train": {"sequence": 4096}})"), "run.json", "train.sequence = 4096", "model.context = 1024");
  CHECK_ERROR(parse(R"({"model": {"heads": 7}})"), "run.json", "model.hidden = 512", "model.heads = 7");
  CHECK_ERROR(parse(R"({"train": {"micro_batch": 16777216, "global_batch": 16777216}})"),
              "train.micro_batch = 16777216", "train.sequence");
  CHECK_ERROR(parse(R"({"train": {"steps": 1e12, "global_batch": 16777216}})"), "train.steps = 1000000000000",
              "train.global_batch = 16777216", "train.sequence = 256");
  CHECK_ERROR(parse(R"({"schedule": {"warmup": 2000}})"), "schedule.warmup = 2000", "train.steps = 1000");
  CHECK_ERROR(parse(R"({"data": {"path": "p", "train": ["t"]}})"), "data.path = \"p\"", "data.train");
  CHECK_ERROR(parse(R"({"output": {"save_every": 200, "keep_every": 500}})"), "output.keep_every = 500",
              "output.save_every = 200");
}

TEST_CASE("training needs data, planning does not") {
  CHECK_ERROR(validate_for_training(parse("{}")), "data.path", "llmz data prepare");
  CHECK_NOTHROW(validate_for_training(parse("{}", {"data.path=x"})));
  CHECK_NOTHROW(validate_for_training(parse("{}", {"data.train=x.bin"})));
  CHECK_ERROR(validate_for_training(parse("{}", {"data.path=x", "output.path="})), "output.path");
}
