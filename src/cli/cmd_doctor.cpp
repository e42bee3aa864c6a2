#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "llmz/core/error.h"
#include "llmz/core/version.h"
#include "src/cli/commands.h"
#include "src/cli/doctor.h"

namespace llmz::cli {
namespace {

void print_text(const std::vector<Finding>& findings) {
  for (const Finding& f : findings) {
    fmt::print("{:<8} {:<16} {}\n", state_name(f.state), f.name, f.what);
    if (!f.effect.empty()) fmt::print("{:<8} {:<16}   {}\n", "", "", f.effect);
  }
}

void print_json(const std::vector<Finding>& findings) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Finding& f : findings) {
    rows.push_back({{"state", state_name(f.state)}, {"name", f.name}, {"what", f.what}, {"effect", f.effect}});
  }
  const nlohmann::ordered_json json = {{"llmz", version_line()}, {"findings", rows}};
  fmt::print("{}\n", json.dump(2));
}

int doctor(bool json) {
  std::vector<Finding> findings = examine_machine();
  for (Finding& f : examine_software()) findings.push_back(std::move(f));
  if (json) {
    print_json(findings);
  } else {
    print_text(findings);
  }
  const auto broken = std::count_if(findings.begin(), findings.end(), [](auto& f) { return f.state == State::broken; });
  if (broken == 0) return 0;
  fmt::print(stderr, "llmz: {} of what llmz needs is broken; see above\n", broken);
  return 1;
}

}  // namespace

Command add_doctor(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* parser = app.add_subcommand("doctor", "What this machine has, what each part gives, and what to mend");
  parser->add_flag("--json", *json, "Print JSON");
  set_example(*parser, "llmz doctor");
  return {parser, [json] { return doctor(*json); }};
}

}  // namespace llmz::cli
