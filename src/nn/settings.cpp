#include "llmz/nn/settings.h"

#include "llmz/codec/settings.h"

namespace llmz::nn {

config::Fields<ActivationsConfig> activation_fields() {
  using A = ActivationsConfig;
  config::Fields<A> fields, details;
  const auto of_a_codec = codec::codec_fields();
  for (const ActivationRole& role : activation_roles()) {
    const auto codec = [member = role.config](A& config) -> std::string& { return (config.*member).codec; };
    fields.key(std::string(role.key) + ".codec", codec, role.meaning, config::one_of(role.codecs));
    details.object(role.key, role.config, of_a_codec, "<role>");
  }
  fields
      .key("block.codec", &A::block,
           "all of a block; `recompute` keeps only the block's input and runs its forward again in backward",
           block_codecs())
      .key("norm_constant", &A::norm_constant,
           "where a norm's backward takes mean(dx̂·x̂) from when it has x̂ only approximately: exactly, from the "
           "linear layer's `outputs`, or from the `code` of x̂ (as PRAC does)",
           norm_constants());
  return fields.merge(details);
}

}  // namespace llmz::nn
