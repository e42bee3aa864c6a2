#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <sstream>
#include <vector>

#include "catch.h"
#include "llmz/core/error.h"
#include "llmz/io/checkpoint.h"
#include "scratch.h"
#include "src/io/checkpoint_folder.h"

namespace fs = std::filesystem;
namespace io = llmz::io;
using Names = std::set<std::string>;

namespace {

void write_checkpoint(const fs::path& path, std::string_view content, const nlohmann::json& extra = {{"step", 1}}) {
  io::CheckpointWriter writer(path);
  io::write_text(writer.path("a.bin"), content);
  writer.add("a.bin");
  io::write_json(writer.path("config.json"), {{"hidden", 8}});
  writer.add("config.json", io::digest_file(writer.path("config.json")));
  writer.commit(extra);
}

/// Collects what is logged while it lives.
class LogCapture {
 public:
  LogCapture() : before_(spdlog::default_logger()) {
    spdlog::set_default_logger(
        std::make_shared<spdlog::logger>("test", std::make_shared<spdlog::sinks::ostream_sink_mt>(text_)));
  }
  ~LogCapture() { spdlog::set_default_logger(before_); }
  LogCapture(const LogCapture&) = delete;
  LogCapture& operator=(const LogCapture&) = delete;
  std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::shared_ptr<spdlog::logger> before_;
};

}  // namespace

TEST_CASE("a checkpoint is found as it was committed", "[checkpoint]") {
  const ScratchFolder run;
  const fs::path path = run / "checkpoints/step_00000010";
  write_checkpoint(path, "weights", {{"step", 10}, {"loss", 0.1}, {"note", "naïve"}});
  const io::CheckpointInfo info = io::open_checkpoint(path, true);
  CHECK(info.extra["step"] == 10);
  CHECK(info.extra["loss"] == 0.1);
  REQUIRE(info.files.size() == 2);
  CHECK(info.files[0].name == "a.bin");
  CHECK(info.files[0].digest == io::digest_file(path / "a.bin"));
  CHECK(names_in(run / "checkpoints") == Names{"step_00000010"});
  CHECK(names_in(path) == Names{"a.bin", "config.json", "manifest.json"});
}

TEST_CASE("a writer that is dropped leaves nothing", "[checkpoint]") {
  const ScratchFolder run;
  {
    io::CheckpointWriter writer(run / "checkpoints/step_00000010");
    io::write_text(writer.path("a"), "x");
    writer.add("a");
    CHECK(names_in(run / "checkpoints").size() == 1);
  }
  CHECK(names_in(run / "checkpoints").empty());
}

TEST_CASE("a checkpoint replaces an older one of its name", "[checkpoint]") {
  const ScratchFolder run;
  const fs::path path = run / "best/";  // a trailing slash changes nothing
  write_checkpoint(path, "old");
  write_checkpoint(path, "new", {{"step", 2}});
  CHECK(io::open_checkpoint(path, true).extra["step"] == 2);
  CHECK(io::read_text(run / "best/a.bin") == "new");
  CHECK(names_in(run.path()) == Names{"best"});
}

TEST_CASE("without an atomic swap the old checkpoint steps aside", "[checkpoint]") {
  const ScratchFolder run;
  write_checkpoint(run / "old", "old");
  write_checkpoint(run / "new", "new");
  write_checkpoint(run / "old.replaced", "older still");
  io::replace_folder(run / "new", run / "old", false);
  CHECK(io::read_text(run / "old/a.bin") == "new");
  CHECK(names_in(run.path()) == Names{"old"});
}

TEST_CASE("a folder that is no checkpoint is not deleted", "[checkpoint]") {
  const ScratchFolder run;
  fs::create_directory(run / "out");
  put(run / "out/thesis.tex", "years of work");
  const LogCapture log;
  write_checkpoint(run / "out", "x");
  CHECK(io::read_text(run / "out.unfinished-1/thesis.tex") == "years of work");
  CHECK_THAT(log.text(), contains("out.unfinished-1"));
  CHECK_NOTHROW(io::open_checkpoint(run / "out", true));
}

TEST_CASE("files and manifest must agree when committing", "[checkpoint]") {
  const ScratchFolder run;
  io::CheckpointWriter writer(run / "c");
  CHECK_THROWS_WITH(writer.path("a/b"), contains("plain"));
  CHECK_THROWS_WITH(writer.path(".."), contains("plain"));
  io::write_text(writer.path("a"), "x");
  CHECK_THROWS_WITH(writer.commit(), contains("'a'") && contains("not added"));
  writer.add("a");
  CHECK_THROWS_WITH(writer.add("a"), contains("twice"));
  CHECK_THROWS_AS(writer.add("none"), llmz::Error);
  CHECK_THROWS_WITH(writer.commit({1, 2}), contains("object"));
  writer.add("told", {1, 2});
  CHECK_THROWS_WITH(writer.commit(), contains("2 files were added, 1 are there"));
  CHECK_FALSE(fs::exists(run / "c"));
}

TEST_CASE("what is not a finished checkpoint is refused", "[checkpoint]") {
  const ScratchFolder run;
  CHECK_THROWS_WITH(io::open_checkpoint(run / "none", false), contains("no checkpoint"));
  put(run / "file", "x");
  CHECK_THROWS_WITH(io::open_checkpoint(run / "file", false), contains("folder"));
  fs::create_directory(run / "empty");
  CHECK_THROWS_WITH(io::open_checkpoint(run / "empty", false), contains("not a finished checkpoint"));
}

TEST_CASE("tampering shows", "[checkpoint]") {
  const ScratchFolder run(true);
  const fs::path path = run / "c";
  write_checkpoint(path, "weights");
  const std::string manifest = io::read_text(path / "manifest.json");
  const auto replaced = [&](std::string_view from, std::string_view to) {
    std::string text = manifest;
    text.replace(text.find(from), from.size(), to);
    put(path / "manifest.json", text);
  };
  const auto open = [&] { io::open_checkpoint(path, false); };

  SECTION("a file shorter, gone, or changed") {
    put(path / "a.bin", "weight");
    CHECK_THROWS_WITH(open(), contains("'a.bin' has 6 bytes, not 7"));
    put(path / "a.bin", "Weights");
    CHECK_NOTHROW(open());  // sizes alone cannot tell
    CHECK_THROWS_WITH(io::open_checkpoint(path, true), contains("checksum") && contains("'a.bin'"));
    fs::remove(path / "a.bin");
    CHECK_THROWS_WITH(open(), contains("'a.bin'") && contains("No such file"));
  }
  SECTION("another version") {
    replaced("\"version\": 1", "\"version\": 2");
    CHECK_THROWS_WITH(open(), contains("version is 2"));
  }
  SECTION("another step") {
    replaced("\"step\": 1", "\"step\": 9");
    CHECK_THROWS_WITH(open(), contains("damaged"));
  }
  SECTION("a name that leads out of the folder") {
    replaced("a.bin", "../a.bin");
    CHECK_THROWS_AS(open(), llmz::Error);
  }
  SECTION("another program's") {
    put(path / "manifest.json", "{}");
    CHECK_THROWS_WITH(open(), contains("not one of llmz"));
    put(path / "manifest.json", "[]");
    CHECK_THROWS_WITH(open(), contains("not one of llmz"));
  }
  SECTION("truncated anywhere") {
    int accepted = 0;
    for (size_t size = 0; size + 2 < manifest.size(); ++size) {  // the last two bytes: '}' and a newline
      put(path / "manifest.json", std::string_view(manifest).substr(0, size));
      try {
        open();
        ++accepted;
      } catch (const llmz::Error& e) {
        CHECK_THAT(e.what(), contains("not a finished checkpoint"));
      }
    }
    CHECK(accepted == 0);
  }
  SECTION("any bit of the manifest") {
    int accepted = 0;
    for (size_t bit = 0; bit < manifest.size() * 8; ++bit) {
      std::string text = manifest;
      text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
      put(path / "manifest.json", text);
      try {
        const io::CheckpointInfo info = io::open_checkpoint(path, true);
        CHECK(info.extra == nlohmann::json{{"step", 1}});  // white space may change, meaning may not
        ++accepted;
      } catch (const llmz::Error&) {
      }
    }
    CHECK(accepted < 20 * 8);
  }
}

TEST_CASE("steps have names, and other names have no step", "[checkpoint]") {
  CHECK(io::checkpoint_name(1234) == "step_00001234");
  CHECK(io::checkpoint_name(123456789012) == "step_123456789012");
  for (const int64_t step : {int64_t{0}, int64_t{7}, int64_t{99999999}, int64_t{100000000}}) {
    CHECK(io::checkpoint_step(io::checkpoint_name(step)) == step);
  }
  for (const char* name : {"step_", "step_12", "step_-0000001", "step_00000001x", "step_000000001", "last",
                           "step_00000001.tmp-1", "step_99999999999999999999"}) {
    CAPTURE(name);
    CHECK_FALSE(io::checkpoint_step(name));
  }
  CHECK_THROWS_AS(io::checkpoint_name(-1), llmz::Error);
}

TEST_CASE("the latest checkpoint is the newest finished one", "[checkpoint]") {
  const ScratchFolder run;
  CHECK_FALSE(io::latest_checkpoint(run.path()));
  const fs::path checkpoints = run / "checkpoints";
  write_checkpoint(checkpoints / "step_99999999", "a");
  write_checkpoint(checkpoints / "step_100000000", "b");  // by number, not by name
  CHECK(io::latest_checkpoint(run.path()) == checkpoints / "step_100000000");

  const LogCapture log;
  fs::create_directory(checkpoints / "step_200000000");
  write_checkpoint(checkpoints / "step_150000000", "c");
  put(checkpoints / "step_150000000/a.bin", "cc");
  write_checkpoint(checkpoints / "step_140000000", "c");
  put(checkpoints / "step_140000000/a.bin", "d");
  fs::create_directory(checkpoints / "step_300000000.tmp-12");
  write_checkpoint(checkpoints / "other", "x");
  CHECK(io::latest_checkpoint(run.path()) == checkpoints / "step_140000000");
  CHECK(io::latest_checkpoint(run.path(), true) == checkpoints / "step_100000000");
  CHECK_THAT(log.text(), contains("step_200000000") && contains("step_150000000") && contains("step_140000000"));
}

TEST_CASE("a replacement that was cut short is found and settled", "[checkpoint]") {
  const ScratchFolder run;
  const fs::path checkpoints = run / "checkpoints";
  write_checkpoint(checkpoints / "step_00000002.replaced", "old");
  CHECK(io::latest_checkpoint(run.path()) == checkpoints / "step_00000002.replaced");
  write_checkpoint(checkpoints / "step_00000001", "one");
  write_checkpoint(checkpoints / "step_00000001.replaced", "older one");
  io::clean_leftovers(checkpoints);
  CHECK(io::read_text(checkpoints / "step_00000001/a.bin") == "one");
  CHECK(io::read_text(checkpoints / "step_00000002/a.bin") == "old");
  CHECK(names_in(checkpoints) == Names{"step_00000001", "step_00000002"});
}

TEST_CASE("leftovers go, what is being written stays", "[checkpoint]") {
  const ScratchFolder run;
  const fs::path checkpoints = run / "checkpoints";
  io::clean_leftovers(checkpoints);  // nothing there yet
  fs::create_directories(checkpoints / "step_00000001.tmp-4194305/below");
  put(checkpoints / "step_00000001.tmp-4194305/below/a", "x");
  put(checkpoints / "notes.txt", "mine");
  fs::create_symlink("gone", checkpoints / "last.tmp-4194305");
  io::CheckpointWriter writer(checkpoints / "step_00000002");
  io::write_text(writer.path("a"), "x");
  writer.add("a");
  io::clean_leftovers(checkpoints);
  CHECK(names_in(checkpoints).size() == 2);
  writer.commit();
  CHECK(names_in(checkpoints) == Names{"notes.txt", "step_00000002"});
}

TEST_CASE("links are replaced and name a folder beside them", "[checkpoint]") {
  const ScratchFolder run;
  const fs::path checkpoints = run / "checkpoints";
  write_checkpoint(checkpoints / "step_00000001", "one", {{"step", 1}});
  write_checkpoint(checkpoints / "step_00000002", "two", {{"step", 2}});
  io::set_link(checkpoints, "last", checkpoints / "step_00000001");
  io::set_link(checkpoints, "last", "step_00000002/");
  CHECK(fs::read_symlink(checkpoints / "last") == "step_00000002");
  CHECK(io::open_checkpoint(checkpoints / "last", true).extra["step"] == 2);
  // The run folder may move.
  fs::rename(checkpoints, run / "elsewhere");
  CHECK(io::open_checkpoint(run / "elsewhere/last", true).extra["step"] == 2);
  CHECK_THROWS_WITH(io::set_link(run / "elsewhere", "last", "step_00000009"), contains("step_00000009"));
  CHECK_THROWS_WITH(io::set_link(run / "elsewhere", "step_00000001", "step_00000002"), contains("rename"));
  CHECK(names_in(run / "elsewhere") == Names{"last", "step_00000001", "step_00000002"});
}

TEST_CASE("prune keeps what was asked for, what is linked, and the latest", "[checkpoint]") {
  const ScratchFolder run;
  const fs::path checkpoints = run / "checkpoints";
  for (int step = 1; step <= 6; ++step) write_checkpoint(checkpoints / io::checkpoint_name(step), "x");
  put(checkpoints / "notes.txt", "mine");
  io::set_link(checkpoints, "best", checkpoints / "step_00000002");
  fs::remove(checkpoints / "step_00000006/a.bin");  // broken: 5 is the latest that can be resumed from
  const LogCapture log;
  io::prune(checkpoints, std::vector<fs::path>{checkpoints / "step_00000003"});
  CHECK(names_in(checkpoints) == Names{"best", "notes.txt", "step_00000002", "step_00000003", "step_00000005"});
  io::prune(checkpoints, {});
  CHECK(names_in(checkpoints) == Names{"best", "notes.txt", "step_00000002", "step_00000005"});
  CHECK(io::open_checkpoint(checkpoints / "best", true).files.size() == 2);
}
