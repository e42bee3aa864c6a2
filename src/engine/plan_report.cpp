#include "llmz/engine/plan_report.h"

#include <nlohmann/json.hpp>

namespace llmz::engine {
namespace {

std::string row(std::string_view name, size_t bytes) {
  return fmt::format("  {:<14}{:>17}  {:>10.3f} MB\n", name, fmt::group_digits(bytes),
                     static_cast<double>(bytes) * 1e-6);
}

struct Link {
  const char* name;
  double bytes_per_second;  ///< in one direction
};
constexpr Link kLinks[] = {{"1 Gbit/s", 0.125e9},
                           {"10 Gbit/s", 1.25e9},
                           {"25 Gbit/s", 3.125e9},
                           {"100 Gbit/s", 12.5e9},
                           {"NVLink, 450 GB/s", 450e9}};

std::string traffic_row(std::string_view name, double step, double refresh) {
  return fmt::format("  {:<18}{:>13.3f} MB  {:>13.3f} MB\n", name, step * 1e-6, refresh * 1e-6);
}

nlohmann::ordered_json payload_json(const Traffic& traffic) {
  nlohmann::ordered_json json;
  for (int i = 0; i < Traffic::kKinds; ++i) {
    const auto kind = static_cast<Traffic::Kind>(i);
    json[std::string(traffic_name(kind))] = static_cast<int64_t>(traffic[kind]);
  }
  return json;
}

nlohmann::ordered_json ranks_json(const StepTraffic& traffic, int ranks) {
  nlohmann::ordered_json links = nlohmann::ordered_json::array();
  const double sent = traffic.step.sent(ranks);
  for (const Link& link : kLinks) links.push_back({{"link", link.name}, {"seconds", sent / link.bytes_per_second}});
  return {{"ranks", ranks},
          {"payload", payload_json(traffic.step)},
          {"sent", sent},
          {"refresh_payload", payload_json(traffic.refresh)},
          {"refresh_sent", traffic.refresh.sent(ranks)},
          {"linear_gradients", static_cast<int64_t>(traffic.linear)},
          {"linear_gradients_dense", static_cast<int64_t>(traffic.dense_linear)},
          {"transfer", links}};
}

}  // namespace

std::string plan_table(const MemoryPlan& plan) {
  const MemoryPlan::Totals totals = plan.totals();
  std::string table = fmt::format("memory at its peak (in {}):\n", totals.peak_program);
  for (int i = 0; i < kCategories; ++i) {
    if (totals.by_category[i] > 0) table += row(category_name(static_cast<Category>(i)), totals.by_category[i]);
  }
  table += row("packing", totals.packing);
  return table + row("total", totals.total);
}

std::string plan_listing(const MemoryPlan& plan) {
  std::string text = "persistent buffers:\n";
  for (const PlannedBuffer& b : plan.persistent) {
    text += fmt::format("  {:<40} {:<12} {:>14} bytes at {}\n", b.name, category_name(b.category), b.bytes, b.offset);
  }
  for (const PlannedProgram& p : plan.programs) {
    text += fmt::format("program {} ({} bytes):\n", p.name, p.bytes);
    for (const PlannedBuffer& b : p.spans) {
      text += fmt::format("  {:<40} {:<12} {:>14} bytes at {}, from {} to {}\n", b.name, category_name(b.category),
                          b.bytes, b.offset, b.begin, b.end);
    }
  }
  return text;
}

std::string traffic_table(const StepTraffic& traffic, int ranks) {
  std::string text = fmt::format("{:<20}{:>16}  {:>16}\n", "between ranks:", "each step", "a refresh adds");
  for (int i = 0; i < Traffic::kKinds; ++i) {
    const auto kind = static_cast<Traffic::Kind>(i);
    if (traffic.step[kind] + traffic.refresh[kind] == 0) continue;
    text += traffic_row(traffic_name(kind), traffic.step[kind], traffic.refresh[kind]);
  }
  const double sent = traffic.step.sent(ranks);
  text += traffic_row("each rank sends", sent, traffic.refresh.sent(ranks));
  text += fmt::format("  of a step, gradients of the blocks' matrices: {:.3f} MB, {:.3f} of dense ones\n",
                      traffic.linear * 1e-6, traffic.linear / traffic.dense_linear);
  text += "what a rank sends in a step, divided by the speed of its link (no latency, no overlap):\n";
  for (const Link& link : kLinks) {
    text += fmt::format("  {:<18}{:>13.3f} ms\n", link.name, sent / link.bytes_per_second * 1e3);
  }
  return text;
}

std::string plan_json(const MemoryPlan& plan, int ranks, const StepTraffic& traffic) {
  const MemoryPlan::Totals totals = plan.totals();
  nlohmann::ordered_json json;
  for (int i = 0; i < kCategories; ++i) {
    json[std::string(category_name(static_cast<Category>(i)))] = totals.by_category[i];
  }
  json["packing"] = totals.packing;
  json["total"] = totals.total;
  json["peak_program"] = totals.peak_program;
  if (ranks > 1) json["between_ranks"] = ranks_json(traffic, ranks);
  return json.dump(2);
}

}  // namespace llmz::engine
