#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "llmz/core/error.h"
#include "llmz/core/version.h"
#include "llmz/report/doctor.h"
#include "llmz/report/rank_map.h"
#include "src/cli/commands.h"
#include "src/cli/ranks.h"

namespace llmz::cli {
namespace {

using namespace report;

void print_report_text(const Finding& f) {
  fmt::print("{:<8} {:<16} {}\n", state_name(f.state), f.name, f.what);
  if (!f.effect.empty()) fmt::print("{:<8} {:<16}   {}\n", "", "", f.effect);
  std::fflush(stdout);
}

void print_report_json(const std::vector<Finding>& findings, const RankMap& map) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Finding& f : findings) {
    rows.push_back({{"state", state_name(f.state)}, {"name", f.name}, {"what", f.what}, {"effect", f.effect}});
  }
  nlohmann::ordered_json json = {{"llmz", version_line()}, {"findings", rows}};
  for (size_t rank = 0; map.hosts.size() > 1 && rank < map.hosts.size(); ++rank) {
    json["ranks"].push_back({{"rank", rank}, {"host", map.hosts[rank]}, {"device", map.devices[rank]}});
  }
  fmt::print("{}\n", json.dump(2));
}

struct DoctorOptions {
  bool json = false;
  dist::WorldOptions world;
};

/// Rank 0 examines its machine; the others tell where they stand. What may hang, connecting them, comes last.
int doctor(const DoctorOptions& options, dist::World& world) {
  const RankMap map = map_ranks(world);
  std::vector<Finding> findings;
  if (world.leads()) {
    findings = examine_machine(map.threads);
    for (Finding& f : examine_software()) findings.push_back(std::move(f));
    if (!options.json) std::for_each(findings.begin(), findings.end(), print_report_text);
  }
  if (world.size() > 1) {
    if (world.leads() && !options.json) fmt::print("{}", rank_table(map));
    std::fflush(stdout);
    world.barrier();  // a rank that cannot be connected ends all: not before this stands there
    findings.push_back(try_connection(world, map));
    if (world.leads() && !options.json) print_report_text(findings.back());
  }
  if (world.leads() && options.json) print_report_json(findings, map);
  const auto broken = std::count_if(findings.begin(), findings.end(), [](auto& f) { return f.state == State::broken; });
  if (world.leads() && broken > 0) fmt::print(stderr, "llmz: {} of what llmz needs is broken; see above\n", broken);
  return world.max(broken) > 0 ? 1 : 0;  // and no rank leaves, and is reported by mpirun, before rank 0 has spoken
}

}  // namespace

Command add_doctor(CLI::App& app) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App* parser = app.add_subcommand("doctor", "What this machine has, what each part gives, and what to mend");
  parser->add_flag("--json", options->json, "Print JSON");
  add_rank_options(*parser, options->world);
  set_example(*parser, "llmz doctor\n  mpirun -np 2 llmz doctor");
  return rank_command(parser, options, doctor);
}

}  // namespace llmz::cli
