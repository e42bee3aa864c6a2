#include "cuda/twins.h"
#include "kernels/cuda/twins.h"
#include "llmz/ops/optimizer.h"

namespace llmz::test {
namespace {

/// A rank's rows of a weight of `total_rows`; 0: the weight is whole.
struct Share {
  int64_t total_rows = 0;
  int rank = 0, ranks = 1;
};

/// What a step reads and writes. Each step starts on both sides from the GPU's results of the one before.
struct State {
  HostTensor weight, grad, m, codes, scales, row, column, scale, shadow;
  bool coded, scaled;
  Share share;

  State(DType weights, DType grads, bool with_codes, bool with_scale, int64_t rows, int64_t width, unsigned seed)
      : weight(HostTensor::random(weights, {rows, width}, seed)),
        grad(grads, {rows, width}),
        m(DType::f32, {rows, width}),
        codes(DType::u8, {rows, width}),
        scales(DType::f32, {rows, (width + ops::kMomentBlock - 1) / ops::kMomentBlock}),
        row(DType::f32, {rows}),
        column(DType::f32, {width}),
        scale(DType::f32, {1}),
        shadow(DType::bf16, {rows, width}),
        coded(with_codes),
        scaled(with_scale) {
    scale.set(0, 0.37);
  }

  std::vector<HostTensor*> tensors() { return {&weight, &grad, &m, &codes, &scales, &row, &column, &scale, &shadow}; }
  Tensors views() {
    Tensors all;
    for (HostTensor* t : tensors()) all.push_back(t->tensor());
    return all;
  }
  void same_bits(const State& o) const {
    REQUIRE(weight.same_bits(o.weight));
    REQUIRE(m.same_bits(o.m));
    REQUIRE(codes.same_bits(o.codes));
    REQUIRE(scales.same_bits(o.scales));
    REQUIRE(row.same_bits(o.row));
    REQUIRE(column.same_bits(o.column));
    REQUIRE(shadow.same_bits(o.shadow));
  }

  ops::FactoredAdamWArgs args(const Tensors& t, int64_t step) const {
    ops::FactoredAdamWArgs a;
    a.weight = t[0], a.grad = t[1];
    if (coded) {
      a.m_codes = t[3], a.m_scales = t[4];
    } else {
      a.m = t[2];
    }
    a.row = t[5], a.column = t[6];
    if (scaled) a.grad_scale = t[7];
    a.lr = 1e-2f * static_cast<float>(step);
    a.beta2 = 0.95f, a.weight_decay = 0.1f;
    a.step = step;
    if (scaled && weight.dtype() == DType::f32) a.rounding.shadow = t[8];
    if (scaled && weight.dtype() == DType::bf16) {
      a.rounding.stochastic = RandomStream(21, Purpose::weight_rounding, 1);
      a.rounding.first = static_cast<uint64_t>(step);
    }
    return a;
  }
  OpBody body(int64_t step) const {
    return [this, step](Exec& e, const Tensors& t) {
      ops::FactoredAdamWArgs a = args(t, step);
      a.total_rows = share.total_rows;
      DryCommunicator ranks(share.rank, share.ranks);
      if (share.total_rows > 0) e.ranks = &ranks;
      ops::factored_adamw(e, a);
      e.ranks = nullptr;
      const auto statistics = static_cast<double>(4 * column.size() + 8);
      REQUIRE(ranks.traffic()[Traffic::all_reduce] == (share.total_rows > 0 ? statistics : 0.0));
    };
  }
  static void clear_rows(HostTensor& t, int64_t rows) {
    for (int64_t i = t.size() - rows * t.shape()[1]; i < t.size(); ++i) t.set(i, 0);
  }
  void check_padding(int64_t rows) const {
    for (int64_t i = weight.size() - rows * weight.shape()[1]; i < weight.size(); ++i) {
      REQUIRE(weight.get(i) == 0);
      REQUIRE(m.get(i) == 0);
      REQUIRE(shadow.get(i) == 0);
      REQUIRE(codes.get(i) == (coded ? 128 : 0));
    }
    for (int64_t i = row.size() - rows; i < row.size(); ++i) REQUIRE(row.get(i) == 0);
  }
};

void close(const HostTensor& gpu, const HostTensor& cpu, double relative) {
  REQUIRE(gpu.gaps_intact());
  require_close(gpu, cpu.values(), relative * size_of(cpu), relative);
}

/// A code is the neighbour of the CPU's where m/scale lies within rounding of a boundary. m and m/scale are rounded
/// some four times to 2^-24 of them, and a step between codes is at least 1/130 of its value: 4·2^-24·130 = 3e-5 of the
/// elements may lie so. Three times that, and one, may.
void neighbouring_codes(const HostTensor& gpu, const HostTensor& cpu) {
  int64_t others = 0;
  for (int64_t i = 0; i < cpu.size(); ++i) {
    const double difference = std::fabs(gpu.get(i) - cpu.get(i));
    REQUIRE(difference <= 1);
    others += difference != 0;
  }
  REQUIRE(gpu.gaps_intact());
  REQUIRE(others <= 1 + cpu.size() / 10000);
}

void compare_step(State& gpu, int64_t step) {
  State cpu = gpu, again = gpu;
  run_op([&](Exec& e) { cpu.body(step)(e, cpu.views()); });
  run_on_gpu(gpu.tensors(), gpu.body(step));
  run_on_gpu(again.tensors(), again.body(step));
  gpu.same_bits(again);
  close(gpu.weight, cpu.weight, tolerance(cpu.weight.dtype()));
  close(gpu.shadow, cpu.shadow, kBf16);
  close(gpu.row, cpu.row, kF32);
  close(gpu.column, cpu.column, kF32);
  close(gpu.m, cpu.m, kF32);
  close(gpu.scales, cpu.scales, kF32);
  neighbouring_codes(gpu.codes, cpu.codes);
  REQUIRE(gpu.grad.same_bits(cpu.grad));
}

struct Mix {
  DType weights, grads;
};
const Mix kMixes[] = {
    {DType::f32, DType::f32}, {DType::f32, DType::bf16}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}};

}  // namespace

TEST_CASE("factored_adamw: CUDA twin agrees with the CPU's, step by step") {
  for (const Mix& mix : kMixes) {
    for (const auto& [rows, width] :
         {std::pair<int64_t, int64_t>{1, 1}, {3, 7}, {1, 300}, {37, 1031}, {131, 257}, {200, 512}, {70, 1540}}) {
      for (bool coded : {false, true}) {
        const unsigned seed = fresh_seed();
        State state(mix.weights, mix.grads, coded, seed % 2 == 0, rows, width, seed);
        for (int64_t step = 1; step <= 4; ++step) {
          INFO(dtype_name(mix.weights) << " weight, " << dtype_name(mix.grads) << " gradient, codes " << coded << " ["
                                       << rows << ", " << width << "], step " << step << ", seed " << seed);
          state.grad = HostTensor::random(mix.grads, {rows, width}, seed + static_cast<unsigned>(step) * 7919, 0.1);
          compare_step(state, step);
        }
      }
    }
  }
}

TEST_CASE("factored_adamw: a gradient in tiles of rows gives the bits of the whole") {
  constexpr int64_t kTile = 256, kRows = 600, kWidth = 300;
  for (bool coded : {false, true}) {
    State whole(DType::f32, DType::f32, coded, true, kRows, kWidth, fresh_seed());
    whole.grad = HostTensor::random(DType::f32, {kRows, kWidth}, fresh_seed(), 0.1);
    State tiles = whole;
    run_on_gpu(whole.tensors(), whole.body(1));
    run_on_gpu(tiles.tensors(), [&](Exec& e, const Tensors& t) {
      const ops::FactoredAdamWArgs a = tiles.args(t, 1);
      const cuda::WorkspaceShape shape = cuda::factored_sums_workspace(a.weight);
      const Buffer sums = e.memory.take("sums", Category::workspace, shape.shape, shape.dtype);
      const Buffer mean = e.memory.take("mean", Category::workspace, {1}, DType::f64);
      if (e.dry()) return;
      Gpu& gpu = *e.memory.gpu();
      const auto for_tiles = [&](auto&& f) {
        for (int64_t first = 0; first < kRows; first += kTile) {
          f(first, a.grad.slice(0, first, std::min(kTile, kRows - first)));
        }
      };
      for_tiles([&](int64_t first, Tensor tile) { cuda::factored_statistics(gpu, a, first, tile, sums.tensor()); });
      cuda::factored_moments(gpu, a, sums.tensor(), mean.tensor(), true);
      for_tiles([&](int64_t first, Tensor tile) { cuda::factored_update(gpu, a, first, tile, mean.tensor()); });
    });
    tiles.same_bits(whole);
  }
}

TEST_CASE("factored_adamw: a rank's share of a weight that is spread, as the CPU twin makes it") {
  // A communicator that moves nothing leaves the share of one rank in the column's average.
  constexpr int kRanks = 3;
  constexpr int64_t kEach = 25, kTotal = 73;  // two rows of the last rank are padding
  for (const Mix& mix : kMixes) {
    for (const int64_t width : {7, 300}) {
      for (bool coded : {false, true}) {
        for (int rank = 0; rank < kRanks; ++rank) {
          INFO(dtype_name(mix.weights) << " weight, " << dtype_name(mix.grads) << " gradient, codes " << coded
                                       << ", width " << width << ", rank " << rank);
          State state(mix.weights, mix.grads, coded, true, kEach, width, fresh_seed());
          state.share = {kTotal, rank, kRanks};
          const int64_t padding = rank == kRanks - 1 ? kRanks * kEach - kTotal : 0;
          State::clear_rows(state.weight, padding);
          for (int64_t step = 1; step <= 3; ++step) {
            state.grad = HostTensor::random(mix.grads, {kEach, width}, fresh_seed(), 0.1);
            State::clear_rows(state.grad, padding);
            compare_step(state, step);
          }
          state.check_padding(padding);
        }
      }
    }
  }
}

TEST_CASE("factored_adamw: shares of ranks on the GPU add up to the whole") {
  constexpr int kRanks = 3;
  constexpr int64_t kEach = 25, kWidth = 301;
  State whole(DType::f32, DType::f32, false, true, kRanks * kEach, kWidth, fresh_seed());
  whole.column = HostTensor::random(DType::f32, {kWidth}, fresh_seed());
  for (int64_t j = 0; j < kWidth; ++j) whole.column.set(j, std::fabs(whole.column.get(j)));
  whole.grad = HostTensor::random(DType::f32, whole.grad.shape(), fresh_seed(), 0.1);
  std::vector<double> sum(static_cast<size_t>(kWidth), 0.0);
  for (int rank = 0; rank < kRanks; ++rank) {
    State part(DType::f32, DType::f32, false, true, kEach, kWidth, 1);
    for (int64_t i = 0; i < part.grad.size(); ++i) part.grad.set(i, whole.grad.get(rank * kEach * kWidth + i));
    part.column = whole.column;
    part.share = {kRanks * kEach, rank, kRanks};
    run_on_gpu(part.tensors(), part.body(1));
    for (int64_t j = 0; j < kWidth; ++j) sum[static_cast<size_t>(j)] += part.column.get(j);
  }
  run_on_gpu(whole.tensors(), whole.body(1));
  require_close(whole.column, sum, 0, kF32);
}

TEST_CASE("factored_adamw: CUDA twin gives each value its nearest code, as the CPU does") {
  // With β₁ = 0 and a first element of 1, m and m/scale are the gradient itself: only boundaries are left to differ at,
  // and no value here lies within fp32's rounding of one but by chance.
  constexpr int64_t kWidth = 256;
  State state(DType::f32, DType::f32, true, false, 64, kWidth, fresh_seed());
  std::mt19937 engine(fresh_seed());
  std::uniform_real_distribution<double> exponent(-7.5, 0.0);
  for (int64_t i = 0; i < state.grad.size(); ++i) {
    const double magnitude = std::pow(10.0, exponent(engine));
    state.grad.set(i, i % kWidth == 0 ? 1.0 : i % 2 == 0 ? magnitude : -magnitude);
  }
  State cpu = state;
  const OpBody body = [&](Exec& e, const Tensors& t) {
    ops::FactoredAdamWArgs a = state.args(t, 1);
    a.beta1 = 0;
    ops::factored_adamw(e, a);
  };
  run_op([&](Exec& e) { body(e, cpu.views()); });
  run_on_gpu(state.tensors(), body);
  REQUIRE(state.scales.same_bits(cpu.scales));
  neighbouring_codes(state.codes, cpu.codes);
  REQUIRE(state.codes.get(0) == 255);
}

TEST_CASE("factored_adamw: CUDA twin lets NaN and infinity through, and zeros only decay the weight") {
  for (bool coded : {false, true}) {
    for (double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
      State state(DType::f32, DType::f32, coded, false, 3, 300, fresh_seed());
      state.grad.set(301, bad);
      run_on_gpu(state.tensors(), state.body(1));
      CHECK(std::isnan(state.weight.get(301)));
      CHECK(!std::isfinite(state.row.get(1)));
      CHECK(!std::isfinite(state.column.get(1)));
      CHECK(!std::isfinite(coded ? state.scales.get(2) : state.m.get(301)));
    }
    State state(DType::f32, DType::f32, coded, false, 5, 300, fresh_seed());
    compare_step(state, 1);
  }
}

}  // namespace llmz::test
