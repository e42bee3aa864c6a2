#include "llmz/codec/codec.h"

namespace llmz::codec {
namespace {

class Store final : public Codec {
 public:
  Category input_category() const override { return Category::codes; }
  void keep(Exec&, Buffer x, Rebuild) override { x_ = std::move(x); }
  Buffer decode(Exec&) override { return x_; }
  void drop() override { x_.reset(); }

 private:
  Buffer x_;
};

}  // namespace

std::unique_ptr<Codec> make_store() { return std::make_unique<Store>(); }

}  // namespace llmz::codec
