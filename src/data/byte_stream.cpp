#include "src/data/byte_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "llmz/core/error.h"
#include "src/data/posix_file.h"

namespace llmz::data {
namespace {

constexpr size_t kInputBytes = size_t{1} << 18;
constexpr std::array<unsigned char, 2> kGzipMagic = {0x1f, 0x8b};
constexpr std::array<unsigned char, 4> kZstdMagic = {0x28, 0xb5, 0x2f, 0xfd};

/// What is on the disk, a buffer at a time.
struct Input {
  PosixFile file;
  std::vector<unsigned char> buffer = std::vector<unsigned char>(kInputBytes);
  size_t begin = 0, end = 0;  // unread bytes of `buffer`
  uint64_t consumed = 0;

  /// True when there is an unread byte.
  bool fill() {
    if (begin < end) return true;
    begin = 0;
    end = file.read_some(buffer.data(), buffer.size());
    consumed += end;
    return end > 0;
  }
  std::string name() const { return file.path().string(); }
};

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(Input input) : input_(std::move(input)) {}

  size_t read(char* to, size_t count) override {
    if (input_.begin < input_.end) {  // what was read to look at the magic number
      const size_t part = std::min(count, input_.end - input_.begin);
      std::memcpy(to, input_.buffer.data() + input_.begin, part);
      input_.begin += part;
      return part;
    }
    const size_t got = input_.file.read_some(to, count);
    input_.consumed += got;
    return got;
  }
  uint64_t consumed() const override { return input_.consumed; }

 private:
  Input input_;
};

class GzipStream final : public ByteStream {
 public:
  explicit GzipStream(Input input) : input_(std::move(input)) {
    check(inflateInit2(&zlib_, 15 + 16) == Z_OK, "{}: zlib cannot be started", input_.name());  // 16: gzip only
  }
  ~GzipStream() override { inflateEnd(&zlib_); }

  size_t read(char* to, size_t count) override {
    const auto wanted = static_cast<uInt>(std::min(count, kInputBytes));
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

  Input input_;
  z_stream zlib_{};
  bool between_members_ = false;
};

class ZstdStream final : public ByteStream {
 public:
  explicit ZstdStream(Input input) : input_(std::move(input)), zstd_(ZSTD_createDCtx()) {
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
  Input input_;
  ZSTD_DCtx* zstd_;
  bool between_frames_ = true;
};

template <size_t N>
bool starts_with(const Input& input, const std::array<unsigned char, N>& magic) {
  return input.end >= N && std::memcmp(input.buffer.data(), magic.data(), N) == 0;
}

}  // namespace

std::unique_ptr<ByteStream> ByteStream::open(const std::filesystem::path& path) {
  Input input{PosixFile::open_for_reading(path)};
  input.fill();
  if (starts_with(input, kGzipMagic)) return std::make_unique<GzipStream>(std::move(input));
  if (starts_with(input, kZstdMagic)) return std::make_unique<ZstdStream>(std::move(input));
  const std::string extension = path.extension().string();
  check(extension != ".gz" && extension != ".zst", "{}: not {} data, in spite of its name; rename or replace the file",
        path.string(), extension == ".gz" ? "gzip" : "zstd");
  return std::make_unique<PlainStream>(std::move(input));
}

}  // namespace llmz::data
