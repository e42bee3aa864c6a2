#include "llmz/engine/settings.h"

namespace llmz::engine {

config::Fields<DistributedConfig> distributed_fields() {
  using D = DistributedConfig;
  return config::Fields<D>()
      .key("zero_stage", &D::zero_stage,
           "0: every rank keeps the whole optimizer state; 1 (ZeRO-1): each keeps an equal part of it, by rows of the "
           "matrices",
           config::between(0, 1))
      .key("overlap", &D::overlap, "gradients of late layers are summed over ranks while backward is at the early ones")
      .key("bucket_mb", &D::bucket_mb, "10^6 bytes of gradients that set out together", config::between(1, 100000));
}

}  // namespace llmz::engine
