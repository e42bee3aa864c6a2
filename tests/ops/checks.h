#pragma once

#include <omp.h>

#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/core/error.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {

/// d loss / d x by central differences; x is f64. With loss of order 1 and h = 1e-5 the truncation (h²) and the
/// rounding (2^-53/h) both stay near 1e-10.
inline std::vector<double> central_difference(HostTensor& x, const std::function<double()>& loss) {
  constexpr double h = 1e-5;
  std::vector<double> slope;
  for (int64_t i = 0; i < x.size(); ++i) {
    const double old = x.get(i);
    x.set(i, old + h);
    const double above = loss();
    x.set(i, old - h);
    const double below = loss();
    x.set(i, old);
    slope.push_back((above - below) / (2 * h));
  }
  return slope;
}

/// Σ weights·values: a loss whose gradient by `values` is `weights`.
inline double weighted_sum(const HostTensor& values, const HostTensor& weights) {
  double sum = 0;
  for (int64_t i = 0; i < values.size(); ++i) sum += values.get(i) * weights.get(i);
  return sum;
}

/// Runs `body` with 1, 2 and 3 threads and requires the tensor that it returns to have the same bits each time.
inline void require_same_for_any_threads(const std::function<HostTensor()>& body) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const HostTensor one = body();
  for (int threads : {2, 3}) {
    omp_set_num_threads(threads);
    const HostTensor several = body();
    INFO(threads << " threads");
    CHECK(one.same_bits(several));
  }
  omp_set_num_threads(before);
}

/// The same elements as `t`, moved to an address that is `bytes` past a cache line's start. `store` keeps them.
inline Tensor at_address(HostTensor& t, size_t bytes, std::vector<std::byte>& store) {
  const Tensor from = t.tensor();
  store.assign(from.bytes() + 2 * 64, std::byte{0});
  const size_t past = reinterpret_cast<uintptr_t>(store.data()) % 64;
  Tensor moved(store.data() + (64 - past) + bytes, from.dtype, from.shape);
  std::memcpy(moved.data, from.data, from.bytes());
  return moved;
}

/// Requires that the op throws an Error whose one line holds all of `words`.
inline void require_error(const std::function<void(Exec&)>& body, std::initializer_list<std::string_view> words) {
  std::string message;
  try {
    run_op(body);
  } catch (const Error& error) {
    message = error.what();
  }
  INFO("message: '" << message << "'");
  for (std::string_view word : words) {
    INFO("wanted: '" << word << "'");
    CHECK(message.find(word) != std::string::npos);
  }
}

}  // namespace llmz::test
