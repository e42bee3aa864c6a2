#include <algorithm>
#include <array>
#include <bit>

#include "llmz/core/transfer.h"
#include "llmz/io/safetensors.h"
#include "src/io/convert.h"
#include "src/io/pieces.h"

namespace llmz::io {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's own limit

/// Bytes an element of every whole-byte type of the format; 0 for a type that is not known.
uint64_t element_bytes(std::string_view dtype) {
  struct Row {
    std::string_view name;
    uint64_t bytes;
  };
  static constexpr std::array<Row, 18> kRows = {{{"BOOL", 1},
                                                 {"U8", 1},
                                                 {"I8", 1},
                                                 {"F8_E5M2", 1},
                                                 {"F8_E4M3", 1},
                                                 {"F8_E8M0", 1},
                                                 {"I16", 2},
                                                 {"U16", 2},
                                                 {"F16", 2},
                                                 {"BF16", 2},
                                                 {"I32", 4},
                                                 {"U32", 4},
                                                 {"F32", 4},
                                                 {"I64", 8},
                                                 {"U64", 8},
                                                 {"F64", 8},
                                                 {"C64", 8},
                                                 {"C128", 16}}};
  for (const Row& row : kRows) {
    if (row.name == dtype) return row.bytes;
  }
  return 0;
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t d : shape) text += (text.empty() ? "" : ", ") + std::to_string(d);
  return "[" + text + "]";
}

bool same_shape(const std::vector<int64_t>& file, const Shape& memory) {
  if (file.empty()) return memory == Shape{1};
  bool same = static_cast<int>(file.size()) == memory.rank();
  for (int d = 0; same && d < memory.rank(); ++d) same = file[static_cast<size_t>(d)] == memory[d];
  return same;
}

bool is_count(const nlohmann::json& value) {
  return value.is_number_unsigned() && value.get<uint64_t>() <= static_cast<uint64_t>(INT64_MAX);
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile file{InputFile(path)};
  file.parse();
  return file;
}

void SafetensorsFile::parse() {
  const std::string where = path().string();
  check(file_.size() >= 8, "'{}' is not a safetensors file: it has {} bytes", where, file_.size());
  uint64_t length = 0;
  file_.read(&length, sizeof length, 0);
  check(length >= 2 && length <= kMaxHeader, "'{}' is not a safetensors file: its header would have {} bytes", where,
        length);
  check(length <= file_.size() - 8, "'{}' is truncated: its header has {} bytes, the file {}", where, length,
        file_.size());
  std::string text(length, '\0');
  file_.read(text.data(), length, 8);
  check(text.front() == '{', "'{}' is not a safetensors file: its header is not a JSON object", where);
  const nlohmann::json header = parse_json(text, fmt::format("'{}', header", where));

  for (const auto& [name, fields] : header.items()) {
    if (name != "__metadata__") {
      add_tensor(name, fields, 8 + length);
      continue;
    }
    check(fields.is_object(), "'{}': its metadata is not an object", where);
    for (const auto& [key, value] : fields.items()) {
      check(value.is_string(), "'{}': its metadata '{}' is not a string", where, key);
      metadata_[key] = value.get<std::string>();
    }
  }
  std::stable_sort(tensors_.begin(), tensors_.end(), [](const SafetensorsTensor& a, const SafetensorsTensor& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  for (size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
  check_layout(8 + length);
}

void SafetensorsFile::add_tensor(const std::string& name, const nlohmann::json& fields, uint64_t data_begin) {
  const auto require = [&](bool ok, std::string_view what) {
    check(ok, "'{}': tensor '{}' {}", path().string(), name, what);
  };
  require(fields.is_object() && fields.contains("dtype") && fields.contains("shape") && fields.contains("data_offsets"),
          "lacks dtype, shape or data_offsets");
  const auto& dtype = fields["dtype"];
  const auto& shape = fields["shape"];
  const auto& offsets = fields["data_offsets"];
  require(dtype.is_string(), "has a dtype that is not a string");
  require(shape.is_array() && std::all_of(shape.begin(), shape.end(), is_count),
          "has a shape that is no list of sizes");
  require(offsets.is_array() && offsets.size() == 2 && is_count(offsets[0]) && is_count(offsets[1]),
          "has data_offsets that are no pair of offsets");

  const uint64_t begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  require(begin <= end, "ends before it begins");
  require(end <= file_.size() - data_begin, "lies past the end of the file; the file is truncated");
  SafetensorsTensor tensor{name, dtype.get<std::string>(), shape.get<std::vector<int64_t>>(), data_begin + begin,
                           end - begin};
  if (uint64_t bytes = element_bytes(tensor.dtype); bytes > 0) {
    for (const int64_t d : tensor.shape) {
      require(!__builtin_mul_overflow(bytes, static_cast<uint64_t>(d), &bytes), "is larger than any file");
    }
    require(bytes == tensor.bytes, fmt::format("of type {} and shape {} needs {} bytes, not {}", tensor.dtype,
                                               shape_text(tensor.shape), bytes, tensor.bytes));
  }
  tensors_.push_back(std::move(tensor));
}

void SafetensorsFile::check_layout(uint64_t data_begin) const {
  uint64_t at = data_begin;
  for (const SafetensorsTensor& t : tensors_) {
    check(t.offset == at, "'{}': tensor '{}' {}", path().string(), t.name,
          t.offset < at ? "overlaps another" : "leaves a gap before it");
    at += t.bytes;
  }
  check(at == file_.size(), "'{}' has {} bytes, but its tensors end at byte {}", path().string(), file_.size(), at);
}

const SafetensorsTensor* SafetensorsFile::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

void SafetensorsFile::read(std::string_view name, const Tensor& into, bool transpose, Memory* memory) const {
  const std::string where = path().string();
  const SafetensorsTensor* tensor = find(name);
  check(tensor != nullptr, "'{}' has no tensor '{}'", where, name);
  check(!into.is_meta() && (into.data != nullptr || into.numel() == 0), "'{}': there is no memory for tensor '{}'",
        where, name);
  check(!transpose || into.rank() == 2, "'{}': tensor '{}' cannot be read transposed into {}", where, name,
        into.shape.str());
  HostMirror mirror(memory, into);
  const Tensor view = transpose ? transposed(mirror.tensor()) : mirror.tensor();
  check(same_shape(tensor->shape, view.shape), "'{}': tensor '{}' has shape {}, but {} is wanted{}", where, name,
        shape_text(tensor->shape), view.shape.str(), transpose ? " (transposed)" : "");
  const auto type = file_dtype_from_name(tensor->dtype);
  check(type && convertible(*type, into.dtype), "'{}': tensor '{}' of type {} cannot be read as {}", where, name,
        tensor->dtype, dtype_name(into.dtype));

  if (file_dtype_of(into.dtype) == *type && view.contiguous()) {
    file_.read(view.data, tensor->bytes, tensor->offset);
    return mirror.upload();
  }
  const size_t file_width = file_dtype_bytes(*type), width = dtype_bytes(into.dtype);
  std::vector<std::byte> encoded, dense;
  uint64_t offset = tensor->offset;
  for_each_piece(view.shape, kPieceBytes / static_cast<int64_t>(width), [&](const Piece& piece) {
    const auto count = static_cast<size_t>(piece.numel());
    encoded.resize(count * file_width);
    dense.resize(count * width);
    file_.read(encoded.data(), encoded.size(), offset);
    decode(*type, encoded.data(), into.dtype, dense.data(), count);
    scatter(dense.data(), view, piece);
    offset += encoded.size();
  });
  mirror.upload();
}

}  // namespace llmz::io
