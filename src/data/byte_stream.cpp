#include "src/data/byte_stream.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "llmz/core/error.h"

namespace llmz::data {

extern const Compression kGzip, kZstd;

namespace {

constexpr const Compression* kCompressions[] = {&kGzip, &kZstd};

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(DiskBytes input) : input_(std::move(input)) {}

  size_t read(char* to, size_t count) override {
    if (input_.begin < input_.end) {  // what was read to look at the first bytes
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
  DiskBytes input_;
};

bool starts_with(const DiskBytes& input, std::string_view magic) {
  return input.end >= magic.size() && std::memcmp(input.buffer.data(), magic.data(), magic.size()) == 0;
}

}  // namespace

bool DiskBytes::fill() {
  if (begin < end) return true;
  begin = 0;
  end = file.read_some(buffer.data(), buffer.size());
  consumed += end;
  return end > 0;
}

std::span<const Compression* const> compressions() { return kCompressions; }

const Compression* compression_named(const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  const auto named = [&](const Compression* each) { return extension == each->extension; };
  const auto* const found = std::ranges::find_if(kCompressions, named);
  return found == std::end(kCompressions) ? nullptr : *found;
}

std::unique_ptr<ByteStream> ByteStream::open(const std::filesystem::path& path) {
  DiskBytes input{PosixFile::open_for_reading(path)};
  input.fill();
  for (const Compression* each : kCompressions) {
    if (starts_with(input, each->magic)) return each->open(std::move(input));
  }
  const Compression* const named = compression_named(path);
  check(named == nullptr, "{}: not {} data, in spite of its name; rename or replace the file", path.string(),
        named == nullptr ? "" : named->name);
  return std::make_unique<PlainStream>(std::move(input));
}

}  // namespace llmz::data
