#include "llmz/ops/attention.h"

#include <cmath>

#include "kernels/cpu/attention_pairs.h"
#include "ops/attention_reference.h"
#include "ops/checks.h"
#include "ops/fixture.h"
#include "ops/reference.h"

using namespace llmz;
using namespace llmz::test;
using namespace llmz::test::attention;

namespace {

/// By how much sums may be off whose terms have a factor p or ds that was rounded to bf16: half a unit in its last
/// place of every term.
struct RoundedFactors {
  Values out, dq, dk, dv;

  RoundedFactors(const Sizes& s, DType type) {
    out = dq = Values(static_cast<size_t>(s.q().numel()));
    dk = dv = Values(static_cast<size_t>(s.k().numel()));
    rounds_ = type == DType::bf16 && cpu::multiplies_pairs();
  }
  void add_terms(const Sizes& s, const Values& dout, const Forward& f, const Values& q, const Values& k,
                 const Values& v) {
    if (!rounds_) return;
    const auto add = [&](Values& to, size_t to_row, double factor, const Values& from, size_t from_row) {
      for (size_t c = 0; c < static_cast<size_t>(s.width); ++c) {
        to[to_row + c] += rounding(DType::bf16) * std::fabs(factor * from[from_row + c]);
      }
    };
    s.each_term(dout, f, q, k, v, [&](size_t row, size_t key, double p, double ds) {
      add(out, row, p, v, key);
      add(dq, row, ds, k, key);
      add(dk, key, ds, q, row);
      add(dv, key, p, dout, row);
    });
  }

 private:
  bool rounds_;
};

Values plus(Values x, double constant) {
  for (double& value : x) value += constant;
  return x;
}

/// Arguments of both passes, made from random numbers of standard deviation `spread` (q) and 1 (all others).
struct Problem {
  Sizes sizes;
  HostTensor q, k, v, out, lse, dout, dq, dk, dv, lengths;

  Problem(const Sizes& s, DType type, double spread = 1.0, int64_t gap = 0) : sizes(s), lengths(s.lengths()) {
    q = HostTensor::random(type, s.q(), 1, spread, gap);
    k = HostTensor::random(type, s.k(), 2, 1.0, gap);
    v = HostTensor::random(type, s.k(), 3, 1.0, gap);
    dout = HostTensor::random(type, s.q(), 4, 1.0, gap);
    out = HostTensor(type, s.q(), gap);
    dq = out;
    dk = HostTensor(type, s.k(), gap);
    dv = dk;
    lse = HostTensor(type == DType::f64 ? DType::f64 : DType::f32, s.lse());
  }
  double forward() {
    return run_op([&](Exec& exec) {
      ops::attention_forward(exec, out.tensor(), lse.tensor(), q.tensor(), k.tensor(), v.tensor(),
                             sizes.mask(lengths.tensor()));
    });
  }
  double backward(bool with_out = true) {
    return run_op([&](Exec& exec) {
      ops::attention_backward(exec, dq.tensor(), dk.tensor(), dv.tensor(), dout.tensor(),
                              with_out ? out.tensor() : Tensor(), lse.tensor(), q.tensor(), k.tensor(), v.tensor(),
                              sizes.mask(lengths.tensor()));
    });
  }
};

/// Error of a score: a sum of `width` products, of which the roundings cancel in part (√n of n), relative to
/// Σ|q·k|/√D < 3·√D·spread; and of the exponential's argument, which is as large as the score.
double score_error(const Sizes& s, DType type, double spread) {
  const double width = static_cast<double>(s.width);
  return (std::sqrt(width) + 8) * 3 * std::sqrt(width) * spread * rounding(type == DType::f64 ? type : DType::f32);
}

double largest(const Values& x) {
  double m = 0;
  for (double value : x) m = std::max(m, std::fabs(value));
  return m;
}

void compare(const Sizes& s, DType type, double spread = 1.0, int64_t gap = 0) {
  INFO(dtype_name(type) << " B" << s.batch << " Sq" << s.queries << " Skv" << s.keys << " heads " << s.heads << "/"
                        << s.kv_heads << " D" << s.width << (s.causal ? " causal" : " full") << " window " << s.window
                        << (s.padded ? " padded" : "") << " spread " << spread);
  Problem x(s, type, spread, gap);
  const Values q = x.q.values(), k = x.k.values(), v = x.v.values(), dout = x.dout.values();
  const double error = score_error(s, type, spread), eps = rounding(type);
  const Forward want = reference_forward(s, q, k, v);
  RoundedFactors rounded(s, type);
  rounded.add_terms(s, dout, want, q, k, v);
  const double flops = x.forward();
  require_close(x.lse, want.lse, error, 0);
  // Probabilities are off by 2·error, twice.
  require_close(x.out, want.out, plus(rounded.out, 4 * error * largest(v)), eps);

  // What backward got from forward is rounded; the reference starts from the same numbers.
  const Forward stored{x.out.values(), x.lse.values()};
  const Gradients gradients = reference_backward(s, dout, stored, q, k, v);
  CHECK(x.backward() == 2.5 * flops);
  const auto gradient_error = [&](const Values& g) {  // terms p·(dout·v − δ)·k/√D are of this size before they cancel
    return 4 * error * (10 + largest(g));
  };
  require_close(x.dq, gradients.dq, plus(rounded.dq, gradient_error(gradients.dq)), eps);
  require_close(x.dk, gradients.dk, plus(rounded.dk, gradient_error(gradients.dk)), eps);
  require_close(x.dv, gradients.dv, plus(rounded.dv, gradient_error(gradients.dv)), eps);
  for (const HostTensor* t : {&x.out, &x.dq, &x.dk, &x.dv}) CHECK(t->gaps_intact());

  // Without `out` its row sums come from p and v: those of an output that was never rounded to its storage.
  const Gradients unrounded = reference_backward(s, dout, {want.out, stored.lse}, q, k, v);
  for (HostTensor* t : {&x.dq, &x.dk, &x.dv}) t->assign(Values(static_cast<size_t>(t->size()), 1e9));
  CHECK(x.backward(false) == 3.5 * flops);
  require_close(x.dq, unrounded.dq, plus(rounded.dq, gradient_error(unrounded.dq)), eps);
  require_close(x.dk, unrounded.dk, plus(rounded.dk, gradient_error(unrounded.dk)), eps);
  require_close(x.dv, unrounded.dv, plus(rounded.dv, gradient_error(unrounded.dv)), eps);
  for (const HostTensor* t : {&x.dq, &x.dk, &x.dv}) CHECK(t->gaps_intact());
}

constexpr Sizes kSizes[] = {
    {1, 1, 1, 1, 1, 1},     {2, 1, 1, 2, 1, 8},      {1, 3, 3, 3, 1, 17},     {2, 17, 17, 4, 2, 16},
    {1, 65, 65, 2, 2, 64},  {1, 129, 129, 4, 1, 48}, {2, 5, 130, 4, 2, 80},   {1, 1, 300, 6, 2, 128},
    {1, 64, 128, 1, 1, 65}, {1, 100, 257, 2, 1, 33}, {1, 260, 260, 2, 1, 64}, {1, 33, 96, 2, 2, 256},
};

}  // namespace

TEST_CASE("the reference gradients of attention are its finite differences") {
  const Sizes s{2, 3, 5, 4, 2, 6};
  Problem x(s, DType::f64);
  Values q = x.q.values(), k = x.k.values(), v = x.v.values();
  const Values dout = x.dout.values();
  const Gradients g = reference_backward(s, dout, reference_forward(s, q, k, v), q, k, v);
  const auto loss = [&] {
    const Values out = reference_forward(s, q, k, v).out;
    double sum = 0;
    for (size_t i = 0; i < out.size(); ++i) sum += out[i] * dout[i];
    return sum;
  };
  const auto differences_agree = [&](Values& at, const Values& gradient) {
    const double h = 1e-5;  // truncation h² and cancellation 1e-16·|loss|/h both stay below 1e-9
    for (size_t i = 0; i < at.size(); ++i) {
      const double middle = at[i];
      at[i] = middle + h;
      const double above = loss();
      at[i] = middle - h;
      const double below = loss();
      at[i] = middle;
      REQUIRE(gradient[i] == Approx((above - below) / (2 * h)).margin(1e-8));
    }
  };
  differences_agree(q, g.dq);
  differences_agree(k, g.dk);
  differences_agree(v, g.dv);
}

TEST_CASE("attention and its gradients equal the reference") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    for (const Sizes& s : kSizes) compare(s, type);
  }
}

TEST_CASE("attention and its gradients equal the reference with keys on both sides, windows and padding") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    for (bool causal : {true, false}) {
      for (int64_t window : {0, 1, 5, 64, 65, 130}) {
        for (bool padded : {false, true}) {
          if (causal && window == 0 && !padded) continue;
          compare({3, 133, 133, 2, 1, 24, causal, window, padded}, type);
          compare({2, 70, 201, 2, 2, 16, causal, window, padded}, type);
          compare({3, 3, 9, 2, 1, 8, causal, window, padded}, type);
        }
      }
    }
  }
}

TEST_CASE("keys that are not seen change nothing, whatever they hold") {
  for (DType type : {DType::f32, DType::f64}) {
    Problem clean({2, 100, 100, 2, 2, 16, false, 0, true}, type), other({2, 100, 100, 2, 2, 16, false, 0, true}, type);
    for (HostTensor* t : {&other.k, &other.v}) {
      for (int64_t i = 0; i < t->size(); ++i) {
        const int64_t b = i / (100 * 32), j = i / 32 % 100;
        if (j >= other.sizes.length(b)) t->set(i, 1e6);
      }
    }
    for (Problem* x : {&clean, &other}) {
      x->forward();
      x->backward();
    }
    CHECK(other.out.same_bits(clean.out));
    CHECK(other.dq.same_bits(clean.dq));
    CHECK(other.dk.same_bits(clean.dk));
    CHECK(other.dv.same_bits(clean.dv));
  }
}

TEST_CASE("attention with rows that have gaps, and with scores of many hundreds") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    compare({2, 65, 70, 4, 2, 24}, type, 1.0, 5);
    compare({1, 130, 130, 2, 2, 64}, type, 200.0);
  }
}

TEST_CASE("attention reads q, k and v out of one tensor and writes their gradients into one") {
  const Sizes s{2, 37, 37, 4, 2, 16};
  Problem x(s, DType::f32);
  x.forward();
  x.backward();
  HostTensor packed(DType::f32, {2, 37, 8, 16}), gradient = packed, out = x.out;
  const auto part = [](HostTensor& t, int64_t first, int64_t count) { return t.tensor().slice(2, first, count); };
  const auto each = [&](int64_t first, int64_t heads, auto&& f) {
    for (int64_t row = 0; row < 2 * 37; ++row)
      for (int64_t i = 0; i < heads * 16; ++i) f((row * 8 + first) * 16 + i, row * heads * 16 + i);
  };
  each(0, 4, [&](int64_t to, int64_t from) { packed.set(to, x.q.get(from)); });
  each(4, 2, [&](int64_t to, int64_t from) { packed.set(to, x.k.get(from)); });
  each(6, 2, [&](int64_t to, int64_t from) { packed.set(to, x.v.get(from)); });
  run_op([&](Exec& exec) {
    const Tensor q = part(packed, 0, 4), k = part(packed, 4, 2), v = part(packed, 6, 2);
    ops::attention_forward(exec, out.tensor(), x.lse.tensor(), q, k, v);
    ops::attention_backward(exec, part(gradient, 0, 4), part(gradient, 4, 2), part(gradient, 6, 2), x.dout.tensor(),
                            out.tensor(), x.lse.tensor(), q, k, v);
  });
  CHECK(out.same_bits(x.out));
  each(0, 4, [&](int64_t at, int64_t from) { REQUIRE(gradient.get(at) == x.dq.get(from)); });
  each(4, 2, [&](int64_t at, int64_t from) { REQUIRE(gradient.get(at) == x.dk.get(from)); });
  each(6, 2, [&](int64_t at, int64_t from) { REQUIRE(gradient.get(at) == x.dv.get(from)); });
}

TEST_CASE("attention gives the same bits again") {
  for (DType type : {DType::f32, DType::bf16}) {
    Problem first({2, 150, 150, 4, 2, 40}, type);
    first.forward();
    first.backward();
    for (int run = 0; run < 3; ++run) {
      Problem again(first.sizes, type);
      again.forward();
      again.backward();
      CHECK(again.out.same_bits(first.out));
      CHECK(again.lse.same_bits(first.lse));
      CHECK(again.dq.same_bits(first.dq));
      CHECK(again.dk.same_bits(first.dk));
      CHECK(again.dv.same_bits(first.dv));
    }
  }
}

TEST_CASE("attention's gradients without its output do not depend on the number of threads") {
  for (DType type : {DType::f32, DType::f64}) {
    require_same_for_any_threads([&] {
      Problem x({2, 70, 70, 4, 2, 24}, type);
      x.forward();
      x.backward(false);
      return x.dk;
    });
  }
}

TEST_CASE("attention counts the pairs that see each other") {
  Problem square({2, 4, 4, 3, 1, 8}, DType::f32);
  CHECK(square.forward() == 4.0 * 8 * 10 * 2 * 3);
  Problem longer({1, 2, 5, 1, 1, 8}, DType::f32);
  CHECK(longer.forward() == 4.0 * 8 * (4 + 5));
  Problem full({1, 4, 4, 1, 1, 8, false}, DType::f32);
  CHECK(full.forward() == 4.0 * 8 * 16);
  Problem window({1, 4, 4, 1, 1, 8, true, 2}, DType::f32);
  CHECK(window.forward() == 4.0 * 8 * (1 + 2 + 2 + 2));
}

TEST_CASE("attention names what does not fit") {
  const Sizes s{1, 3, 3, 4, 2, 8};
  Problem x(s, DType::f32);
  Memory memory;
  Exec exec(memory);
  const auto message = [&](HostTensor& out, HostTensor& lse, HostTensor& q, HostTensor& k,
                           HostTensor& v) -> std::string {
    try {
      ops::attention_forward(exec, out.tensor(), lse.tensor(), q.tensor(), k.tensor(), v.tensor());
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  HostTensor three(DType::f32, {1, 3, 3, 8}), shorter(DType::f32, {1, 2, 2, 8}), half(DType::bf16, s.k());
  CHECK(message(three, x.lse, three, x.k, x.v) ==
        "attention_forward: 3 heads of q [1, 3, 3, 8] are no multiple of 2 heads of k [1, 3, 2, 8]");
  CHECK(message(x.out, x.lse, x.q, shorter, shorter) ==
        "attention_forward: q [1, 3, 4, 8] holds more positions than k [1, 2, 2, 8]");
  CHECK(message(x.out, x.lse, x.q, x.k, shorter) ==
        "attention_forward: v has shape [1, 2, 2, 8], [1, 3, 2, 8] is needed");
  CHECK(message(x.out, x.out, x.q, x.k, x.v) == "attention_forward: lse has shape [1, 3, 4, 8], [1, 4, 3] is needed");
  CHECK(message(x.out, x.lse, x.q, half, half) ==
        "attention_forward: q is f32 and k is bf16; they must be of one type");
}
