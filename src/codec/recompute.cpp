#include "llmz/codec/settings.h"

namespace llmz::codec {
namespace {

/// Keeps nothing and asks `rebuild` for x in backward. As exact as what it is rebuilt from.
class Recompute final : public Codec {
 public:
  explicit Recompute(const CodecOptions& options)
      : name_(options.name + ".rebuilt"), source_exact_(options.source_exact) {}

  CodecFacts facts() const override { return {.exact = source_exact_, .decodes_in_forward = false}; }
  void keep(Exec&, Buffer x, Rebuild rebuild) override {
    shape_ = x.tensor().shape;
    dtype_ = x.tensor().dtype;
    rebuild_ = std::move(rebuild);
  }
  Buffer decode(Exec& exec) override {
    Buffer x = exec.memory.take(name_, Category::activations, shape_, dtype_);
    rebuild_(exec, x.tensor());
    return x;
  }
  void drop() override { rebuild_ = nullptr; }

 private:
  std::string name_;
  bool source_exact_;
  Shape shape_;
  DType dtype_ = DType::f32;
  Rebuild rebuild_;
};

}  // namespace

CodecRow recompute_row() {
  const auto make = [](const CodecOptions& options, Memory&) -> std::unique_ptr<Codec> {
    return std::make_unique<Recompute>(options);
  };
  return {.name = "recompute",
          .meaning = "nothing; made again in backward",
          .serves = serves_rebuilt,
          .make = make,
          .keeps = false};
}

}  // namespace llmz::codec
