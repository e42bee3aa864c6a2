#include "llmz/nn/block.h"

#include "llmz/ops/elementwise.h"

namespace llmz::nn {
namespace {

class TransformerBlock final : public Block {
 public:
  TransformerBlock(BuildContext& context, AttentionOptions attention, MlpOptions mlp)
      : attention_(context, std::move(attention)), mlp_(context, std::move(mlp)) {}

  void forward(Exec& exec, const Pass& pass, Tensor x, KvCache* cache) override {
    attention_.forward(exec, pass, x, cache);
    mlp_.forward(exec, pass, x);
  }
  void backward(Exec& exec, const Pass& pass, Tensor dx) override {
    mlp_.backward(exec, dx);
    attention_.backward(exec, pass, dx);
  }

 private:
  AttentionHalf attention_;
  MlpHalf mlp_;
};

class CheckpointedBlock final : public Block {
 public:
  CheckpointedBlock(std::unique_ptr<Block> inner, std::string name)
      : inner_(std::move(inner)), name_(std::move(name)) {}

  void forward(Exec& exec, const Pass& pass, Tensor x, KvCache* cache) override {
    if (pass.keep) {
      input_ = exec.memory.take(name_, Category::codes, x.shape, x.dtype, role::block_input);
      ops::copy(exec, input_.tensor(), x);
    }
    Pass once = pass;
    once.keep = false;
    inner_->forward(exec, once, x, cache);
  }
  void backward(Exec& exec, const Pass& pass, Tensor dx) override {
    inner_->forward(exec, pass, input_.tensor(), nullptr);  // its last use: it becomes the block's output
    input_.reset();
    inner_->backward(exec, pass, dx);
  }

 private:
  std::unique_ptr<Block> inner_;
  std::string name_;
  Buffer input_;
};

}  // namespace

std::unique_ptr<Block> make_block(BuildContext& context, AttentionOptions attention, MlpOptions mlp) {
  return std::make_unique<TransformerBlock>(context, std::move(attention), std::move(mlp));
}

std::unique_ptr<Block> make_checkpointed(std::unique_ptr<Block> inner, std::string name) {
  return std::make_unique<CheckpointedBlock>(std::move(inner), std::move(name));
}

}  // namespace llmz::nn
