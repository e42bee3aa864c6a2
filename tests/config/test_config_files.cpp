#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "catch.h"
#include "errors.h"
#include "llmz/core/builtin.h"
#include "llmz/run/config_io.h"

using namespace llmz;
using namespace llmz::run;
namespace fs = std::filesystem;

namespace {

const fs::path kConfigs = fs::path(LLMZ_SOURCE_DIR) / "configs";

/// A folder that is gone when the test is over.
class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("llmz-config-" + std::to_string(std::random_device{}()))) {
    fs::remove_all(path_);
    fs::create_directories(path_ / "models");
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name) << text;
    return (path_ / name).string();
  }

 private:
  fs::path path_;
};

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<fs::path> json_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

TEST_CASE("every run in configs/ can be trained") {
  const auto files = json_files(kConfigs);
  CHECK(files.size() >= 7);
  for (const fs::path& file : files) {
    INFO(file);
    RunConfig config;
    REQUIRE_NOTHROW(config = load_run_config(file.string()));
    CHECK_NOTHROW(validate_for_training(config));
    CHECK(config.output.path == "out/" + file.stem().string());
  }
}

TEST_CASE("every model in configs/models has the size of its name") {
  struct Size {
    const char* name;
    double parameters;
  };
  // Counted from the shapes: blocks 4n²(1) + 3nm (llama) or 2nm (gpt2), embedding, and llama's head.
  const Size sizes[] = {{"llama-3m", 3.3e6},   {"llama-35m", 35e6},   {"llama-60m", 58e6},
                        {"llama-130m", 134e6}, {"llama-350m", 368e6}, {"llama-1b", 1.34e9},
                        {"llama-7b", 6.74e9},  {"gpt2-124m", 124e6},  {"gpt2-355m", 355e6}};
  CHECK(json_files(kConfigs / "models").size() == std::size(sizes));
  for (const auto& [name, expected] : sizes) {
    INFO(name);
    model::ModelConfig c;
    const std::string run = "{\"model\": \"" + std::string(name) + "\"}";
    REQUIRE_NOTHROW(c = parse_run_config(run, (kConfigs / "any.json").string()).model);
    const bool llama = c.architecture == "llama";
    const double n = static_cast<double>(c.hidden), m = static_cast<double>(c.intermediate);
    const double block = 4 * n * n + (llama ? 3 : 2) * n * m;
    const double tables = static_cast<double>(llama ? 2 * c.vocab_size : c.vocab_size + c.context) * n;
    // Names round: 58 M is called 60M; norms and biases, well below 1 %, are not counted here.
    CHECK(static_cast<double>(c.layers) * block + tables == Approx(expected).epsilon(0.02));
    CHECK(c.norm_eps == (llama ? 1e-6f : 1e-5f));
  }
}

TEST_CASE("the files of configs/ are in the program, to the letter") {
  const auto check_all = [](std::span<const BuiltinFile> built_in, const fs::path& folder) {
    const auto files = json_files(folder);
    REQUIRE(built_in.size() == files.size());
    for (const fs::path& file : files) {
      INFO(file);
      const BuiltinFile* found = find_builtin(built_in, file.stem().string());
      REQUIRE(found != nullptr);
      const bool same = found->text == read(file);
      CHECK(same);
    }
  };
  check_all(builtin_models(), kConfigs / "models");
  check_all(builtin_configs(), kConfigs);
}

TEST_CASE("a built-in model or configuration is found by its name, after a file of that name") {
  const Folder folder;
  const RunConfig from_file = load_run_config((kConfigs / "llama-60m-c4-compact.json").string());
  CHECK(to_json(load_run_config("llama-60m-c4-compact")) == to_json(from_file));
  CHECK(load_run_config("llama-60m-c4", {"train.steps=7"}).train.steps == 7);

  const std::string run = folder.write("run.json", R"({"model": "llama-60m"})");
  CHECK(load_run_config(run).model.hidden == 512);
  folder.write("models/llama-60m.json", R"({"hidden": 64, "heads": 4})");
  CHECK(load_run_config(run).model.hidden == 64);

  CHECK_ERROR(load_run_config("llama-60-c4"), "no such file", "did you mean \"llama-60m-c4\"?", "quickstart");
  CHECK_ERROR(load_run_config("elsewhere/llama-60m-c4.json"), "no such file", "built in is \"llama-60m-c4\"");
}

TEST_CASE("an override takes the place of a model that is not known") {
  const Folder folder;
  for (const char* model : {R"("nowhere")", R"("nowhere.json")", R"({"base": "nowhere", "layers": 5})"}) {
    const std::string run = folder.write("run.json", "{\"model\": " + std::string(model) + "}");
    CHECK_ERROR(load_run_config(run), "run.json:1", "nowhere");
    CHECK_ERROR(load_run_config(run, {"model.layers=2"}), "run.json:1", "nowhere");
    CHECK(load_run_config(run, {"model=llama-60m"}).model.layers == 8);
    CHECK(load_run_config(run, {"model.base=llama-60m", "model.layers=2"}).model.layers == 2);
    CHECK_ERROR(load_run_config(run, {"model=llama-60m", "model=llama-61m"}), "--set model=llama-61m",
                "did you mean \"llama-60m\"?");
  }
}

TEST_CASE("docs/config.md lists the keys as the parser knows them") {
  const fs::path file = fs::path(LLMZ_SOURCE_DIR) / "docs" / "config.md";
  if (std::getenv("LLMZ_WRITE_DOCS")) std::ofstream(file, std::ios::binary) << config_reference_markdown();
  INFO("to write docs/config.md again: LLMZ_WRITE_DOCS=1 ctest --test-dir BUILD -R config");
  const bool up_to_date = read(file) == config_reference_markdown();
  CHECK(up_to_date);
}

TEST_CASE("a model is named, written out, or a named one with changes") {
  const Folder folder;
  folder.write("models/small.json", R"({"hidden": 64, "heads": 4, "norm_eps": 1e-5})");
  folder.write("other.json", R"({"hidden": 32, "heads": 2})");

  const RunConfig named = load_run_config(folder.write("a.json", R"({"model": "small"})"));
  CHECK(named.model.hidden == 64);
  CHECK(named.model.heads == 4);
  CHECK(named.model.layers == model::ModelConfig{}.layers);

  const RunConfig by_path = load_run_config(folder.write("b.json", R"({"model": "other.json"})"));
  CHECK(by_path.model.hidden == 32);

  // "base" comes first wherever it stands.
  const RunConfig changed =
      load_run_config(folder.write("c.json", R"({"model": {"hidden": 128, "base": "small", "layers": 3}})"));
  CHECK(changed.model.hidden == 128);
  CHECK(changed.model.heads == 4);
  CHECK(changed.model.layers == 3);
  CHECK(changed.model.norm_eps == 1e-5f);

  // The printed configuration stands by itself: no model file is needed any more.
  CHECK(to_json(parse_run_config(to_json(changed), "elsewhere/run.json")) == to_json(changed));
}

TEST_CASE("an override can put another model in the place of the file's") {
  const Folder folder;
  folder.write("models/small.json", R"({"hidden": 64, "heads": 4})");
  const std::string run = folder.write("run.json", R"({"model": {"hidden": 128, "layers": 3}})");
  const RunConfig c = load_run_config(run, {"model=small", "model.heads=2"});
  CHECK(c.model.hidden == 64);
  CHECK(c.model.heads == 2);
  CHECK(c.model.layers == model::ModelConfig{}.layers);
  CHECK(load_run_config(run, {"model.base=small"}).model.layers == model::ModelConfig{}.layers);
  CHECK(load_run_config(run, {R"(model={"base": "small", "layers": 5})"}).model.layers == 5);
  CHECK(load_run_config(run, {R"(model={"layers": 5})"}).model.hidden == 128);
}

TEST_CASE("a model that cannot be had is an error") {
  const Folder folder;
  folder.write("models/small.json", "{}");
  folder.write("models/typo.json", "{\n\n\"hiden\": 64}");
  folder.write("models/twice.json", "{\"heads\": 4,\n\"heads\": 4}");
  folder.write("models/nested.json", R"({"base": "small"})");
  folder.write("models/list.json", "[]");
  folder.write("models/broken.json", "{");
  const auto load = [&](const std::string& model) {
    return load_run_config(folder.write("run.json", "{\n\"model\": \"" + model + "\"}"));
  };
  CHECK_ERROR(load("smal"), "run.json:2", "no model \"smal\"", "models or built in", "did you mean \"small\"?",
              "known: ", "llama-60m");
  CHECK_ERROR(load("missing.json"), "run.json:2", "missing.json", "does not exist");
  CHECK_ERROR(load("typo"), "typo.json:3", "unknown key \"model.hiden\"", "did you mean \"model.hidden\"?");
  CHECK_ERROR(load("twice"), "twice.json:2", "\"model.heads\"", "twice");
  CHECK_ERROR(load("nested"), "nested.json", "\"base\"");
  CHECK_ERROR(load("list"), "list.json", "object");
  CHECK_ERROR(load("broken"), "broken.json:1:2", "not valid JSON");
  CHECK_ERROR(load_run_config(folder.write("run.json", "{}"), {"model=smal"}), "--set model=smal", "no model \"smal\"");
  CHECK_ERROR(parse_run_config(R"({"model": "x"})", "configs/run.json"),
              "no model \"x\" in configs/models or built in;");
}

TEST_CASE("a file that cannot be read is an error with its name") {
  const Folder folder;
  CHECK_ERROR(load_run_config("no/such/run.json"), "no/such/run.json", "no such file");
  CHECK_ERROR(load_run_config(fs::temp_directory_path().string()), "folder");
  CHECK_ERROR(load_run_config(folder.write("bad.json", "{\n\"train\": {\"stpes\": 1}}")), "bad.json:2", "train.steps");
}
