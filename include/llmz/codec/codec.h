#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmz/codec/config.h"
#include "llmz/core/exec.h"
#include "llmz/core/parameter.h"

namespace llmz::codec {

/// Writes a tensor again from what its producer keeps; the very operation that made it, so the bits are the same.
using Rebuild = std::function<void(Exec&, Tensor into)>;

/// What a linear layer keeps of its input x [T,n] between forward and backward, and how a weight gradient comes from
/// it. One object a layer; it holds the code of one micro-batch at a time: `keep`, then `weight_grad` and `drop`.
class Codec {
 public:
  virtual ~Codec() = default;

  /// Where the memory plan books x itself: `codes` when it stays until backward, `activations` when it goes at once.
  virtual Category input_category() const = 0;

  /// Forward: takes a share of x. `rebuild` stays callable until `drop`.
  virtual void keep(Exec& exec, Buffer x, Rebuild rebuild) = 0;

  /// x again, exact or approximated as the codec promises.
  virtual Buffer decode(Exec& exec) = 0;

  /// Backward: grad += dyᵀ·x, dy [T,m].
  virtual void weight_grad(Exec& exec, Tensor dy, WeightGrad& grad);

  /// Forgets the code and gives its memory back.
  virtual void drop() = 0;
};

/// Makes the codec that `config` names; Error listing the known names otherwise.
std::unique_ptr<Codec> make_codec(const CodecConfig& config);

/// Every registered name, in the order of the documentation.
std::vector<std::string> codec_names();

/// Keeps x as it is (a share of the buffer, no copy). Exact.
std::unique_ptr<Codec> make_store();
/// Keeps nothing and asks `rebuild` for x in backward. Exact, bit for bit.
std::unique_ptr<Codec> make_recompute();

}  // namespace llmz::codec
