#include <signal.h>
#include <sys/resource.h>

#include <vector>

#include "catch.h"
#include "llmz/core/error.h"
#include "llmz/io/checkpoint.h"
#include "llmz/io/safetensors.h"
#include "scratch.h"

namespace fs = std::filesystem;
namespace io = llmz::io;
using io::SafetensorsEntry;
using llmz::DType;
using llmz::Tensor;
using Names = std::set<std::string>;

namespace {

/// No file of this process may grow beyond `bytes`: the system refuses as it does when a disk is full.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    signal_ = ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    ::signal(SIGXFSZ, signal_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  sighandler_t signal_;
};

void write_checkpoint(const fs::path& path, const std::vector<float>& values, const nlohmann::json& extra) {
  io::CheckpointWriter writer(path);
  const Tensor x(const_cast<float*>(values.data()), DType::f32, {static_cast<int64_t>(values.size())});
  writer.add("x.safetensors",
             io::write_safetensors(writer.path("x.safetensors"), std::vector<SafetensorsEntry>{{"x", x}}));
  io::write_text(writer.path("log.txt"), std::string(values.size(), 'x'));
  writer.add("log.txt");
  writer.commit(extra);
}

}  // namespace

TEST_CASE("a full disk is one clear error and changes nothing", "[disk_full]") {
  const ScratchFolder folder;
  io::write_text(folder / "f", "old");
  std::vector<float> x(100'000);
  {
    const FileSizeLimit limit(50'000);
    const std::vector<SafetensorsEntry> entries = {{"x", Tensor(x.data(), DType::f32, {100'000})}};
    CHECK_THROWS_WITH(io::write_safetensors(folder / "f", entries),
                      contains((folder / "f").string()) && contains("400128 bytes needed") && contains("free") &&
                          contains("nothing was changed"));
    CHECK_THROWS_WITH(io::write_text(folder / "f", std::string(60'000, 'x')), contains("60000 bytes needed"));
    io::OutputFile file(folder / "f");  // not announced: found while writing
    CHECK_THROWS_WITH(file.write(std::string(60'000, 'x')), contains("60000 bytes needed"));
  }
  CHECK(io::read_text(folder / "f") == "old");
  CHECK(names_in(folder.path()) == Names{"f"});
}

TEST_CASE("a full disk at any file of a checkpoint leaves the earlier ones whole", "[disk_full]") {
  const ScratchFolder run;
  const fs::path checkpoints = run / "checkpoints";
  const std::vector<float> small(100), large(5000);
  const nlohmann::json little = {{"step", 1}}, much = {{"step", 2}, {"text", std::string(30'000, 'x')}};
  write_checkpoint(checkpoints / "step_00000001", small, little);
  const auto untouched = [&] {
    CHECK(names_in(checkpoints) == Names{"step_00000001"});
    CHECK(io::latest_checkpoint(run.path(), true) == checkpoints / "step_00000001");
    CHECK(io::open_checkpoint(checkpoints / "step_00000001", true).extra == little);
  };
  for (const char* name : {"step_00000002", "step_00000001"}) {  // a new one, and in the place of the old
    {
      const FileSizeLimit limit(10'000);
      CHECK_THROWS_WITH(write_checkpoint(checkpoints / name, large, little), contains("x.safetensors"));
      CHECK_THROWS_WITH(write_checkpoint(checkpoints / name, small, much), contains("manifest.json"));
    }
    untouched();
    {
      const FileSizeLimit limit(0);
      CHECK_THROWS_WITH(write_checkpoint(checkpoints / name, small, little), contains("x.safetensors"));
    }
    untouched();
  }
  write_checkpoint(checkpoints / "step_00000002", large, much);  // with room again
  CHECK(io::latest_checkpoint(run.path(), true) == checkpoints / "step_00000002");
}
