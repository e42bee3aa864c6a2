#include "llmz/report/plan_compare.h"

#include <nlohmann/json.hpp>

#include "llmz/core/system.h"
#include "llmz/engine/engine.h"
#include "llmz/nn/roles.h"
#include "llmz/run/placement.h"
#include "llmz/run/presets.h"

namespace llmz::report {
namespace {

MethodPlan plan_of(const std::string& name, const engine::EngineOptions& options) {
  const MemoryPlan plan = engine::Engine::plan(options);
  MethodPlan result;
  result.preset = name;
  result.totals = plan.totals();
  for (const PlannedBuffer& b : plan.persistent) result.persistent[static_cast<int>(b.category)] += b.bytes;
  for (const PlannedBuffer* b : MemoryPlan::live_at_peak(plan.program("micro_step"))) {
    if (b->category == Category::codes) {
      result.codes[b->role.empty() ? "other" : std::string(b->role)] += b->bytes;
      result.code_bytes += b->bytes;
    } else {
      result.other_bytes += b->bytes;
    }
  }
  const auto tokens = static_cast<double>(options.micro_batch * options.sequence);
  result.code_bytes_per_token_layer =
      static_cast<double>(result.code_bytes) / tokens / static_cast<double>(options.model.layers);
  result.flops_per_token = engine::Engine::flops_per_micro_step(options) / tokens;
  result.rank = options.place.rank;
  result.ranks = options.place.size;
  if (result.ranks > 1) {
    const engine::StepTraffic traffic = engine::Engine::traffic_per_step(options);
    result.sent = traffic.step.sent(result.ranks);
    result.refresh_sent = traffic.refresh.sent(result.ranks);
  }
  return result;
}

std::string megabytes(double bytes) {
  const double mb = bytes * 1e-6;
  return mb >= 99999.5 ? fmt::format("{:.0f}G", mb * 1e-3) : fmt::format("{:.1f}", mb);
}

std::string megabytes(size_t bytes) { return megabytes(static_cast<double>(bytes)); }

size_t of(const MethodPlan& plan, Category category) { return plan.persistent[static_cast<int>(category)]; }

}  // namespace

const std::vector<std::string>& code_roles() {
  using namespace nn::role;
  static const std::vector<std::string> roles({std::string(norm_input), std::string(qkv), std::string(attention_output),
                                               std::string(gate_up), std::string(down_input), std::string(block_input),
                                               std::string(statistics), std::string(head)});
  return roles;
}

std::vector<MethodPlan> compare_presets(const run::RunConfig& config, const std::vector<std::string>& presets,
                                        int ranks) {
  std::vector<MethodPlan> plans;
  const Device device = device_from_name(config.train.device);
  for (const std::string& name : presets) {
    engine::EngineOptions options =
        run::engine_options(run::with_preset(config, name), device, {.rank = 0, .size = ranks});
    options.place.rank = engine::Engine::fullest_rank(options);
    plans.push_back(plan_of(name, options));
  }
  return plans;
}

std::string comparison_table(const std::vector<MethodPlan>& plans) {
  const bool several = !plans.empty() && plans.front().ranks > 1;
  std::string text = fmt::format("{:<12}{:>10}{:>11}{:>11}{:>11}{:>10}{:>12}{:>11}{:>13}{}\n", "MB", "weights",
                                 "gradients", "optimizer", "projectors", "codes", "activations", "total", "MFLOP/token",
                                 several ? fmt::format("{:>13}{:>13}", "sent a step", "at refresh +") : "");
  for (const MethodPlan& p : plans) {
    text += fmt::format("{:<12}{:>10}{:>11}{:>11}{:>11}{:>10}{:>12}{:>11}{:>13.1f}", p.preset,
                        megabytes(of(p, Category::weights)), megabytes(of(p, Category::gradients)),
                        megabytes(of(p, Category::optimizer)), megabytes(of(p, Category::projectors)),
                        megabytes(p.code_bytes), megabytes(p.other_bytes), megabytes(p.totals.total),
                        p.flops_per_token * 1e-6);
    if (several) text += fmt::format("{:>13}{:>13}", megabytes(p.sent), megabytes(p.refresh_sent));
    text += '\n';
  }
  text += fmt::format("\n{:<12}", "codes, MB");
  for (const std::string& role : code_roles()) text += fmt::format("{:>14}", role);
  text += fmt::format("{:>18}\n", "bytes/token/layer");
  for (const MethodPlan& p : plans) {
    text += fmt::format("{:<12}", p.preset);
    for (const std::string& role : code_roles()) {
      const auto found = p.codes.find(role);
      text += fmt::format("{:>14}", found == p.codes.end() ? "-" : megabytes(found->second));
    }
    text += fmt::format("{:>18.0f}\n", p.code_bytes_per_token_layer);
  }
  for (const MethodPlan& p : plans) {
    if (p.totals.peak_program == "micro_step") continue;
    text += fmt::format("{}: its largest moment is in {}, which the total includes\n", p.preset, p.totals.peak_program);
  }
  return text;
}

std::string comparison_json(const std::vector<MethodPlan>& plans) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const MethodPlan& p : plans) {
    nlohmann::ordered_json row = {{"preset", p.preset}};
    for (const Category c : {Category::weights, Category::gradients, Category::optimizer, Category::projectors}) {
      row[std::string(category_name(c))] = of(p, c);
    }
    row["codes"] = p.code_bytes;
    row["codes_by_role"] = p.codes;
    row["code_bytes_per_token_layer"] = p.code_bytes_per_token_layer;
    row["activations_and_workspace"] = p.other_bytes;
    row["total"] = p.totals.total;
    row["peak_program"] = p.totals.peak_program;
    row["flops_per_token"] = p.flops_per_token;
    if (p.ranks > 1) {
      row["ranks"] = p.ranks;
      row["sent"] = p.sent;
      row["refresh_sent"] = p.refresh_sent;
    }
    all.push_back(std::move(row));
  }
  return all.dump(2);
}

std::vector<PaperAccount> paper_accounting(const run::RunConfig& config, const std::vector<std::string>& presets) {
  std::vector<PaperAccount> accounts;
  for (const std::string& name : presets) {
    engine::EngineOptions options = run::engine_options(run::with_preset(config, name));
    options.build.precision = {DType::bf16, DType::bf16};
    const MethodPlan plan = plan_of(name, options);
    const run::Preset& preset = *run::find_preset(name);
    const run::PaperCount count = preset.paper != nullptr ? preset.paper(config.model) : run::PaperCount();
    const auto tokens = static_cast<double>(options.micro_batch * options.sequence);
    PaperAccount account{name, 2 * count.numbers * tokens * static_cast<double>(config.model.layers), 0, count.formula};
    for (const std::string_view role : {nn::role::norm_input, nn::role::down_input}) {
      const auto found = plan.codes.find(std::string(role));
      if (found != plan.codes.end()) account.llmz_bytes += static_cast<double>(found->second);
    }
    accounts.push_back(account);
  }
  return accounts;
}

std::string paper_table(const std::vector<PaperAccount>& accounts, const run::RunConfig& config) {
  constexpr double kGiB = 1 << 30;
  std::string text = fmt::format(
      "Inputs of the linear layers that CompAct compresses (all but the output projection), bf16, {} x {} tokens, {} "
      "layers, n = {}, F = {}.\n\n{:<12}{:>16}{:>26}{:>28}\n",
      config.train.micro_batch, config.train.sequence, config.model.layers, config.model.hidden,
      config.model.intermediate, "GiB", "paper's count", "formula a token, layer", "llmz, with the norms' x^");
  for (const PaperAccount& a : accounts) {
    const std::string paper = a.paper_bytes > 0 ? fmt::format("{:.2f}", a.paper_bytes / kGiB) : "-";
    text += fmt::format("{:<12}{:>16}{:>26}{:>28.2f}\n", a.preset, paper, a.formula, a.llmz_bytes / kGiB);
  }
  return text +
         "\nThe papers count a sketch for each of q, k, v, gate and up (CompAct) and nothing of what norms keep. "
         "llmz keeps one code for each\nshared input, and its column holds what the norms' backward needs as well.\n";
}

}  // namespace llmz::report
