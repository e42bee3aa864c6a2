#pragma once

#include <memory>
#include <string>
#include <vector>

#include "llmz/codec/codec.h"
#include "llmz/config/fields.h"
#include "llmz/subspace/settings.h"

namespace llmz::codec {

config::Fields<QuantConfig> quant_fields();
/// `weight_gradient`.
config::Fields<GradientConfig> gradient_fields();

/// What a tensor role offers to the codec that is to serve it.
struct RoleFacts {
  bool rebuilds = false;      ///< the tensor can be made again from what is kept of others
  bool shares_input = false;  ///< a linear layer keeps the same tensor, and its code may serve both
};

/// For CodecRow::serves: any role; roles whose tensor can be made again.
bool serves_all(const RoleFacts& role);
bool serves_rebuilt(const RoleFacts& role);

/// One registry row: all there is to know of a codec by its name. It stands in the codec's own file, in a function that
/// src/codec/registry.cpp names.
struct CodecRow {
  std::string name;
  std::string meaning;
  bool (*serves)(const RoleFacts& role) = serves_all;  ///< whether a role may be kept by it
  /// Its settings: members of CodecConfig, or a struct of its own in CodecConfig::own. Codecs may have keys in common
  /// that stand for the same member.
  config::Fields<CodecConfig> fields = {};
  /// Throws Error naming the key, `where` + ".rank" and so on, whose value does not fit a tensor of `width` features;
  /// null: there is nothing to check.
  void (*check)(const CodecConfig& config, const std::string& where, int64_t width) = nullptr;
  std::unique_ptr<Codec> (*make)(const CodecOptions& options, Memory& memory) = nullptr;  ///< null: the input's serves
  bool keeps = true;       ///< something of the tensor itself
  bool exact = false;      ///< what it keeps is the tensor, bit for bit
  bool is_sketch = false;  ///< what it keeps is a sketch (CodecFacts::is_sketch)
};

/// Every codec, in the order of the documentation.
const std::vector<CodecRow>& codec_rows();
/// Error listing the known names.
const CodecRow& codec_row(const std::string& name);

/// Names of those that may serve the role.
std::vector<std::string> codecs_for(const RoleFacts& role, const std::vector<CodecRow>& rows = codec_rows());

/// The settings of all `rows`, which any role takes whatever its codec. The codec's own name is not among them, for
/// what it may be depends on the role.
config::Fields<CodecConfig> codec_fields(const std::vector<CodecRow>& rows = codec_rows());

}  // namespace llmz::codec
