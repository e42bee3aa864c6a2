#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "catch.h"
#include "src/io/convert.h"
#include "src/io/pieces.h"

namespace io = llmz::io;
using io::FileDType;
using llmz::DType;
using llmz::Shape;
using llmz::Tensor;

namespace {

/// The tensor's elements in row-major order, by the definition of strides.
std::vector<int32_t> naive_dense(const Tensor& t) {
  std::vector<int32_t> dense;
  for (int64_t i = 0; i < t.numel(); ++i) {
    int64_t rest = i, offset = 0;
    for (int d = t.rank() - 1; d >= 0; --d) {
      offset += rest % t.dim(d) * t.stride(d);
      rest /= t.dim(d);
    }
    dense.push_back(t.as<int32_t>()[offset]);
  }
  return dense;
}

void check_there_and_back(std::vector<int32_t>& memory, const Tensor& t, int64_t max_elements) {
  std::iota(memory.begin(), memory.end(), 1);
  const std::vector<int32_t> expected = naive_dense(t);
  std::vector<int32_t> dense;
  std::vector<io::Piece> pieces;
  io::for_each_piece(t.shape, max_elements, [&](const io::Piece& piece) {
    pieces.push_back(piece);
    const size_t at = dense.size();
    dense.resize(at + static_cast<size_t>(piece.numel()));
    io::gather(t, piece, reinterpret_cast<std::byte*>(dense.data() + at));
  });
  CHECK(dense == expected);

  const std::vector<int32_t> before = memory;
  for (const io::Piece& piece : pieces) {
    std::vector<int32_t> zeros(static_cast<size_t>(piece.numel()));
    io::scatter(reinterpret_cast<const std::byte*>(zeros.data()), t, piece);
  }
  CHECK(naive_dense(t) == std::vector<int32_t>(expected.size(), 0));
  CHECK(std::count(memory.begin(), memory.end(), 0) == t.numel());  // and nothing besides the tensor

  const auto* at = reinterpret_cast<const std::byte*>(dense.data());
  for (const io::Piece& piece : pieces) {
    CHECK((piece.numel() <= max_elements && piece.numel() > 0));
    io::scatter(at, t, piece);
    at += piece.numel() * 4;
  }
  CHECK(memory == before);
}

float decode_one(FileDType from, uint16_t bits) {
  float out = 0;
  io::decode(from, reinterpret_cast<const std::byte*>(&bits), DType::f32, reinterpret_cast<std::byte*>(&out), 1);
  return out;
}

}  // namespace

TEST_CASE("pieces cover a tensor of any strides in row-major order", "[pieces]") {
  std::vector<int32_t> memory(70 * 90);
  const Tensor matrix(memory.data(), DType::i32, {70, 90});
  for (const int64_t max_elements : {1, 7, 90, 100, 1000, 1 << 20}) {
    CAPTURE(max_elements);
    check_there_and_back(memory, matrix, max_elements);
    check_there_and_back(memory, io::transposed(matrix), max_elements);
    check_there_and_back(memory, matrix.slice(1, 3, 41), max_elements);
    check_there_and_back(memory, io::transposed(matrix.slice(1, 3, 41).slice(0, 5, 33)), max_elements);
    check_there_and_back(memory, matrix.reshape({6300}), max_elements);
    check_there_and_back(memory, matrix.reshape({7, 10, 90}).slice(1, 2, 3).slice(2, 1, 88), max_elements);
    check_there_and_back(memory, matrix.reshape({2, 35, 3, 30}).slice(1, 1, 7).slice(2, 1, 2), max_elements);
    check_there_and_back(memory, matrix.slice(0, 4, 1).slice(1, 4, 1), max_elements);
  }
  int visits = 0;
  io::for_each_piece({4, 0}, 10, [&](const io::Piece&) { ++visits; });
  CHECK(visits == 0);
}

TEST_CASE("binary16 decodes to its values", "[convert]") {
  CHECK(decode_one(FileDType::f16, 0x3c00) == 1.0f);
  CHECK(decode_one(FileDType::f16, 0xc000) == -2.0f);
  CHECK(decode_one(FileDType::f16, 0x7bff) == 65504.0f);
  CHECK(decode_one(FileDType::f16, 0x0400) == 0x1p-14f);
  CHECK(decode_one(FileDType::f16, 0x0001) == 0x1p-24f);
  CHECK(decode_one(FileDType::f16, 0x83ff) == -1023 * 0x1p-24f);
  CHECK(decode_one(FileDType::f16, 0x3555) == 0.333251953125f);
  CHECK(std::signbit(decode_one(FileDType::f16, 0x8000)));
  CHECK(decode_one(FileDType::f16, 0xfc00) == -std::numeric_limits<float>::infinity());
  CHECK(std::isnan(decode_one(FileDType::f16, 0x7e00)));
  // Values grow strictly with their bits, from 0 to the largest.
  int wrong = 0;
  for (uint16_t bits = 0; bits < 0x7c00; ++bits) {
    wrong += !(decode_one(FileDType::f16, bits) < decode_one(FileDType::f16, static_cast<uint16_t>(bits + 1)));
  }
  CHECK(wrong == 0);
}

TEST_CASE("only floating-point types turn into one another", "[convert]") {
  CHECK(io::convertible(FileDType::f16, DType::bf16));
  CHECK(io::convertible(FileDType::f64, DType::f32));
  CHECK(io::convertible(FileDType::i32, DType::i32));
  CHECK_FALSE(io::convertible(FileDType::i32, DType::f32));
  CHECK_FALSE(io::convertible(FileDType::f32, DType::i32));
  CHECK_FALSE(io::convertible(FileDType::u8, DType::i32));
}
