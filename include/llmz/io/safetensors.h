#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/core/memory.h"
#include "llmz/io/files.h"

namespace llmz::io {

/// The safetensors format of Hugging Face: the header's length as 8 little-endian bytes, a JSON header that gives each
/// tensor's dtype, shape and place, then the data, row-major and without gaps.

/// A tensor to write.
struct SafetensorsEntry {
  std::string name;
  Tensor tensor;                        ///< in CPU memory with any strides, or contiguous on a GPU
  bool transpose = false;               ///< a matrix [m,n] is stored as [n,m]
  std::optional<DType> stored_as = {};  ///< another floating-point type on disk, rounded to nearest
  /// Where `tensor` has no data yet: called once, right before it is written, for a tensor of the same shape and type.
  std::function<Tensor()> fetch = {};
};

/// The entries in the order in which `write_safetensors` writes and fetches them.
std::vector<const SafetensorsEntry*> in_file_order(std::span<const SafetensorsEntry> entries);

/// Writes a file whole or not at all, with memory for one piece of a few MiB. The data begins at a multiple of 64
/// bytes and wider types come first, so that every tensor is aligned; the order of entries of one width is kept.
/// Programs of the Hugging Face family want the metadata {"format": "pt"} in a model's weights.
/// Throws Error when a name is empty or stands twice, a tensor is absent or has no data here, or the disk is full; what
/// stood at `path` before is then still there. `memory` is that of tensors on a GPU.
FileDigest write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> entries,
                             const std::map<std::string, std::string>& metadata = {}, Memory* memory = nullptr);

/// A tensor as the header describes it.
struct SafetensorsTensor {
  std::string name;
  std::string dtype;           ///< as in the file, e.g. "BF16"; types unknown to llmz are listed all the same
  std::vector<int64_t> shape;  ///< empty for a scalar
  uint64_t offset = 0;         ///< from the start of the file
  uint64_t bytes = 0;
};

/// An open file, its header read and found sound: it fits its length, every tensor lies inside, they neither overlap
/// nor leave gaps, and their sizes are those of their shapes. Reading is safe from several threads.
class SafetensorsFile {
 public:
  /// Throws Error that names the file and what is wrong with it.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// In the order of their data.
  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }
  /// Null when there is none of that name.
  const SafetensorsTensor* find(std::string_view name) const;

  /// Overwrites `into`, in CPU memory with any strides, or contiguous on the GPU of `memory`. `transpose`: the file's
  /// [n,m] becomes [m,n] here. F64, F32, BF16 and F16 are converted to the tensor's floating-point type, rounded to
  /// nearest (F64 to bf16 by way of fp32). A scalar is read into [1]. Throws Error naming file and tensor when it is
  /// missing or shape or type do not fit.
  void read(std::string_view name, const Tensor& into, bool transpose = false, Memory* memory = nullptr) const;

 private:
  explicit SafetensorsFile(InputFile file) : file_(std::move(file)) {}
  void parse();
  void add_tensor(const std::string& name, const nlohmann::json& fields, uint64_t data_begin);
  void check_layout(uint64_t data_begin) const;

  InputFile file_;
  std::map<std::string, std::string> metadata_;
  std::vector<SafetensorsTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace llmz::io
