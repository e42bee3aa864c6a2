#include <algorithm>
#include <cstring>
#include <vector>

#include "catch.h"
#include "llmz/core/random.h"
#include "llmz/io/safetensors.h"
#include "scratch.h"

namespace io = llmz::io;
using io::SafetensorsEntry;
using io::SafetensorsFile;
using llmz::DType;
using llmz::Tensor;

namespace {

std::string with_length(std::string_view header, std::string_view data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes.append(header).append(data);
}

/// Opens the file and reads every tensor that it claims to hold. True when it was found sound.
bool open_and_read(const std::filesystem::path& path) {
  try {
    const SafetensorsFile file = SafetensorsFile::open(path);
    for (const io::SafetensorsTensor& t : file.tensors()) {
      std::vector<float> into(t.bytes);  // at most 8 bytes of a double become 4 of a float
      if (t.shape.size() == 1 && t.shape[0] <= static_cast<int64_t>(into.size())) {
        try {
          file.read(t.name, Tensor(into.data(), DType::f32, {t.shape[0]}));
        } catch (const llmz::Error&) {  // a type that is no floating-point type
        }
      }
    }
    return true;
  } catch (const llmz::Error&) {
    return false;
  }
}

std::string sound_file(const std::filesystem::path& path) {
  std::vector<float> x(64, 1.5f);
  std::vector<uint8_t> u(37, 3);
  io::write_safetensors(path,
                        std::vector<SafetensorsEntry>{{"x", Tensor(x.data(), DType::f32, {64})},
                                                      {"m", Tensor(x.data(), DType::f32, {8, 8})},
                                                      {"u", Tensor(u.data(), DType::u8, {37})}},
                        {{"format", "pt"}});
  return io::read_text(path);
}

}  // namespace

TEST_CASE("headers that lie are refused", "[safetensors]") {
  const ScratchFolder folder(true);
  const auto refused = [&](std::string_view bytes) {
    put(folder / "bad", bytes);
    std::string message = "accepted";
    try {
      SafetensorsFile::open(folder / "bad");
    } catch (const llmz::Error& e) {
      message = e.what();
      CHECK_THAT(message, contains("bad") && !contains("\n"));
    }
    return message;
  };
  const auto header = [&](std::string_view tensors, size_t data_bytes) {
    return refused(with_length(tensors, std::string(data_bytes, '\0')));
  };
  const std::string sound = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  CHECK(header(sound, 8) == "accepted");

  CHECK_THAT(refused(""), contains("0 bytes"));
  CHECK_THAT(refused("1234567"), contains("7 bytes"));
  CHECK_THAT(refused(std::string(8, '\xff')), contains("18446744073709551615 bytes"));
  CHECK_THAT(refused(std::string(16, '\0')), contains("not a safetensors file"));
  CHECK_THAT(refused(with_length(sound, "").substr(0, 40)), contains("truncated"));
  CHECK_THAT(header("[]", 0), contains("JSON object"));
  CHECK_THAT(header("{\"x\":", 0), contains("header:1:6"));
  CHECK_THAT(header(R"({"x":1})", 0), contains("'x'") && contains("lacks"));
  CHECK_THAT(header(R"({"__metadata__":{"a":1}})", 0), contains("not a string"));
  CHECK_THAT(header(R"({"__metadata__":[]})", 0), contains("not an object"));

  const auto tensor = [&](std::string_view dtype, std::string_view shape, std::string_view offsets, size_t bytes) {
    return header(fmt::format(R"({{"x":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets), bytes);
  };
  CHECK_THAT(tensor("4", "[2]", "[0,8]", 8), contains("dtype"));
  CHECK_THAT(tensor("\"F32\"", "2", "[0,8]", 8), contains("shape"));
  CHECK_THAT(tensor("\"F32\"", "[-2]", "[0,8]", 8), contains("shape"));
  CHECK_THAT(tensor("\"F32\"", "[2.0]", "[0,8]", 8), contains("shape"));
  CHECK_THAT(tensor("\"F32\"", "[3]", "[0,8]", 8), contains("12 bytes, not 8"));
  CHECK_THAT(tensor("\"F32\"", "[9223372036854775807,4]", "[0,8]", 8), contains("larger than any file"));
  CHECK_THAT(tensor("\"F32\"", "[2]", "[0,8,9]", 8), contains("data_offsets"));
  CHECK_THAT(tensor("\"F32\"", "[2]", "[0,-8]", 8), contains("data_offsets"));
  CHECK_THAT(tensor("\"F32\"", "[2]", "[8,0]", 8), contains("before it begins"));
  CHECK_THAT(tensor("\"F32\"", "[2]", "[0,8]", 7), contains("truncated"));
  CHECK_THAT(tensor("\"F32\"", "[2]", "[0,8]", 9), contains("end at byte"));
  CHECK_THAT(tensor("\"F32\"", "[2]", "[4,12]", 12), contains("gap"));

  const std::string two = R"({{"x":{{"dtype":"U8","shape":[2],"data_offsets":[0,2]}},)"
                          R"("{}":{{"dtype":"U8","shape":[2],"data_offsets":[{},{}]}}}})";
  CHECK(header(fmt::format(fmt::runtime(two), "y", 2, 4), 4) == "accepted");
  CHECK_THAT(header(fmt::format(fmt::runtime(two), "y", 1, 3), 3), contains("overlaps"));
  CHECK_THAT(header(fmt::format(fmt::runtime(two), "x", 2, 4), 4), contains("twice"));
}

TEST_CASE("a truncated file is always an error", "[safetensors][fuzz]") {
  const ScratchFolder folder(true);
  const std::string sound = sound_file(folder / "f");
  int accepted = 0;
  for (size_t size = 0; size < sound.size(); ++size) {
    put(folder / "f", std::string_view(sound).substr(0, size));
    accepted += open_and_read(folder / "f");
  }
  CHECK(accepted == 0);
  put(folder / "f", sound);
  CHECK(open_and_read(folder / "f"));
}

TEST_CASE("flipped bits and overwritten bytes give an error or a sound file, never a crash", "[safetensors][fuzz]") {
  const ScratchFolder folder(true);
  const std::string sound = sound_file(folder / "f");
  const size_t header_end = sound.rfind('}') + 1;
  const llmz::RandomStream random(11, llmz::Purpose::test);
  int refused = 0, accepted = 0;
  const auto attempt = [&](const std::string& bytes) {
    put(folder / "f", bytes);
    (open_and_read(folder / "f") ? accepted : refused) += 1;
  };
  for (size_t bit = 0; bit < header_end * 8; ++bit) {  // every single bit of the header
    std::string bytes = sound;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    attempt(bytes);
  }
  const std::string_view likely = "{}[]\":,0123456789-eE.\\u nulltrue";
  for (uint64_t i = 0; i < 5000; ++i) {  // several bytes, of those that JSON is made of
    std::string bytes = sound;
    for (uint64_t k = 0; k <= random.below(40 * i, 4); ++k) {
      const uint64_t draw = 40 * i + 8 * k + 8;
      bytes[8 + random.below(draw, header_end - 8)] = likely[random.below(draw + 4, likely.size())];
    }
    attempt(bytes);
  }
  // Both happen: most damage is seen, a changed name or metadata cannot be.
  CHECK(refused > 3000);
  CHECK(accepted > 50);
}
