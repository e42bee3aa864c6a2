#include "llmz/codec/codec.h"

namespace llmz::codec {
namespace {

class Recompute final : public Codec {
 public:
  Category input_category() const override { return Category::activations; }

  void keep(Exec&, Buffer x, Rebuild rebuild) override {
    shape_ = x.tensor().shape;
    dtype_ = x.tensor().dtype;
    rebuild_ = std::move(rebuild);
  }

  Buffer decode(Exec& exec) override {
    Buffer x = exec.memory.take("rebuilt_input", Category::activations, shape_, dtype_);
    rebuild_(exec, x.tensor());
    return x;
  }

  void drop() override { rebuild_ = nullptr; }

 private:
  Shape shape_;
  DType dtype_ = DType::f32;
  Rebuild rebuild_;
};

}  // namespace

std::unique_ptr<Codec> make_recompute() { return std::make_unique<Recompute>(); }

}  // namespace llmz::codec
