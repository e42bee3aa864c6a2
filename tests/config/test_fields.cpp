// The layer below all components, with components made up here.
#include "catch.h"
#include "errors.h"
#include "llmz/codec/settings.h"
#include "llmz/config/schema.h"

using namespace llmz;
using config::Json;

namespace {

enum class Order : uint8_t { rows, columns };

const config::Names<Order>& orders() {
  static const config::Names<Order> names = {{"rows", Order::rows}, {"columns", Order::columns}};
  return names;
}

/// Settings of a codec that CodecConfig has no member for.
struct ToySettings {
  float dither = 0.5f;
  Order order = Order::rows;
};

config::Fields<ToySettings> toy_fields() {
  return config::Fields<ToySettings>()
      .key("dither", &ToySettings::dither, "noise before rounding", config::between(0, 1))
      .key("order", &ToySettings::order, "which way numbers are taken", orders());
}

/// The codecs of llmz and one more: a file's worth of code and one row.
std::vector<codec::CodecRow> with_toy() {
  std::vector<codec::CodecRow> rows = codec::codec_rows();
  const auto own =
      config::Fields<codec::CodecConfig>().object("", &codec::CodecConfig::own, config::in_bag(toy_fields()));
  const auto serves = [](const codec::RoleFacts& role) { return role.rebuilds; };
  rows.push_back(
      {.name = "toy", .meaning = "dithered", .serves = serves, .fields = own, .make = codec::codec_row("store").make});
  return rows;
}

struct Muonlike {
  float momentum = 0.95f;
  int64_t steps = 5;
};
struct Adamlike {
  float beta1 = 0.9f, beta2 = 0.95f;
};
struct Where {
  std::string where = "all";
};

config::ListType rules() {
  using config::in_bag;
  const auto muon = config::Fields<Muonlike>()
                        .key("momentum", &Muonlike::momentum, "of the average", config::from_below(0, 1))
                        .key("newton.steps", &Muonlike::steps, "of the iteration", config::between(1, 10));
  const auto adam = config::Fields<Adamlike>()
                        .key("beta1", &Adamlike::beta1, "of the first", config::from_below(0, 1))
                        .key("beta2", &Adamlike::beta2, "of the second", config::from_below(0, 1));
  const auto where = config::Fields<Where>().key("where", &Where::where, "which parameters");
  return {.selector = "use",
          .meaning = "update rule",
          .common = in_bag(where),
          .choices = {{"muonlike", "for matrices", in_bag(muon)}, {"adamlike", "for the rest", in_bag(adam)}}};
}

struct Root {
  codec::CodecConfig input;
  std::vector<config::Choice> rules;
  int64_t seed = 1;
};

config::Schema schema() {
  const auto rows = with_toy();
  const auto input = [](Root& root) -> std::string& { return root.input.codec; };
  config::Fields<Root> fields;
  fields.key("step.input.codec", input, "of a layer", config::one_of(codec::codecs_for({.rebuilds = true}, rows)))
      .object("step.input", &Root::input, codec::codec_fields(rows), "step.<role>")
      .list("step.rules", &Root::rules, "which rule updates what", rules())
      .key("step.seed", &Root::seed, "of everything");
  return config::Schema(fields, {{"step", "All there is."}});
}

Root read(const std::string& json, const std::vector<std::string>& overrides = {}) {
  static const config::Schema all = schema();
  Root root;
  config::Reader reader(all, root);
  reader.apply_all(config::parse_text(json, "toy.json"));
  for (const std::string& argument : overrides) reader.apply_override(argument);
  return root;
}

Json printed(Root root) { return config::value_to_json(schema(), &root); }

}  // namespace

TEST_CASE("a codec's own settings are read, printed and documented by its row alone") {
  const Root root =
      read(R"({"step": {"input": {"codec": "toy", "dither": 0.25, "bits": 8}}})", {"step.input.order=columns"});
  CHECK(root.input.codec == "toy");
  CHECK(root.input.own.get<ToySettings>().dither == 0.25f);
  CHECK(root.input.own.get<ToySettings>().order == Order::columns);
  CHECK(root.input.quant.bits == 8);
  CHECK(printed(root)["step"]["input"]["dither"] == 0.25);
  CHECK(printed(root)["step"]["input"]["order"] == "columns");
  CHECK(printed(Root{})["step"]["input"]["dither"] == 0.5);
  CHECK(Root{}.input.own.get<ToySettings>().order == Order::rows);  // never asked for: its default

  Root defaults;
  const std::string tables = config::tables_markdown(schema(), &defaults);
  CHECK(tables.find("| `step.<role>.dither` | number | `0.5` | 0 to 1 | noise before rounding |\n") !=
        std::string::npos);
  const auto names = codec::codecs_for({.rebuilds = true}, with_toy());
  CHECK(tables.find(fmt::format("`{}`", fmt::join(names, "`, `"))) != std::string::npos);
  CHECK(names.back() == "toy");
  const size_t once = tables.find("`step.<role>.bits`");
  CHECK((once != std::string::npos && tables.find("`step.<role>.bits`", once + 1) == std::string::npos));
}

TEST_CASE("errors in a codec's own settings name the line, the range and the nearest key") {
  CHECK_ERROR(read("{\"step\": {\"input\":\n{\"codec\": \"toy\",\n\"dihter\": 1}}}"), "toy.json:3",
              "unknown key \"step.input.dihter\"", "did you mean \"step.input.dither\"?");
  CHECK_ERROR(read("{\"step\": {\"input\":\n{\"dither\": 2}}}"),
              "toy.json:2: \"step.input.dither\" = 2 is out of range", "0 to 1");
  CHECK_ERROR(read("{}", {"step.input.order=diagonals"}), "--set step.input.order=diagonals", "rows, columns");
  CHECK_ERROR(read("{\"step\": {\"input\": {\"codec\": \"shared\"}}}"), "store, recompute, sketch, quant, ", ", toy");
}

TEST_CASE("a codec says itself which roles it serves") {
  const auto served_by = [](const codec::RoleFacts& role) {
    std::string text;
    for (const char* name : {"shared", "store", "recompute", "sketch", "quant", "toy"}) {
      const auto all = codec::codecs_for(role, with_toy());
      if (std::find(all.begin(), all.end(), name) != all.end()) text += std::string(name) + " ";
    }
    return text;
  };
  CHECK(served_by({}) == "store sketch quant ");
  CHECK(served_by({.shares_input = true}) == "shared store sketch quant ");
  CHECK(served_by({.rebuilds = true}) == "store recompute sketch quant toy ");
}

TEST_CASE("two codecs that mean different things by one key are an error") {
  auto rows = codec::codec_rows();
  const auto other = config::Fields<ToySettings>().key("rank", &ToySettings::dither, "of something else");
  const auto own = config::Fields<codec::CodecConfig>().object("", &codec::CodecConfig::own, config::in_bag(other));
  rows.push_back({"clash", "", [](const codec::RoleFacts&) { return true; }, own, nullptr, nullptr});
  CHECK_ERROR(codec::codec_fields(rows), "\"rank\"", "of something else", "rename");
}

TEST_CASE("elements of a list have the keys of the component that they name") {
  const std::string file = R"({"step": {"rules": [
    {"where": "blocks", "use": "muonlike", "newton": {"steps": 3}},
    {"use": "adamlike"}]}})";
  const Root root = read(file);
  REQUIRE(root.rules.size() == 2);
  CHECK(root.rules[0].name == "muonlike");
  CHECK(root.rules[0].settings.get<Where>().where == "blocks");
  CHECK(root.rules[0].settings.get<Muonlike>().steps == 3);
  CHECK(root.rules[0].settings.get<Muonlike>().momentum == 0.95f);
  CHECK(root.rules[1].settings.get<Where>().where == "all");

  // Printed with every key of its own component, and none of another's.
  const Json rules = printed(root)["step"]["rules"];
  CHECK(rules[0] == Json::parse(R"({"use": "muonlike", "where": "blocks", "momentum": 0.95, "newton": {"steps": 3}})"));
  CHECK(rules[1] == Json::parse(R"({"use": "adamlike", "where": "all", "beta1": 0.9, "beta2": 0.95})"));
  CHECK(printed(read(printed(root).dump())) == printed(root));

  const Root set = read(file, {R"(step.rules=[{"use": "adamlike", "beta1": 0.5}])"});
  REQUIRE(set.rules.size() == 1);
  CHECK(set.rules[0].settings.get<Adamlike>().beta1 == 0.5f);
  CHECK(read(file, {"step.rules=[]"}).rules.empty());

  Root defaults;
  const std::string tables = config::tables_markdown(schema(), &defaults);
  CHECK(tables.find("| `step.rules` | list of objects | `[]` |  | which rule updates what |\n") != std::string::npos);
  CHECK(tables.find("| `step.rules[].use` | text |  | `muonlike`, `adamlike` | update rule |\n") != std::string::npos);
  CHECK(tables.find("| `step.rules[].momentum` of `muonlike` | number | `0.95` |") != std::string::npos);
}

TEST_CASE("an error in a list names the element and its line") {
  const auto with = [](const std::string& second) {
    return read("{\"step\": {\"rules\": [\n{\"use\": \"adamlike\"},\n" + second + "]}}");
  };
  CHECK_ERROR(with("{\"use\": \"muonlike\",\n\"momentun\": 1}"), "toy.json:4: unknown key \"step.rules[1].momentun\"",
              "did you mean \"step.rules[1].momentum\"?", "\"use\": \"muonlike\"");
  CHECK_ERROR(with("{\"use\": \"muonlike\", \"beta1\": 0.5}"), "toy.json:3: unknown key \"step.rules[1].beta1\"");
  CHECK_ERROR(with("{\"use\": \"muonlike\", \"newton\": {\"steps\": 0}}"),
              "toy.json:3: \"step.rules[1].newton.steps\" = 0 is out of range", "1 to 10");
  CHECK_ERROR(with("{\"use\": \"muonlike\", \"newton\": 3}"), "\"step.rules[1].newton\" must be an object");
  CHECK_ERROR(with("{\"use\": \"muno\"}"), "toy.json:3: \"step.rules[1].use\" = \"muno\" is not known",
              "muonlike, adamlike");
  CHECK_ERROR(with("{\"where\": \"all\"}"), "toy.json:3: \"step.rules[1]\"", "needs \"use\"", "muonlike, adamlike");
  CHECK_ERROR(with("5"), "\"step.rules[1]\" must be an object");
  CHECK_ERROR(with("{\"use\": \"adamlike\", \"use\": \"muonlike\"}"), "\"step.rules[1].use\" stands twice");
  CHECK_ERROR(read(R"({"step": {"rules": {"use": "muonlike"}}})"), "\"step.rules\" must be a list of objects");
  CHECK_ERROR(read("{}", {"step.rules=muonlike"}), "--set step.rules=muonlike", "not valid JSON");
  CHECK_ERROR(read("{}", {R"(step.rules=[{"use": "adamlike", "beta1": 0.5, "beta1": 0.6}])"}), "--set", "twice");
}

TEST_CASE("a table of names gives choices, values and errors") {
  enum class Way { up, down };
  const config::Names<Way> ways = {{"up", Way::up}, {"down", Way::down}};
  CHECK(ways.list() == std::vector<std::string>{"up", "down"});
  CHECK(ways.value("down", "a.way") == Way::down);
  CHECK_ERROR(ways.value("left", "a.way"), "a.way = \"left\" is not known; allowed: up, down");
}
