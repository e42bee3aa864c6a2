#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmz/codec/config.h"
#include "llmz/core/exec.h"
#include "llmz/core/projector.h"
#include "llmz/subspace/clock.h"
#include "llmz/subspace/projector_source.h"

namespace llmz::codec {

/// Writes a tensor again from what its producer keeps; the very operation that made it, so the bits are the same.
using Rebuild = std::function<void(Exec&, Tensor into)>;

/// Squared norms that a probing pass leaves: of the error, and of the exact value. f64 [2].
struct Probe {
  std::string name;  ///< of the coded tensor, or of the weight whose gradient it is
  std::string what;  ///< "code" | "gradient"
  Tensor norms;
};

/// What codecs are made from.
struct CodecOptions {
  CodecConfig config = {};
  std::string name;             ///< of the tensor: "layers.3.mlp.gate_up"
  std::vector<int64_t> widths;  ///< of its parts, which lie side by side and are coded apart (gate | up)
  DType dtype = DType::f32;     ///< of the tensor
  uint32_t layer = 0;           ///< selects the codec's random numbers; part i has layer + i
  const subspace::Clock* clock = nullptr;
  bool source_exact = true;  ///< `recompute`: whether what it rebuilds from is exact
  bool probes = false;       ///< whether passes may probe
};

/// What is kept of a tensor x [T,n] between forward and backward. One object a tensor; it holds the code of one
/// micro-batch at a time: `keep`, then `decode` and `low_rank_grad` as often as needed, then `drop`.
class Codec {
 public:
  virtual ~Codec() = default;

  /// Whether `decode` gives x again bit for bit.
  virtual bool exact() const = 0;
  /// Whether the code itself is a sketch x·P, so that `decode` only gives a projection of x.
  virtual bool is_sketch() const { return false; }
  /// Whether `decode` works right after `keep`: it is what a probe of the code needs.
  virtual bool decodes_in_forward() const { return true; }
  /// Where the memory plan books x itself: `codes` when it stays until backward, `activations` when it goes at once.
  virtual Category input_category() const { return Category::activations; }

  /// Forward, before the op runs that writes x [T,n]: what that op is to write as well, where the whole code is a
  /// sketch that it can make; absent otherwise. The `keep` of this x, which has to follow, then finds the code made.
  virtual SketchOutput sketch_output(Exec&, [[maybe_unused]] int64_t tokens) { return {}; }
  /// Forward: takes a share of x. `rebuild` stays callable until `drop`; may be null for codecs other than `recompute`.
  void keep(Exec& exec, Buffer x, Rebuild rebuild);
  /// x again, exact or approximated as the codec promises.
  virtual Buffer decode(Exec& exec) = 0;
  /// Forgets the code and gives its memory back.
  void drop();

  /// The projector through which weight gradients of layers that read x are low-rank; null: they are dense.
  virtual const Projector* projector() const { return nullptr; }
  /// factor [m,r] += dyᵀ·x·P, dy [T,m]. Only with a projector. `x`: as decoded, where the caller has it already and the
  /// code is no sketch; else absent.
  virtual void low_rank_grad(Exec& exec, Tensor factor, Tensor dy, Tensor x);

  /// Start of an optimizer step: projectors follow the clock.
  virtual void advance() {}
  /// Refresh periods, in steps, of whatever changes with time.
  virtual std::vector<int64_t> periods() const { return {}; }
  /// Whether refreshes need to run a forward pass that calls `observe`, with those of `periods()` that are due.
  virtual bool observes() const { return false; }
  /// x [T,n] of the batch that a due refresh may look at.
  virtual void observe(Exec&, Tensor) {}
  /// What a checkpoint has to hold.
  virtual std::vector<subspace::State> states() const { return {}; }
  virtual std::vector<subspace::Spectrum> spectra() const { return {}; }

  /// The uncoded x of a probing pass; absent otherwise.
  Tensor exact_input() const { return exact_input_.tensor(); }
  /// The code's error in the last probing pass; `norms` is absent where the codec was made without probes.
  const Probe& probe() const { return probe_; }
  /// Called once by whoever makes a codec: allocates the probe where options.probes asks for one.
  void allow_probes(const CodecOptions& options, Memory& memory);

 protected:
  virtual void do_keep(Exec& exec, Buffer x, Rebuild rebuild) = 0;
  virtual void do_drop() = 0;

 private:
  const subspace::Clock* clock_ = nullptr;
  Probe probe_;
  Buffer exact_input_;
};

/// Makes the codec that options.config names; Error listing the known names otherwise. What it keeps for the whole run
/// comes from `memory`.
std::unique_ptr<Codec> make_codec(const CodecOptions& options, Memory& memory);

/// Stores as `options.config` says and makes low-rank weight gradients through `projector` of what that decodes to.
std::unique_ptr<Codec> make_projected(const CodecOptions& options, const subspace::ProjectorConfig& projector,
                                      Memory& memory);

/// Every registered name, in the order of the documentation.
std::vector<std::string> codec_names();

/// Keeps x as it is (a share of the buffer, no copy). Exact.
std::unique_ptr<Codec> make_store(const CodecOptions& options, Memory& memory);
/// Keeps nothing and asks `rebuild` for x in backward. As exact as what it is rebuilt from.
std::unique_ptr<Codec> make_recompute(const CodecOptions& options, Memory& memory);
/// Keeps z = x·P [T,r], packed where config.quant.bits says so.
std::unique_ptr<Codec> make_sketch(const CodecOptions& options, Memory& memory);
/// Keeps x in 8 or 4 bits.
std::unique_ptr<Codec> make_quant(const CodecOptions& options, Memory& memory);

}  // namespace llmz::codec
