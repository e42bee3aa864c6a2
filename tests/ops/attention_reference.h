#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "llmz/ops/attention.h"
#include "ops/reference.h"

/// Attention and its gradients by their definitions, in double.
namespace llmz::test::attention {

using Values = std::vector<double>;

struct Forward {
  Values out, lse;
};

/// A call of attention.
struct Sizes {
  int64_t batch, queries, keys, heads, kv_heads, width;
  bool causal = true;
  int64_t window = 0;
  bool padded = false;  ///< the first sequence altogether, the others less and less
  Shape q() const { return {batch, queries, heads, width}; }
  Shape k() const { return {batch, keys, kv_heads, width}; }
  Shape lse() const { return {batch, heads, queries}; }
  int64_t length(int64_t b) const { return padded ? keys * b / batch : keys; }
  ops::AttentionMask mask(Tensor lengths) const { return {causal, window, padded ? lengths : Tensor()}; }
  HostTensor lengths() const {
    HostTensor t(DType::i32, {batch});
    for (int64_t b = 0; b < batch; ++b) t.set(b, static_cast<double>(length(b)));
    return t;
  }
  double scale() const { return 1 / std::sqrt(static_cast<double>(width)); }
  size_t q_row(int64_t b, int64_t h, int64_t i) const {
    return static_cast<size_t>(((b * queries + i) * heads + h) * width);
  }
  size_t k_row(int64_t b, int64_t h, int64_t j) const {
    return static_cast<size_t>(((b * keys + j) * kv_heads + h / (heads / kv_heads)) * width);
  }
  size_t lse_at(int64_t b, int64_t h, int64_t i) const { return static_cast<size_t>((b * heads + h) * queries + i); }

  /// f(b, h, i, begin, end) for every query row: it sees the keys begin … end − 1.
  template <class F>
  void each_row(F&& f) const {
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t h = 0; h < heads; ++h)
        for (int64_t i = 0; i < queries; ++i) {
          const int64_t position = keys - queries + i;
          int64_t begin = 0, end = 0;
          for (int64_t j = 0; j < length(b); ++j) {
            const int64_t distance = position - j;
            if ((causal && distance < 0) || (window > 0 && std::abs(distance) >= window)) continue;
            if (end == 0) begin = j;
            end = j + 1;
          }
          f(b, h, i, begin, end);
        }
  }
  /// Every query and key that it sees: f(query row, key row, p, ds), p its probability, ds the gradient of q·k.
  template <class F>
  void each_term(const Values& dout, const Forward& f, const Values& q, const Values& k, const Values& v,
                 F&& use) const;
  double dot(const Values& x, size_t x_row, const Values& y, size_t y_row) const {
    double sum = 0;
    for (size_t c = 0; c < static_cast<size_t>(width); ++c) sum += x[x_row + c] * y[y_row + c];
    return sum;
  }
  void add(Values& to, size_t to_row, double factor, const Values& from, size_t from_row) const {
    for (size_t c = 0; c < static_cast<size_t>(width); ++c) to[to_row + c] += factor * from[from_row + c];
  }
};

struct Gradients {
  Values dq, dk, dv;
};

inline Forward reference_forward(const Sizes& s, const Values& q, const Values& k, const Values& v) {
  Forward r{Values(q.size()), Values(static_cast<size_t>(s.lse().numel()))};
  s.each_row([&](int64_t b, int64_t h, int64_t i, int64_t begin, int64_t end) {
    if (begin == end) return;
    Values score(static_cast<size_t>(end));
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = begin; j < end; ++j) {
      const double x = s.scale() * s.dot(q, s.q_row(b, h, i), k, s.k_row(b, h, j));
      score[static_cast<size_t>(j)] = x;
      largest = std::max(largest, x);
    }
    for (int64_t j = begin; j < end; ++j) sum += std::exp(score[static_cast<size_t>(j)] - largest);
    r.lse[s.lse_at(b, h, i)] = largest + std::log(sum);
    for (int64_t j = begin; j < end; ++j) {
      s.add(r.out, s.q_row(b, h, i), std::exp(score[static_cast<size_t>(j)] - largest) / sum, v, s.k_row(b, h, j));
    }
  });
  return r;
}

template <class F>
void Sizes::each_term(const Values& dout, const Forward& f, const Values& q, const Values& k, const Values& v,
                      F&& use) const {
  each_row([&](int64_t b, int64_t h, int64_t i, int64_t begin, int64_t end) {
    const size_t row = q_row(b, h, i);
    const double delta = dot(dout, row, f.out, row);
    for (int64_t j = begin; j < end; ++j) {
      const size_t key = k_row(b, h, j);
      const double p = std::exp(scale() * dot(q, row, k, key) - f.lse[lse_at(b, h, i)]);
      use(row, key, p, scale() * p * (dot(dout, row, v, key) - delta));
    }
  });
}

inline Gradients reference_backward(const Sizes& s, const Values& dout, const Forward& f, const Values& q,
                                    const Values& k, const Values& v) {
  Gradients g{Values(q.size()), Values(k.size()), Values(v.size())};
  s.each_term(dout, f, q, k, v, [&](size_t row, size_t key, double p, double ds) {
    s.add(g.dq, row, ds, k, key);
    s.add(g.dk, key, ds, q, row);
    s.add(g.dv, key, p, dout, row);
  });
  return g;
}

}  // namespace llmz::test::attention
