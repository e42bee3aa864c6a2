#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "llmz/codec/codec.h"

namespace llmz::codec {

/// One part of a tensor (gate, or up) under a lossy code. Works on views, since parts lie side by side in one buffer.
class Part {
 public:
  virtual ~Part() = default;
  virtual void encode(Exec& exec, Tensor x) = 0;
  virtual SketchEpilogue sketch_epilogue(Exec&, int64_t) { return {}; }
  virtual void decode(Exec& exec, Tensor into) = 0;
  virtual void drop() = 0;

  virtual const Projector* projector() const { return nullptr; }
  virtual void low_rank_grad(Exec&, Tensor, Tensor) { fail("this code makes no low-rank gradients"); }
  virtual bool draws_each_pass() const { return false; }
  virtual subspace::Refresh* refresh() { return nullptr; }
};

/// The refreshes of a tensor's parts, which have the same settings, as one.
class JoinedRefresh final : public subspace::Refresh {
 public:
  struct Of {
    subspace::Refresh* refresh;
    int64_t first, width;  ///< the part's columns of x
  };
  explicit JoinedRefresh(std::vector<Of> parts) : parts_(std::move(parts)) {}

  void advance() override;
  std::vector<int64_t> periods() const override { return parts_[0].refresh->periods(); }
  bool observes() const override { return parts_[0].refresh->observes(); }
  void observe(Exec& exec, Tensor x) override;
  std::vector<subspace::State> states() const override;
  std::vector<subspace::Spectrum> spectra() const override;

 private:
  std::vector<Of> parts_;
};

/// A lossy codec: the parts of a tensor, each coded by itself.
class Parted final : public Codec {
 public:
  using MakePart = std::unique_ptr<Part> (*)(const CodecOptions&, const std::string& name, int64_t width,
                                             subspace::StreamId stream, Memory&);
  Parted(const CodecOptions& options, Memory& memory, MakePart make);

  CodecFacts facts() const override;
  SketchEpilogue sketch_epilogue(Exec& exec, int64_t tokens) override {
    return parts_.size() == 1 ? parts_[0]->sketch_epilogue(exec, tokens) : SketchEpilogue();
  }
  void keep(Exec& exec, Buffer x, Rebuild) override;
  Buffer decode(Exec& exec) override;
  void low_rank_grad(Exec& exec, Tensor factor, Tensor dy, Tensor) override {
    parts_[0]->low_rank_grad(exec, factor, dy);
  }
  void drop() override;
  subspace::Refresh* refresh() override { return refresh_ ? &*refresh_ : nullptr; }

 private:
  /// Calls f(part, its columns of x).
  template <class F>
  void for_parts(Tensor x, F&& f) {
    int64_t first = 0;
    for (size_t i = 0; i < parts_.size(); ++i) {
      f(*parts_[i], x.slice(1, first, widths_[i]));
      first += widths_[i];
    }
  }

  std::string decoded_name_;
  std::vector<int64_t> widths_;
  DType dtype_;
  std::vector<std::unique_ptr<Part>> parts_;
  std::optional<JoinedRefresh> refresh_;
  Shape shape_;
};

}  // namespace llmz::codec
