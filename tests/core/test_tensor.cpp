#include <numeric>
#include <vector>

#include "catch.h"
#include "llmz/core/tensor.h"

using llmz::DType;
using llmz::Error;
using llmz::Shape;
using llmz::Tensor;

TEST_CASE("shapes count, print and compare", "[tensor]") {
  CHECK(Shape{2, 3, 5}.numel() == 30);
  CHECK(Shape{2, 0, 5}.numel() == 0);
  CHECK(Shape{}.numel() == 0);
  CHECK(Shape{2, 3}.str() == "[2, 3]");
  CHECK(Shape{}.str() == "[]");
  CHECK(Shape{2, 3} == Shape{2, 3});
  CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
  CHECK_FALSE(Shape{2} == Shape{2, 1});
  // Past 2^32 elements.
  CHECK(Shape{70000, 70000}.numel() == 4900000000);
  CHECK_THROWS_AS((Shape{1, 2, 3, 4, 5}), Error);
  CHECK_THROWS_AS((Shape{2, -1}), Error);
}

TEST_CASE("a tensor is a view with row-major strides", "[tensor]") {
  std::vector<float> data(24);
  std::iota(data.begin(), data.end(), 0.0f);
  const Tensor t(data.data(), DType::f32, {2, 3, 4});
  CHECK(t.present());
  CHECK_FALSE(Tensor().present());
  CHECK(t.stride(0) == 12);
  CHECK(t.stride(1) == 4);
  CHECK(t.stride(2) == 1);
  CHECK(t.contiguous());
  CHECK(t.bytes() == 96);
  CHECK(t.as<float>()[23] == 23.0f);
  CHECK_THROWS_WITH(t.as<llmz::bf16>(), contains("f32") && contains("bf16"));
}

TEST_CASE("slices share memory and keep strides", "[tensor]") {
  std::vector<float> data(24);
  std::iota(data.begin(), data.end(), 0.0f);
  const Tensor t(data.data(), DType::f32, {4, 6});

  const Tensor rows = t.slice(0, 1, 2);
  CHECK(rows.shape == Shape{2, 6});
  CHECK(rows.as<float>()[0] == 6.0f);
  CHECK(rows.contiguous());

  const Tensor columns = t.slice(1, 2, 3);
  CHECK(columns.shape == Shape{4, 3});
  CHECK(columns.as<float>()[columns.stride(0)] == 8.0f);
  CHECK(columns.rows_dense());
  CHECK_FALSE(columns.contiguous());
  CHECK_THROWS_AS(columns.reshape({12}), Error);

  const Tensor corner = columns.slice(0, 3, 1);
  CHECK(corner.as<float>()[0] == 20.0f);
  CHECK(corner.contiguous());  // one row has no gap

  CHECK_THROWS_WITH(t.slice(1, 4, 3), contains("[4, 6]"));
  CHECK_THROWS_AS(t.slice(2, 0, 1), Error);
  CHECK_THROWS_AS(t.slice(0, -1, 1), Error);
}

TEST_CASE("reshape keeps the elements", "[tensor]") {
  std::vector<float> data(24);
  const Tensor t(data.data(), DType::f32, {4, 6});
  const Tensor r = t.reshape({2, 3, 4});
  CHECK(r.data == t.data);
  CHECK(r.stride(0) == 12);
  CHECK_THROWS_WITH(t.reshape({5, 5}), contains("[4, 6]") && contains("[5, 5]"));
}

TEST_CASE("meta tensors have shapes and slices but no data", "[tensor]") {
  const Tensor t(nullptr, DType::f32, {4, 6}, {llmz::DeviceType::meta, 0});
  CHECK(t.is_meta());
  CHECK(t.slice(0, 1, 2).data == nullptr);
  CHECK(t.slice(1, 2, 3).shape == Shape{4, 3});
  CHECK(llmz::device_name(t.device) == "meta");
  CHECK(llmz::device_name({llmz::DeviceType::cuda, 1}) == "cuda:1");
}
