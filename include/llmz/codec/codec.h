#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/codec/config.h"
#include "llmz/core/exec.h"
#include "llmz/core/projector.h"
#include "llmz/subspace/clock.h"
#include "llmz/subspace/refresh.h"
#include "llmz/subspace/streams.h"

namespace llmz::codec {

/// Writes a tensor again from what its producer keeps; the very operation that made it, so the bits are the same.
using Rebuild = std::function<void(Exec&, Tensor into)>;

/// Squared norms that a probing pass leaves: of the error, and of the exact value. f64 [2].
struct Probe {
  std::string name;  ///< of the coded tensor, or of the weight whose gradient it is
  std::string what;  ///< "code" | "gradient"
  Tensor norms;
};

/// What a codec that passes can probe has beside its code.
struct Probing {
  Probe code;    ///< the code's error in the last probing pass; `norms` is absent where it cannot be told in forward
  Buffer exact;  ///< the uncoded x of a probing pass, from `keep` to `drop`
};

/// What codecs are made from.
struct CodecOptions {
  CodecConfig config = {};
  std::string name;                ///< of the tensor: "layers.3.mlp.gate_up"
  std::string_view role = {};      ///< of the tensor; the code's buffers have it too
  std::vector<int64_t> widths;     ///< of its parts, which lie side by side and are coded apart (gate | up)
  DType dtype = DType::f32;        ///< of the tensor
  subspace::StreamId stream = {};  ///< of its first part
  const subspace::Clock* clock = nullptr;
  bool source_exact = true;  ///< `recompute`: whether what it rebuilds from is exact
  bool probes = false;       ///< whether passes may probe
};

/// What is true of a codec for as long as it lives.
struct CodecFacts {
  bool exact = false;              ///< `decode` gives x again bit for bit
  bool is_sketch = false;          ///< the code itself is a sketch x·P: `decode` only gives a projection of x
  bool decodes_in_forward = true;  ///< `decode` works right after `keep`: it is what a probe of the code needs
  bool draws_each_pass = false;    ///< takes new random numbers in each pass, which a recorded pass would repeat
  /// Where the memory plan books x itself: `codes` when it stays until backward, `activations` when it goes at once.
  Category input_category = Category::activations;
  /// Through which weight gradients of layers that read x are low-rank; null: they are dense.
  const Projector* projector = nullptr;
};

/// What is kept of a tensor x [T,n] between forward and backward. One object a tensor; it holds the code of one
/// micro-batch at a time: `keep`, then `decode` and `low_rank_grad` as often as needed, then `drop`.
class Codec {
 public:
  virtual ~Codec() = default;

  virtual CodecFacts facts() const = 0;

  /// Forward, before the op runs that writes x [T,n]: what that op is to write as well, where the whole code is a
  /// sketch that it can make; absent otherwise. The `keep` of this x, which has to follow, then finds the code made.
  virtual SketchEpilogue sketch_epilogue(Exec&, [[maybe_unused]] int64_t tokens) { return {}; }
  /// Forward: takes a share of x. `rebuild` stays callable until `drop`; may be null for codecs other than `recompute`.
  virtual void keep(Exec& exec, Buffer x, Rebuild rebuild) = 0;
  /// x again, exact or approximated as the codec promises.
  virtual Buffer decode(Exec& exec) = 0;
  /// factor [m,r] += dyᵀ·x·P, dy [T,m]. Only with a projector. `x`: as decoded, where the caller has it already and the
  /// code is no sketch; else absent.
  virtual void low_rank_grad(Exec& exec, Tensor factor, Tensor dy, Tensor x);
  /// Forgets the code and gives its memory back.
  virtual void drop() = 0;

  /// What of it changes with the steps of a run; null: nothing.
  virtual subspace::Refresh* refresh() { return nullptr; }
  /// x [T,n] of the batch that a due refresh may look at.
  void observe(Exec& exec, Tensor x) {
    if (subspace::Refresh* const changing = refresh()) changing->observe(exec, x);
  }
  /// Null where passes cannot probe it.
  virtual const Probing* probing() const { return nullptr; }
  /// The uncoded x of a probing pass; absent otherwise.
  Tensor exact_input() const { return probing() != nullptr ? probing()->exact.tensor() : Tensor(); }
};

/// Makes the codec that options.config names, within a `probed` one where options.probes asks for it; Error listing the
/// known names otherwise. What it keeps for the whole run comes from `memory`.
std::unique_ptr<Codec> make_codec(const CodecOptions& options, Memory& memory);

/// Stores as `options.config` says and makes low-rank weight gradients through `projector` of what that decodes to.
std::unique_ptr<Codec> make_projected(const CodecOptions& options, const subspace::ProjectorConfig& projector,
                                      Memory& memory);

/// `inner`, measured in passes of which the clock says so; `inner` itself where options.probes does not ask for it or
/// there is nothing to measure.
std::unique_ptr<Codec> probed(std::unique_ptr<Codec> inner, const CodecOptions& options, Memory& memory);

/// Every registered name, in the order of the documentation.
std::vector<std::string> codec_names();

}  // namespace llmz::codec
