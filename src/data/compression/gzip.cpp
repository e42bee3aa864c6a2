#include <zlib.h>

#include <algorithm>
#include <utility>

#include "llmz/core/error.h"
#include "src/data/byte_stream.h"

namespace llmz::data {
namespace {

class GzipStream final : public ByteStream {
 public:
  explicit GzipStream(DiskBytes input) : input_(std::move(input)) {
    check(inflateInit2(&zlib_, 15 + 16) == Z_OK, "{}: zlib cannot be started", input_.name());  // 16: gzip only
  }
  ~GzipStream() override { inflateEnd(&zlib_); }

  size_t read(char* to, size_t count) override {
    const auto wanted = static_cast<uInt>(std::min(count, DiskBytes::kSize));
    zlib_.next_out = reinterpret_cast<Bytef*>(to);
    zlib_.avail_out = wanted;
    while (zlib_.avail_out == wanted) {
      if (between_members_ && !next_member()) return 0;
      check(input_.fill(), "{}: the gzip data ends too early; the file is truncated", input_.name());
      zlib_.next_in = input_.buffer.data() + input_.begin;
      zlib_.avail_in = static_cast<uInt>(input_.end - input_.begin);
      const int result = inflate(&zlib_, Z_NO_FLUSH);
      input_.begin = input_.end - zlib_.avail_in;
      check(result == Z_OK || result == Z_STREAM_END, "{}: damaged gzip data near byte {}: {}", input_.name(),
            input_.consumed - zlib_.avail_in, zlib_.msg != nullptr ? zlib_.msg : "unreadable");
      between_members_ = result == Z_STREAM_END;
    }
    return wanted - zlib_.avail_out;
  }
  uint64_t consumed() const override { return input_.consumed; }

 private:
  /// Another member follows; zeros, with which tapes are filled up, do not count.
  bool next_member() {
    while (input_.fill()) {
      if (input_.buffer[input_.begin] != 0) {
        inflateReset(&zlib_);
        return true;
      }
      ++input_.begin;
    }
    return false;
  }

  DiskBytes input_;
  z_stream zlib_{};
  bool between_members_ = false;
};

std::unique_ptr<ByteStream> open_gzip(DiskBytes input) { return std::make_unique<GzipStream>(std::move(input)); }

}  // namespace

extern const Compression kGzip;
const Compression kGzip = {.name = "gzip", .extension = ".gz", .magic = "\x1f\x8b", .open = open_gzip};

}  // namespace llmz::data
