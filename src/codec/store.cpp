#include "llmz/codec/codec.h"

namespace llmz::codec {
namespace {

class Store final : public Codec {
 public:
  bool exact() const override { return true; }
  Category input_category() const override { return Category::codes; }
  Buffer decode(Exec&) override { return x_; }

 protected:
  void do_keep(Exec&, Buffer x, Rebuild) override { x_ = std::move(x); }
  void do_drop() override { x_.reset(); }

 private:
  Buffer x_;
};

}  // namespace

std::unique_ptr<Codec> make_store(const CodecOptions&, Memory&) { return std::make_unique<Store>(); }

}  // namespace llmz::codec
