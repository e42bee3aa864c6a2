#include <zstd.h>

#include <utility>

#include "llmz/core/error.h"
#include "src/data/byte_stream.h"

namespace llmz::data {
namespace {

class ZstdStream final : public ByteStream {
 public:
  explicit ZstdStream(DiskBytes input) : input_(std::move(input)), zstd_(ZSTD_createDCtx()) {
    check(zstd_ != nullptr, "{}: zstd cannot be started", input_.name());
    ZSTD_DCtx_setParameter(zstd_, ZSTD_d_windowLogMax, 31);  // archives made with --long=31
  }
  ~ZstdStream() override { ZSTD_freeDCtx(zstd_); }

  size_t read(char* to, size_t count) override {
    ZSTD_outBuffer out{to, count, 0};
    while (out.pos == 0) {
      const bool more = input_.fill();
      if (!more && between_frames_) return 0;
      ZSTD_inBuffer in{input_.buffer.data(), input_.end, input_.begin};
      const size_t result = ZSTD_decompressStream(zstd_, &out, &in);
      check(ZSTD_isError(result) == 0, "{}: damaged zstd data near byte {}: {}", input_.name(),
            input_.consumed - (input_.end - in.pos), ZSTD_getErrorName(result));
      check(more || out.pos > 0, "{}: the zstd data ends too early; the file is truncated", input_.name());
      input_.begin = in.pos;
      between_frames_ = result == 0;
    }
    return out.pos;
  }
  uint64_t consumed() const override { return input_.consumed; }

 private:
  DiskBytes input_;
  ZSTD_DCtx* zstd_;
  bool between_frames_ = true;
};

std::unique_ptr<ByteStream> open_zstd(DiskBytes input) { return std::make_unique<ZstdStream>(std::move(input)); }

}  // namespace

extern const Compression kZstd;
const Compression kZstd = {.name = "zstd", .extension = ".zst", .magic = "\x28\xb5\x2f\xfd", .open = open_zstd};

}  // namespace llmz::data
