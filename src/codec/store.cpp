#include "llmz/codec/settings.h"

namespace llmz::codec {
namespace {

/// Keeps x as it is (a share of the buffer, no copy). Exact.
class Store final : public Codec {
 public:
  CodecFacts facts() const override { return {.exact = true, .input_category = Category::codes}; }
  void keep(Exec&, Buffer x, Rebuild) override { x_ = std::move(x); }
  Buffer decode(Exec&) override { return x_; }
  void drop() override { x_.reset(); }

 private:
  Buffer x_;
};

}  // namespace

CodecRow store_row() {
  const auto make = [](const CodecOptions&, Memory&) -> std::unique_ptr<Codec> { return std::make_unique<Store>(); };
  return {.name = "store", .meaning = "as it is", .make = make, .exact = true};
}

}  // namespace llmz::codec
