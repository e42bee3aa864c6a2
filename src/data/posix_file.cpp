#include "src/data/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "llmz/core/error.h"

namespace llmz::data {
namespace fs = std::filesystem;

PosixFile PosixFile::open_for_reading(const fs::path& path) {
  PosixFile file(path, ::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.descriptor_ < 0) file.fail_with_errno("open");
  struct stat status {};
  if (::fstat(file.descriptor_, &status) != 0) file.fail_with_errno("look at");
  check(!S_ISDIR(status.st_mode), "{}: a folder, where a file is needed", path.string());
  return file;
}

PosixFile PosixFile::create(const fs::path& path) {
  PosixFile file(path, ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (file.descriptor_ < 0) file.fail_with_errno("create");
  return file;
}

PosixFile::PosixFile(PosixFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

PosixFile::~PosixFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void PosixFile::fail_with_errno(std::string_view action) const {
  const int reason = errno;
  fail("cannot {} {}: {}", action, path_.string(), std::strerror(reason));
}

size_t PosixFile::read_some(void* to, size_t count) {
  while (true) {
    const ssize_t got = ::read(descriptor_, to, count);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) fail_with_errno("read");
  }
}

void PosixFile::write(const void* from, size_t count) {
  const auto* bytes = static_cast<const unsigned char*>(from);
  while (count > 0) {
    const ssize_t put = ::write(descriptor_, bytes, count);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_with_errno("write");
    bytes += put;
    count -= static_cast<size_t>(put);
  }
}

void PosixFile::write_at(const void* from, size_t count, uint64_t offset) {
  const auto* bytes = static_cast<const unsigned char*>(from);
  while (count > 0) {
    const ssize_t put = ::pwrite(descriptor_, bytes, count, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_with_errno("write");
    bytes += put;
    offset += static_cast<uint64_t>(put);
    count -= static_cast<size_t>(put);
  }
}

void PosixFile::sync() {
  // A pipe or a device such as /dev/null has nothing to sync and says EINVAL.
  if (::fsync(descriptor_) != 0 && errno != EINVAL && errno != ENOTSUP) fail_with_errno("sync");
}

void PosixFile::close() {
  if (descriptor_ < 0) return;
  if (::close(std::exchange(descriptor_, -1)) != 0) fail_with_errno("close");
}

fs::path unfinished_name(const fs::path& path) { return fs::path(path).concat(".tmp"); }

void publish(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int reason = errno;
    fail("cannot rename {} to {}: {}", from.string(), to.string(), std::strerror(reason));
  }
  const fs::path folder = to.has_parent_path() ? to.parent_path() : fs::path(".");
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;  // a folder that may be written but not read: the rename itself stands
  ::fsync(descriptor);
  ::close(descriptor);
}

}  // namespace llmz::data
