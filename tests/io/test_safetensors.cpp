#include <cstring>
#include <map>
#include <vector>

#include "catch.h"
#include "llmz/core/random.h"
#include "llmz/io/safetensors.h"
#include "scratch.h"

namespace io = llmz::io;
using io::SafetensorsEntry;
using io::SafetensorsFile;
using llmz::bf16;
using llmz::DType;
using llmz::Shape;
using llmz::Tensor;

namespace {

template <class T>
std::vector<T> noise(size_t count, uint32_t layer) {
  const llmz::RandomStream random(7, llmz::Purpose::test, layer);
  std::vector<T> values(count);
  for (size_t i = 0; i < count; ++i) {
    if constexpr (std::is_integral_v<T>) {
      values[i] = static_cast<T>(random.bits(i));
    } else {
      values[i] = static_cast<T>(random.normal(i));
    }
  }
  return values;
}

template <class T>
Tensor view(std::vector<T>& values, Shape shape) {
  return Tensor(values.data(), llmz::dtype_of<T>::value, shape);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void check_round_trip(const ScratchFolder& folder) {
  std::vector<T> values = noise<T>(13 * 7, 1), back(values.size());
  const auto path = folder / "t.safetensors";
  const io::FileDigest written =
      io::write_safetensors(path, std::vector<SafetensorsEntry>{{"x", view(values, {13, 7})}});
  CHECK(written == io::digest_file(path));
  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.tensors()[0].offset % 64 == 0);
  file.read("x", view(back, {13, 7}));
  CHECK(same_bits(values, back));
}

/// A file made by hand: header text and data.
void put_safetensors(const std::filesystem::path& path, std::string header, std::string_view data) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  put(path, bytes + header + std::string(data));
}

}  // namespace

TEST_CASE("every dtype survives the file bit for bit", "[safetensors]") {
  const ScratchFolder folder;
  check_round_trip<double>(folder);
  check_round_trip<float>(folder);
  check_round_trip<bf16>(folder);
  check_round_trip<int32_t>(folder);
  check_round_trip<uint8_t>(folder);
}

TEST_CASE("the bytes on disk are those of the format", "[safetensors]") {
  const ScratchFolder folder;
  std::vector<float> x = {1, 2, 3, 4, 5, 6};
  std::vector<uint8_t> u = {9};
  io::write_safetensors(folder / "f", std::vector<SafetensorsEntry>{{"u", view(u, {1})}, {"x", view(x, {2, 3}), true}},
                        {{"format", "pt"}});
  const std::string bytes = io::read_text(folder / "f");
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"x":{"dtype":"F32","shape":[3,2],"data_offsets":[0,24]},)"
      R"("u":{"dtype":"U8","shape":[1],"data_offsets":[24,25]}})";
  const size_t length = 192 - 8;  // 151 bytes of JSON, padded so that 8 + length is a multiple of 64
  REQUIRE(bytes.size() == 8 + length + 25);
  CHECK(bytes.substr(0, 8) == std::string({static_cast<char>(length), 0, 0, 0, 0, 0, 0, 0}));
  CHECK(bytes.substr(8, length) == header + std::string(length - header.size(), ' '));
  const float expected[] = {1, 4, 2, 5, 3, 6};
  CHECK(std::memcmp(bytes.data() + 8 + length, expected, 24) == 0);
  CHECK(bytes.back() == 9);
}

TEST_CASE("strided and transposed tensors are written as they are seen", "[safetensors]") {
  const ScratchFolder folder;
  // Larger than one piece, so that pieces meet inside rows and between them.
  const int64_t rows = 1500, cols = 1100;
  std::vector<float> memory = noise<float>(rows * cols, 2);
  const Tensor whole = view(memory, {rows, cols});
  const Tensor part = whole.slice(0, 7, 1400).slice(1, 3, 1001);
  std::vector<float> row = noise<float>(3'000'000, 3);
  io::write_safetensors(folder / "f",
                        std::vector<SafetensorsEntry>{{"part", part},
                                                      {"turned", part, true},
                                                      {"half", part, true, DType::bf16},
                                                      {"row", view(row, {3'000'000}), false, DType::f64}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "f");
  CHECK(file.find("turned")->shape == std::vector<int64_t>{1001, 1400});
  CHECK(file.find("half")->dtype == "BF16");

  std::vector<float> dense(1400 * 1001), turned(dense.size()), back(memory.size(), -1.0f), half(dense.size());
  file.read("part", view(dense, {1400, 1001}));
  file.read("turned", view(turned, {1001, 1400}));
  file.read("half", view(half, {1400, 1001}), true);
  // A transposed file into a strided part of memory: everything around it stays.
  file.read("turned", view(back, {rows, cols}).slice(0, 7, 1400).slice(1, 3, 1001), true);
  int wrong = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const bool inside = r >= 7 && r < 1407 && c >= 3 && c < 1004;
      const float value = memory[r * cols + c];
      wrong += back[r * cols + c] != (inside ? value : -1.0f);
      if (!inside) continue;
      wrong += dense[(r - 7) * 1001 + c - 3] != value;
      wrong += turned[(c - 3) * 1400 + r - 7] != value;
      wrong += half[(r - 7) * 1001 + c - 3] != static_cast<float>(bf16(value));
    }
  }
  CHECK(wrong == 0);
  std::vector<float> row_back(row.size());
  file.read("row", view(row_back, {3'000'000}));
  CHECK(same_bits(row, row_back));
}

TEST_CASE("floating-point types are converted on reading", "[safetensors]") {
  const ScratchFolder folder;
  std::vector<double> d = {1.0, -2.5, 1e-3, 3.14159265358979, 1e300};
  std::vector<float> f = {1.0f, -2.5f, 1e-3f, 3.1415927f, -1e30f};
  std::vector<bf16> b;
  for (const float x : f) b.push_back(bf16(x));
  io::write_safetensors(folder / "f",
                        std::vector<SafetensorsEntry>{{"d", view(d, {5})}, {"f", view(f, {5})}, {"b", view(b, {5})}});
  const SafetensorsFile file = SafetensorsFile::open(folder / "f");
  std::vector<double> as_double(5);
  std::vector<float> as_float(5);
  std::vector<bf16> as_bf16(5);
  file.read("f", view(as_double, {5}));
  for (size_t i = 0; i < 5; ++i) CHECK(as_double[i] == double(f[i]));
  file.read("b", view(as_double, {5}));
  for (size_t i = 0; i < 5; ++i) CHECK(as_double[i] == double(static_cast<float>(b[i])));
  file.read("d", view(as_float, {5}));
  for (size_t i = 0; i < 5; ++i) CHECK(as_float[i] == static_cast<float>(d[i]));
  file.read("f", view(as_bf16, {5}));
  CHECK(same_bits(as_bf16, b));
  file.read("b", view(as_float, {5}));
  for (size_t i = 0; i < 5; ++i) CHECK(as_float[i] == static_cast<float>(b[i]));
}

TEST_CASE("files of other writers are read", "[safetensors]") {
  const ScratchFolder folder;
  // A scalar, a half-precision matrix, types that llmz has not, an empty tensor; no alignment, another key order.
  put_safetensors(folder / "f", R"( {"x":1})", "");
  CHECK_THROWS_WITH(SafetensorsFile::open(folder / "f"), contains("JSON object"));  // begins with '{' by the format
  put_safetensors(folder / "f",
                  R"({"h":{"shape":[1,2],"data_offsets":[4,8],"dtype":"F16"},"s":{"dtype":"F32","shape":[],)"
                  R"("data_offsets":[0,4]},"q":{"dtype":"F4","shape":[2],"data_offsets":[8,9]},)"
                  R"("e":{"dtype":"F32","shape":[0,3],"data_offsets":[9,9]}})",
                  std::string_view("\x00\x00\xc0\x3f\x00\x3c\x00\xc0\x77", 9));
  const SafetensorsFile file = SafetensorsFile::open(folder / "f");
  CHECK(file.metadata().empty());
  REQUIRE(file.tensors().size() == 4);
  CHECK(file.tensors()[0].name == "s");
  std::vector<float> s(1), h(2), e;
  file.read("s", view(s, {1}));
  CHECK(s[0] == 1.5f);
  file.read("h", view(h, {1, 2}));
  CHECK((h[0] == 1.0f && h[1] == -2.0f));
  CHECK_NOTHROW(file.read("e", view(e, {0, 3})));
  std::vector<uint8_t> q(2);
  CHECK_THROWS_WITH(file.read("q", view(q, {2})), contains("F4") && contains("'q'"));
}

TEST_CASE("what does not fit is refused by name", "[safetensors]") {
  const ScratchFolder folder;
  std::vector<float> x(6);
  std::vector<int32_t> i(6);
  const auto path = folder / "f.safetensors";
  const auto write = [&](std::vector<SafetensorsEntry> entries) { io::write_safetensors(path, entries); };
  write({{"x", view(x, {2, 3})}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.find("y") == nullptr);
  CHECK_THROWS_WITH(file.read("y", view(x, {2, 3})), contains("no tensor 'y'") && contains("f.safetensors"));
  CHECK_THROWS_WITH(file.read("x", view(x, {3, 2})), contains("'x'") && contains("[2, 3]") && contains("[3, 2]"));
  CHECK_THROWS_WITH(file.read("x", view(x, {6})), contains("[6]"));
  CHECK_THROWS_WITH(file.read("x", view(x, {2, 3}), true), contains("transposed"));
  CHECK_NOTHROW(file.read("x", view(x, {3, 2}), true));
  CHECK_THROWS_WITH(file.read("x", view(i, {2, 3})), contains("F32") && contains("i32"));

  CHECK_THROWS_WITH(write({{"x", view(x, {6})}, {"x", view(x, {6})}}), contains("two tensors"));
  CHECK_THROWS_WITH(write({{"", view(x, {6})}}), contains("named"));
  CHECK_THROWS_WITH(write({{"__metadata__", view(x, {6})}}), contains("named"));
  CHECK_THROWS_WITH(write({{"x", Tensor()}}), contains("no data"));
  CHECK_THROWS_WITH(write({{"x", Tensor(nullptr, DType::f32, {2}, {llmz::DeviceType::meta, 0})}}), contains("no data"));
  CHECK_THROWS_WITH(write({{"x", view(x, {6}), true}}), contains("transposed"));
  CHECK_THROWS_WITH(write({{"x", view(i, {6}), false, DType::f32}}), contains("i32") && contains("F32"));
  CHECK_THROWS_WITH(write({{"\xff", view(x, {6})}}), contains("UTF-8"));
  // None of these touched the file.
  CHECK(SafetensorsFile::open(path).tensors().size() == 1);
  CHECK(names_in(folder.path()).size() == 1);
}

TEST_CASE("no tensors and no metadata make a file too", "[safetensors]") {
  const ScratchFolder folder;
  io::write_safetensors(folder / "f", {});
  const SafetensorsFile file = SafetensorsFile::open(folder / "f");
  CHECK(file.tensors().empty());
  CHECK(file.metadata().empty());
  io::write_safetensors(folder / "f", {}, {{"note", "quotes \" and \n lines"}, {"format", "pt"}});
  CHECK(SafetensorsFile::open(folder / "f").metadata() ==
        std::map<std::string, std::string>{{"note", "quotes \" and \n lines"}, {"format", "pt"}});
}
