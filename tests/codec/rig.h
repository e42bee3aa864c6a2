#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "catch.h"
#include "llmz/codec/codec.h"
#include "llmz/core/random.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/projector.h"

namespace llmz::test {

inline std::vector<float> random_values(int64_t count, uint32_t layer) {
  std::vector<float> values(static_cast<size_t>(count));
  RandomStream(1, Purpose::test, layer).fill_normal(values.data(), 0, static_cast<uint64_t>(count), 1.0f);
  return values;
}

/// One codec over one tensor x [T,n] with the gradient dy [T,m] of a linear layer that reads it: planned, allocated,
/// run.
class CodecRig {
 public:
  struct Result {
    std::vector<float> decoded;   ///< [T,n]
    std::vector<float> gradient;  ///< [m,n], expanded where it is low-rank
  };

  CodecRig(codec::CodecConfig config, std::vector<float> x, int64_t tokens, std::vector<float> dy,
           const codec::GradientConfig* projected = nullptr, bool ahead = false)
      : config_(std::move(config)),
        projected_(projected),
        ahead_(ahead),
        x_(std::move(x)),
        dy_(std::move(dy)),
        tokens_(tokens),
        width_(static_cast<int64_t>(x_.size()) / tokens),
        outputs_(static_cast<int64_t>(dy_.size()) / tokens) {
    Memory recorder;
    {
      Exec exec(recorder);
      Body body(*this, recorder);
      body.start_step(0);
      if (body.observes()) body.observe(exec);
      body.pass(exec, nullptr);
    }
    plan_ = recorder.finish();
    MemoryPlan plan = plan_;
    memory_ = std::make_unique<Memory>(std::move(plan));
    exec_ = std::make_unique<Exec>(*memory_);
    body_ = std::make_unique<Body>(*this, *memory_);
  }

  /// One training pass as step `step` of a run with `seed`, `every refresh due` at step 0.
  Result run(uint64_t seed, int64_t step = 0) {
    body_->clock.seed = seed;
    body_->start_step(step);
    if (body_->observes()) body_->observe(*exec_);
    Result result;
    body_->pass(*exec_, &result);
    return result;
  }

  codec::Codec& codec() { return *body_->codec; }
  const MemoryPlan& plan() const { return plan_; }
  int64_t width() const { return width_; }
  /// Bytes of all buffers of the code, as planned.
  size_t code_bytes() const {
    size_t bytes = 0;
    for (const PlannedBuffer& b : plan_.program("pass").spans) bytes += b.category == Category::codes ? b.bytes : 0;
    return bytes;
  }
  /// What the code's buffers hold between forward and backward after a pass over memory that was filled with `pattern`.
  std::vector<std::vector<unsigned char>> code_after(unsigned char pattern) {
    pattern_ = pattern;
    dump_.clear();
    run(1);
    pattern_ = -1;
    return dump_;
  }

 private:
  struct Body {
    CodecRig& rig;
    subspace::Clock clock;
    std::unique_ptr<codec::Codec> codec;
    Tensor grad;
    std::unique_ptr<LowRankGrad> low;

    Body(CodecRig& r, Memory& memory) : rig(r) {
      codec::CodecOptions options{
          .config = r.config_, .name = "x", .widths = {r.width_}, .stream = {3, 3}, .clock = &clock};
      codec = r.projected_ != nullptr ? codec::make_projected(options, r.projected_->projector, memory)
                                      : codec::make_codec(options, memory);
      const Projector* p = codec->facts().projector;
      grad =
          memory.persistent("grad", Category::gradients, {r.outputs_, p != nullptr ? p->rank() : r.width_}, DType::f32);
      if (p != nullptr) low = std::make_unique<LowRankGrad>(LowRankGrad{.factor = grad, .projector = p});
    }
    void start_step(int64_t step) {
      clock.step = step;
      clock.due.clear();
      subspace::Refresh* const refresh = codec->refresh();
      if (refresh == nullptr) return;
      for (int64_t period : refresh->periods()) {
        if (step % period == 0) clock.due.push_back(period);
      }
      refresh->advance();
    }
    bool observes() const { return codec->refresh() != nullptr && codec->refresh()->observes(); }
    Tensor view(Exec& exec, std::vector<float>& values, Shape shape) const {
      return exec.dry() ? Tensor(nullptr, DType::f32, shape, exec.memory.device())
                        : Tensor(values.data(), DType::f32, shape);
    }
    void observe(Exec& exec) {
      const ProgramScope program(exec.memory, "observe");
      codec->observe(exec, view(exec, rig.x_, {rig.tokens_, rig.width_}));
    }
    void pass(Exec& exec, Result* result) {
      const ProgramScope program(exec.memory, "pass");
      ops::fill(exec, grad, 0.0f);
      if (rig.pattern_ >= 0) rig.paint(exec);
      const Tensor x = view(exec, rig.x_, {rig.tokens_, rig.width_});
      Buffer input = exec.memory.take("x", codec->facts().input_category, x.shape, DType::f32);
      ops::copy(exec, input.tensor(), x);
      if (rig.ahead_) {
        const SketchEpilogue wanted = codec->sketch_epilogue(exec, rig.tokens_);
        if (wanted.present()) ops::project(exec, wanted.z, input.tensor(), *wanted.projector);
      }
      codec->keep(exec, std::move(input), [x](Exec& e, Tensor into) { ops::copy(e, into, x); });
      if (rig.pattern_ >= 0) rig.dump();
      {  // whatever comes between forward and backward may use the memory that the codec does not hold
        const Buffer other =
            exec.memory.take("other", Category::activations, {rig.tokens_, 3 * rig.width_}, DType::f32);
        ops::fill(exec, other.tensor(), -7.0f);
      }
      backward(exec, result);
      codec->drop();  // a buffer still held now would fail the end of the program
    }
    void backward(Exec& exec, Result* result) {
      const Tensor dy = view(exec, rig.dy_, {rig.tokens_, rig.outputs_});
      {
        const Buffer decoded = codec->decode(exec);
        const Tensor t = decoded.tensor();
        if (result != nullptr) result->decoded.assign(t.as<float>(), t.as<float>() + t.numel());
        if (low == nullptr) {
          ops::matmul(exec, {.c = grad, .a = dy, .b = t, .transpose_a = true, .accumulate = true});
        }
      }
      if (low != nullptr) codec->low_rank_grad(exec, grad, dy, {});
      const Buffer expanded = exec.memory.take("expanded", Category::workspace, {rig.outputs_, rig.width_}, DType::f32);
      if (low != nullptr) {
        ops::expand_gradient(exec, expanded.tensor(), *low, 0);
      } else {
        ops::copy(exec, expanded.tensor(), grad);
      }
      const Tensor t = expanded.tensor();
      if (result != nullptr) result->gradient.assign(t.as<float>(), t.as<float>() + t.numel());
    }
  };

  /// Base address of the program's region: persistent buffers lie before it.
  unsigned char* at(const PlannedBuffer& b) const {
    const PlannedBuffer& first = plan_.persistent.front();
    return static_cast<unsigned char*>(body_->grad.data) - grad_offset() + (b.offset - first.offset) + first.offset;
  }
  size_t grad_offset() const {
    for (const PlannedBuffer& b : plan_.persistent) {
      if (b.name == "grad") return b.offset;
    }
    return 0;
  }
  void paint(Exec&) {
    for (const PlannedBuffer& b : plan_.program("pass").spans) std::memset(at(b), pattern_, b.bytes);
  }
  void dump() {
    for (const PlannedBuffer& b : plan_.program("pass").spans) {
      if (b.category == Category::codes) dump_.emplace_back(at(b), at(b) + b.bytes);
    }
  }

  codec::CodecConfig config_;
  const codec::GradientConfig* projected_;
  bool ahead_;  ///< the op that makes x also makes the sketch that the codec asks for
  std::vector<float> x_, dy_;
  int64_t tokens_, width_, outputs_;
  MemoryPlan plan_;
  int pattern_ = -1;
  std::vector<std::vector<unsigned char>> dump_;
  std::unique_ptr<Memory> memory_;
  std::unique_ptr<Exec> exec_;
  std::unique_ptr<Body> body_;
};

}  // namespace llmz::test
