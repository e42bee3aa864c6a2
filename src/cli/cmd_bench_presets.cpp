#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "llmz/core/error.h"
#include "llmz/report/bench.h"
#include "llmz/run/presets.h"
#include "src/cli/commands.h"

extern char** environ;

namespace llmz::cli {
namespace {

using namespace report;

using Json = nlohmann::ordered_json;

struct BenchPresetsOptions {
  std::string config, model = "llama-60m";
  std::vector<std::string> presets, overrides;
  int64_t micro_batch = 0, sequence = 0, repeat = 3, rounds = 3, threads = 0;
  bool json = false;
};

/// This program with `arguments`, in a process of its own: what it prints. Error with its own message when it fails.
std::string run_self(const std::vector<std::string>& arguments) {
  std::vector<std::string> words = {"llmz"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  int ends[2];
  check(pipe2(ends, O_CLOEXEC) == 0, "cannot make a pipe: {}", std::strerror(errno));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  pid_t child = 0;
  const int failed = posix_spawn(&child, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::string out;
  char buffer[4096];
  for (ssize_t n = 0; failed == 0 && (n = read(ends[0], buffer, sizeof(buffer))) > 0;) {
    out.append(buffer, static_cast<size_t>(n));
  }
  close(ends[0]);
  check(failed == 0, "cannot start another process of this program: {}", std::strerror(failed));
  int status = 0;
  waitpid(child, &status, 0);
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the run of `llmz {}` failed; its message stands above",
        fmt::join(arguments, " "));
  return out;
}

std::vector<std::string> step_arguments(const BenchPresetsOptions& o, const std::string& preset) {
  std::vector<std::string> words = {"bench", "step", "--json", "--repeat", std::to_string(o.repeat)};
  const auto add = [&](const char* name, const std::string& value) {
    words.emplace_back(name);
    words.push_back(value);
  };
  o.config.empty() ? add("--model", o.model) : add("--config", o.config);
  if (o.micro_batch > 0) add("--micro-batch", std::to_string(o.micro_batch));
  if (o.sequence > 0) add("--sequence", std::to_string(o.sequence));
  if (o.threads > 0) add("--threads", std::to_string(o.threads));
  add("--set", "preset=" + preset);
  for (const std::string& override : o.overrides) add("--set", override);
  return words;
}

/// One preset over all rounds.
struct Row {
  std::string preset;
  std::vector<double> speeds, ratios;  ///< tokens/s, and against the first preset in the same round
  double planned = 0, resident = 0;
};

std::vector<Row> measure(const BenchPresetsOptions& o) {
  std::vector<Row> rows;
  for (const std::string& preset : o.presets) rows.push_back({.preset = preset, .speeds = {}, .ratios = {}});
  for (int64_t round = 0; round < o.rounds; ++round) {
    double first = 0;
    for (Row& row : rows) {
      const Json step = Json::parse(run_self(step_arguments(o, row.preset)));
      row.speeds.push_back(step["tokens_per_second"].get<double>());
      row.planned = step["planned_bytes"].get<double>();
      row.resident = std::max(row.resident, step["peak_resident_bytes"].get<double>());
      if (&row == &rows.front()) first = row.speeds.back();
      row.ratios.push_back(row.speeds.back() / first);
    }
  }
  return rows;
}

void print_table(const std::vector<Row>& rows) {
  fmt::print("{:<12}{:>12}{:>12}{:>18}{:>14}{:>14}{:>22}\n", "preset", "tokens/s", "ratio", "lowest, highest",
             "planned MB", "resident MB", "resident - planned");
  for (const Row& r : rows) {
    const auto [low, high] = std::minmax_element(r.ratios.begin(), r.ratios.end());
    fmt::print("{:<12}{:>12.0f}{:>12.3f}{:>18}{:>14.1f}{:>14.1f}{:>22.1f}\n", r.preset, median_of(r.speeds),
               median_of(r.ratios), fmt::format("{:.3f}, {:.3f}", *low, *high), r.planned * 1e-6, r.resident * 1e-6,
               (r.resident - r.planned) * 1e-6);
  }
  fmt::print(
      "\nratio: tokens/s over the first preset's in the same round, the median of {} rounds; each run is a process of "
      "its own\n",
      rows.front().ratios.size());
}

void print_presets_json(const std::vector<Row>& rows) {
  Json all = Json::array();
  for (const Row& r : rows) {
    all.push_back({{"preset", r.preset},
                   {"tokens_per_second", r.speeds},
                   {"ratios", r.ratios},
                   {"planned_bytes", r.planned},
                   {"peak_resident_bytes", r.resident}});
  }
  fmt::print("{}\n", all.dump(2));
}

int bench_presets(BenchPresetsOptions o) {
  if (o.presets.empty()) o.presets = run::preset_names();
  for (const std::string& name : o.presets) {
    check(run::find_preset(name) != nullptr, "--presets: preset \"{}\" is unknown; known: {}", name,
          fmt::join(run::preset_names(), ", "));
  }
  const std::vector<Row> rows = measure(o);
  o.json ? print_presets_json(rows) : print_table(rows);
  return 0;
}

}  // namespace

Command add_bench_presets(CLI::App& bench) {
  auto options = std::make_shared<BenchPresetsOptions>();
  CLI::App* parser =
      bench.add_subcommand("presets", "Training steps under several presets in turn: tokens/s as ratios, memory");
  auto* config = parser->add_option("--config", options->config, "JSON file as for `train`");
  parser
      ->add_option("--model", options->model, "Name of a built-in model or of one in ./models, or a model's JSON file")
      ->excludes(config)
      ->capture_default_str();
  parser->add_option("--presets", options->presets, "Names, the first is what the others are compared with; else all")
      ->delimiter(',');
  parser->add_option("--micro-batch", options->micro_batch, "Windows in a step; else as configured")
      ->check(at_least(1));
  parser->add_option("--sequence", options->sequence, "Tokens in a window; else as configured")->check(at_least(1));
  parser->add_option("--repeat", options->repeat, "Steps measured in a run, after one that is not")
      ->check(at_least(1))
      ->capture_default_str();
  parser->add_option("--rounds", options->rounds, "Runs of each preset, in turns")
      ->check(at_least(1))
      ->capture_default_str();
  parser->add_option("--threads", options->threads, "CPU threads; 0 = all")->check(at_least(0));
  add_set_option(*parser, options->overrides);
  parser->add_flag("--json", options->json, "Print JSON");
  set_example(*parser, "llmz bench presets --model llama-60m --micro-batch 8 --presets full,compact_n4,fast");
  return {parser, [options] { return bench_presets(*options); }};
}

}  // namespace llmz::cli
