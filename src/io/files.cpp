#include "llmz/io/files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>
#include <vector>

#include "llmz/core/error.h"
#include "src/io/paths.h"

namespace llmz::io {
namespace fs = std::filesystem;
namespace {

constexpr size_t kPiece = size_t{1} << 20;

void close_fd(int& fd) {
  if (fd >= 0) ::close(std::exchange(fd, -1));
}

}  // namespace

std::string error_text(int error) { return std::generic_category().message(error); }

fs::path temporary_name(const fs::path& path) {
  return path.string() + std::string(kTemporaryMark) + std::to_string(::getpid());
}

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

void rename_path(const fs::path& from, const fs::path& to) {
  check(::rename(from.c_str(), to.c_str()) == 0, "cannot rename '{}' to '{}': {}", from.string(), to.string(),
        error_text(errno));
}

void Crc32::update(const void* data, size_t bytes) {
  value_ = static_cast<uint32_t>(::crc32_z(value_, static_cast<const Bytef*>(data), bytes));
}

FileDigest digest_file(const fs::path& path) {
  const InputFile file(path);
  std::vector<std::byte> piece(std::min<uint64_t>(kPiece, file.size()));
  Crc32 crc;
  for (uint64_t at = 0; at < file.size(); at += piece.size()) {
    const size_t n = std::min<uint64_t>(piece.size(), file.size() - at);
    file.read(piece.data(), n, at);
    crc.update(piece.data(), n);
  }
  return {file.size(), crc.value()};
}

std::string read_text(const fs::path& path) {
  const InputFile file(path);
  std::string text(file.size(), '\0');
  file.read(text.data(), text.size(), 0);
  return text;
}

void write_text(const fs::path& path, std::string_view content) {
  OutputFile file(path);
  file.reserve(content.size());
  file.write(content);
  file.commit();
}

void make_folder(const fs::path& path) {
  std::error_code error;
  if (path.empty() || fs::is_directory(path, error)) return;
  make_folder(path.parent_path());
  fs::create_directory(path, error);
  std::error_code unknown;
  check(!error && fs::is_directory(path, unknown), "cannot make the folder '{}': {}", path.string(),
        error ? error.message() : "a file of that name is in the way");
  sync_path(parent_of(path));
}

void sync_path(const fs::path& path) {
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  check(fd >= 0, "cannot open '{}': {}", path.string(), error_text(errno));
  const int error = ::fsync(fd) == 0 ? 0 : errno;
  close_fd(fd);
  // Some network filesystems keep folders in step by themselves and refuse to be asked.
  check(error == 0 || error == EINVAL, "cannot bring '{}' to the disk: {}", path.string(), error_text(error));
}

InputFile::InputFile(fs::path path) : path_(std::move(path)) {
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  check(fd_ >= 0, "cannot open '{}': {}", path_.string(), error_text(errno));
  struct stat status {};
  const bool known = ::fstat(fd_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    close_fd(fd_);
    fail("cannot read '{}': {}", path_.string(), S_ISDIR(status.st_mode) ? "it is a folder" : "not a regular file");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() { close_fd(fd_); }

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}

void InputFile::read(void* into, size_t bytes, uint64_t offset) const {
  auto* at = static_cast<std::byte*>(into);
  while (bytes > 0) {
    const ssize_t n = ::pread(fd_, at, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    check(n >= 0, "cannot read '{}' at byte {}: {}", path_.string(), offset, error_text(errno));
    check(n > 0, "'{}' ends at byte {}, {} bytes too early; it was cut short", path_.string(), offset, bytes);
    at += n;
    bytes -= static_cast<size_t>(n);
    offset += static_cast<uint64_t>(n);
  }
}

OutputFile::OutputFile(fs::path path) : path_(std::move(path)), aside_(temporary_name(path_)) {
  fd_ = ::open(aside_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail_write(errno);
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  close_fd(fd_);
  ::unlink(aside_.c_str());
}

void OutputFile::fail_write(int error) const {
  std::string room;
  struct statvfs disk {};
  if (needed_ > 0 && ::statvfs(parent_of(path_).c_str(), &disk) == 0) {
    room = fmt::format(" ({} bytes needed, {} free)", needed_, static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize);
  }
  fail("cannot write '{}': {}{}; nothing was changed", path_.string(), error_text(error), room);
}

void OutputFile::reserve(uint64_t bytes) {
  needed_ = std::max(needed_, bytes);
  if (bytes == 0 || ::fallocate(fd_, 0, 0, static_cast<off_t>(bytes)) == 0) return;
  if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT)
    fail_write(errno);  // else: it cannot reserve, writes will tell
}

void OutputFile::write(const void* data, size_t bytes) {
  const auto* at = static_cast<const std::byte*>(data);
  needed_ = std::max<uint64_t>(needed_, written_ + bytes);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, at, std::min(bytes, kPiece));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail_write(n < 0 ? errno : ENOSPC);
    crc_.update(at, static_cast<size_t>(n));  // while the piece is still in the cache
    at += n;
    bytes -= static_cast<size_t>(n);
    written_ += static_cast<uint64_t>(n);
  }
}

FileDigest OutputFile::commit() {
  // What was reserved beyond the last byte written would otherwise stay, as zeros.
  if (::ftruncate(fd_, static_cast<off_t>(written_)) != 0 || ::fsync(fd_) != 0) fail_write(errno);
  if (::rename(aside_.c_str(), path_.c_str()) != 0) fail_write(errno);
  close_fd(fd_);
  sync_path(parent_of(path_));
  return {written_, crc_.value()};
}

std::optional<FolderLock> FolderLock::try_acquire(const fs::path& folder) {
  int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  check(fd >= 0, "cannot open the folder '{}': {}", folder.string(), error_text(errno));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    close_fd(fd);
    return std::nullopt;
  }
  return FolderLock(fd);
}

FolderLock::~FolderLock() { close_fd(fd_); }

FolderLock::FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

}  // namespace llmz::io
