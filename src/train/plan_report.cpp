#include "llmz/train/plan_report.h"

#include <nlohmann/json.hpp>

namespace llmz::train {
namespace {

std::string row(std::string_view name, size_t bytes) {
  return fmt::format("  {:<14}{:>17}  {:>10.3f} MB\n", name, fmt::group_digits(bytes),
                     static_cast<double>(bytes) * 1e-6);
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

std::string plan_json(const MemoryPlan& plan) {
  const MemoryPlan::Totals totals = plan.totals();
  nlohmann::ordered_json json;
  for (int i = 0; i < kCategories; ++i) {
    json[std::string(category_name(static_cast<Category>(i)))] = totals.by_category[i];
  }
  json["packing"] = totals.packing;
  json["total"] = totals.total;
  json["peak_program"] = totals.peak_program;
  return json.dump(2);
}

}  // namespace llmz::train
