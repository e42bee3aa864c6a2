#include "llmz/codec/codec.h"

namespace llmz::codec {
namespace {

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

std::unique_ptr<Codec> make_store(const CodecOptions&, Memory&) { return std::make_unique<Store>(); }

}  // namespace llmz::codec
