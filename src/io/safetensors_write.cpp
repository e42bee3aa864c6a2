#include <algorithm>
#include <bit>
#include <set>

#include "llmz/core/transfer.h"
#include "llmz/io/safetensors.h"
#include "src/io/convert.h"
#include "src/io/pieces.h"

namespace llmz::io {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors data is little-endian");

constexpr size_t kDataAlignment = 64;

/// An entry in file order: `view` has the shape that the file will have.
struct Planned {
  const SafetensorsEntry* entry;
  Tensor view;
  FileDType dtype;
  uint64_t bytes;
};

FileDType stored_type(const SafetensorsEntry& e) { return file_dtype_of(e.stored_as.value_or(e.tensor.dtype)); }

std::vector<Planned> plan(std::span<const SafetensorsEntry> entries, const std::string& path) {
  std::vector<Planned> planned;
  std::set<std::string_view> names;
  for (const SafetensorsEntry* entry : in_file_order(entries)) {
    const SafetensorsEntry& e = *entry;
    check(!e.name.empty() && e.name != "__metadata__", "'{}': a tensor cannot be named '{}'", path, e.name);
    check(names.insert(e.name).second, "'{}': two tensors are named '{}'", path, e.name);
    const bool fetched = static_cast<bool>(e.fetch);
    check(e.tensor.present() && (fetched || !e.tensor.is_meta()), "'{}': tensor '{}' has no data", path, e.name);
    check(fetched || e.tensor.data != nullptr || e.tensor.numel() == 0, "'{}': tensor '{}' points nowhere", path,
          e.name);
    const FileDType dtype = stored_type(e);
    check(convertible(dtype, e.tensor.dtype), "'{}': tensor '{}' of type {} cannot be stored as {}", path, e.name,
          dtype_name(e.tensor.dtype), file_dtype_name(dtype));
    check(!e.transpose || e.tensor.rank() == 2, "'{}': tensor '{}' of shape {} cannot be transposed", path, e.name,
          e.tensor.shape.str());
    const Tensor view = e.transpose ? transposed(e.tensor) : e.tensor;
    planned.push_back({&e, view, dtype, static_cast<uint64_t>(view.numel()) * file_dtype_bytes(dtype)});
  }
  return planned;
}

/// Length and JSON, padded so that the data begins aligned.
std::string make_header(const std::vector<Planned>& planned, const std::map<std::string, std::string>& metadata,
                        const std::string& path) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const Planned& p : planned) {
    std::vector<int64_t> shape;
    for (int d = 0; d < p.view.rank(); ++d) shape.push_back(p.view.dim(d));
    auto& fields = json[p.entry->name];
    fields["dtype"] = file_dtype_name(p.dtype);
    fields["shape"] = shape;
    fields["data_offsets"] = {offset, offset + p.bytes};
    offset += p.bytes;
  }
  std::string text;
  try {
    text = json.dump();
  } catch (const nlohmann::json::exception&) {
    fail("'{}': a tensor's name or the metadata is not valid UTF-8", path);
  }
  const size_t padded = (text.size() + 8 + kDataAlignment - 1) / kDataAlignment * kDataAlignment;
  text.resize(padded - 8, ' ');
  const auto length = std::bit_cast<std::array<char, 8>>(static_cast<uint64_t>(text.size()));
  return std::string(length.begin(), length.end()) + text;
}

void write_data(OutputFile& file, const Planned& p, Memory* memory, std::vector<std::byte>& dense,
                std::vector<std::byte>& encoded) {
  HostMirror mirror(memory, p.entry->fetch ? p.entry->fetch() : p.entry->tensor);
  mirror.download();
  const Tensor t = p.entry->transpose ? transposed(mirror.tensor()) : mirror.tensor();
  const auto width = static_cast<int64_t>(dtype_bytes(t.dtype));
  const bool as_it_is = file_dtype_of(t.dtype) == p.dtype;
  if (as_it_is && t.contiguous()) {
    file.write(t.data, p.bytes);
    return;
  }
  for_each_piece(t.shape, kPieceBytes / width, [&](const Piece& piece) {
    const auto count = static_cast<size_t>(piece.numel());
    dense.resize(count * dtype_bytes(t.dtype));
    gather(t, piece, dense.data());
    if (as_it_is) {
      file.write(dense.data(), dense.size());
    } else {
      encoded.resize(count * file_dtype_bytes(p.dtype));
      encode(t.dtype, dense.data(), p.dtype, encoded.data(), count);
      file.write(encoded.data(), encoded.size());
    }
  });
}

}  // namespace

std::vector<const SafetensorsEntry*> in_file_order(std::span<const SafetensorsEntry> entries) {
  std::vector<const SafetensorsEntry*> order;
  for (const SafetensorsEntry& e : entries) order.push_back(&e);
  std::stable_sort(order.begin(), order.end(), [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
    return file_dtype_bytes(stored_type(*a)) > file_dtype_bytes(stored_type(*b));
  });
  return order;
}

FileDigest write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                             const std::map<std::string, std::string>& metadata, Memory* memory) {
  const std::vector<Planned> planned = plan(entries, path.string());
  const std::string header = make_header(planned, metadata, path.string());
  uint64_t total = header.size();
  for (const Planned& p : planned) total += p.bytes;

  OutputFile file(path);
  file.reserve(total);
  file.write(header);
  std::vector<std::byte> dense, encoded;
  for (const Planned& p : planned) write_data(file, p, memory, dense, encoded);
  return file.commit();
}

}  // namespace llmz::io
