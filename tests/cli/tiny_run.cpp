#include "tiny_run.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "llmz/core/error.h"
#include "llmz/core/random.h"
#include "llmz/io/files.h"

namespace llmz::testing {
namespace {

constexpr const char* kConfig = R"({
  "model": {"architecture": "llama", "vocab_size": 257, "hidden": 32, "intermediate": 64, "layers": 2, "heads": 4,
            "context": 64},
  "data": {"path": "data"},
  "precision": "fp32",
  "train": {"steps": 20, "sequence": 32, "micro_batch": 4, "global_batch": 8, "eval_every": 10, "eval_batches": 4},
  "output": {"path": "run", "save_every": 10}
})";

}  // namespace

std::string little_text(int sentences) {
  const std::vector<std::vector<std::string>> words = {
      {"the", "a", "every", "no", "this"},
      {"old", "small", "green", "patient", "careless", "quiet"},
      {"king", "miller", "river", "horse", "window", "teacher", "sparrow"},
      {"sees", "follows", "paints", "forgets", "carries", "answers"},
      {"the", "a", "its", "that"},
      {"garden", "letter", "moon", "stranger", "bridge", "song"}};
  const RandomStream random(7, Purpose::test);
  std::string text;
  uint64_t draw = 0;
  for (int sentence = 0; sentence < sentences; ++sentence) {
    for (size_t place = 0; place < words.size(); ++place) {
      if (place > 0) text += ' ';
      text += words[place][random.below(draw++, words[place].size())];
    }
    text += sentence % 5 == 4 ? ".\n" : ". ";
  }
  return text;
}

TinyRun::TinyRun(bool in_memory) : scratch_(in_memory) {
  put(scratch_ / "text.txt", little_text(2000));
  put(scratch_ / "tiny.json", kConfig);
  const Outcome prepared =
      llmz({"data", "prepare", "--input", "text.txt", "--out", "data", "--tokenizer", "bytes", "--validation", "0.1"});
  check(prepared.exit_code == 0, "the test's data could not be prepared: {}", prepared.err);
}

std::vector<std::string> train_arguments(const std::vector<std::string>& settings,
                                         const std::vector<std::string>& extra) {
  std::vector<std::string> arguments = {"train", "tiny.json"};
  for (const std::string& setting : settings) {
    arguments.push_back("--set");
    arguments.push_back(setting);
  }
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  return arguments;
}

std::map<std::string, std::string> contents_of(const fs::path& folder) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const std::string name = fs::relative(entry.path(), folder).string();
    if (entry.is_symlink()) {
      contents[name] = "-> " + fs::read_symlink(entry.path()).string();
    } else {
      contents[name] = entry.is_regular_file() ? io::read_text(entry.path()) : "folder";
    }
  }
  return contents;
}

std::vector<std::string> repeatable_metrics(const fs::path& metrics_file) {
  std::vector<std::string> lines;
  std::istringstream in(io::read_text(metrics_file));
  for (std::string line; std::getline(in, line);) {
    const auto all = nlohmann::json::parse(line);
    nlohmann::json kept;
    for (const char* key : {"step", "loss", "lr", "grad_norm", "tokens", "validation_loss"}) {
      if (all.contains(key)) kept[key] = all[key];
    }
    lines.push_back(kept.dump());  // shortest digits that read back the same: equal texts are equal numbers
  }
  return lines;
}

}  // namespace llmz::testing
