#include <sys/resource.h>

#include <csignal>

#include "data/data_helpers.h"
#include "llmz/data/inspect.h"
#include "llmz/data/prepare.h"

namespace llmz::data {
namespace {

/// Files end at `bytes`, as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : old_handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &old_);
    const rlimit limit{bytes, old_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &old_);
    std::signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit old_{};
  void (*old_handler_)(int);
};

// A sanitizer holds freed memory back, which the test below would count.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
/// Resident memory now, in bytes.
uint64_t resident() {
  std::ifstream file("/proc/self/statm");
  uint64_t pages = 0;
  file >> pages >> pages;
  return pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

TEST_CASE("memory is bounded by the pipeline, not by the corpus") {
  const TestFolder folder;
  constexpr uint64_t kMegabytes = 200;
  {
    std::ofstream file(folder / "long.txt");
    std::string text;
    for (int i = 0; text.size() < (1u << 20); ++i) text += fmt::format("line {} of a long text\n", i);
    for (uint64_t i = 0; i < kMegabytes; ++i) file << text;
  }
  PrepareOptions options;
  options.inputs = {(folder / "long.txt").string()};
  options.out = folder / "out";
  options.threads = 2;
  options.shard_tokens = 50'000'000;
  const uint64_t before = resident();
  uint64_t peak = 0;
  options.progress = [&](const PrepareProgress&) { peak = std::max(peak, resident()); };
  const auto tokenizer = text::load_tokenizer("bytes");
  const Manifest manifest = prepare(options, *tokenizer);
  CHECK(manifest.train.text_bytes > (kMegabytes << 20) * 98 / 100);
  // At most 2·2 + 2 blocks, each 256 KB of text, its copy for the tokenizer and up to 2 MB of ids while their vector
  // grows, and buffers: 20 MB. The rest is room for what an allocator keeps for its threads.
  CHECK(peak - before < uint64_t{64} << 20);

  // Nor does reading the shards bring them into memory.
  const uint64_t at_rest = resident();
  const Inspection seen = inspect(options.out, tokenizer.get());
  CHECK(seen.tokens == manifest.train.tokens + manifest.validation.tokens);
  CHECK(resident() < at_rest + (uint64_t{20} << 20));
}

#endif

TEST_CASE("a full disk is an error and leaves no shard behind") {
  const TestFolder folder;
  std::string text;
  while (text.size() < 3'000'000) text += "some line of text that fills the disk\n";
  PrepareOptions options;
  options.inputs = {write_file(folder / "a.txt", text).string()};
  options.out = folder / "out";
  options.threads = 2;
  const auto tokenizer = text::load_tokenizer("bytes");
  std::string message;
  {
    const FileSizeLimit limit(2'000'000);
    message = error_of([&] { prepare(options, *tokenizer); });
  }
  CHECK(contains(message, "cannot write " + (options.out / "train_000000.llmz.tmp").string()));
  CHECK(contains(message, "File too large"));
  for (const auto& entry : std::filesystem::directory_iterator(options.out)) {
    CHECK(entry.path().filename() == "llmz_tokenizer.json");
  }
  const Manifest manifest = prepare(options, *tokenizer);  // the disk has room again
  CHECK(manifest.train.text_bytes + manifest.validation.text_bytes == text.size());
}

TEST_CASE("a shard writer on a device without room says so") {
  if (!std::filesystem::exists("/dev/full")) {
    WARN("skipped: no /dev/full on this system");
    return;
  }
  const TestFolder folder;
  std::filesystem::create_symlink("/dev/full", folder / "a.llmz.tmp");
  CHECK(contains(error_of([&] { ShardWriter(folder / "a.llmz", 300, 7).finish(); }), "No space left on device"));
  CHECK_FALSE(std::filesystem::exists(folder / "a.llmz"));
}

}  // namespace
}  // namespace llmz::data
