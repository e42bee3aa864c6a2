#include "llmz/ops/embedding.h"

#include "ops/checks.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {
namespace {

/// Storage of the rows (out, dout) and of the tables.
struct Mix {
  DType rows, tables;
};
const Mix kMixes[] = {
    {DType::f32, DType::f32}, {DType::bf16, DType::bf16}, {DType::bf16, DType::f32}, {DType::f64, DType::f64}};
// One column; below and past the columns that a thread owns; past a chunk of 1024.
constexpr int64_t kWidths[] = {1, 31, 65, 1100};
constexpr int64_t kVocabulary = 11, kSeqLen = 6;

/// Repeats on purpose: gradients of one token must add up.
HostTensor token_ids(int64_t count) {
  HostTensor ids(DType::i32, {count});
  for (int64_t t = 0; t < count; ++t) ids.set(t, static_cast<double>((t * t + 3 * t) % kVocabulary));
  return ids;
}

HostTensor forward(const Mix& mix, HostTensor& ids, HostTensor& table, HostTensor* positions, int64_t seq_len,
                   int64_t offset, int64_t gap) {
  HostTensor out(mix.rows, {ids.size(), table.shape()[1]}, gap);
  run_op([&](Exec& e) {
    ops::embedding_forward(e, out.tensor(), ids.tensor(), table.tensor(), positions ? positions->tensor() : Tensor(),
                           seq_len, offset);
  });
  REQUIRE(out.gaps_intact());
  return out;
}

}  // namespace

TEST_CASE("embedding_forward looks rows up and adds positions", "[embedding]") {
  for (const Mix& mix : kMixes) {
    for (int64_t width : kWidths) {
      for (bool with_positions : {false, true}) {
        const int64_t offset = 2, tokens = 3 * kSeqLen;
        HostTensor ids = token_ids(tokens), table = HostTensor::random(mix.tables, {kVocabulary, width}, 1, 1.0, 1);
        HostTensor positions = HostTensor::random(mix.tables, {offset + kSeqLen, width}, 2);
        const HostTensor out = forward(mix, ids, table, with_positions ? &positions : nullptr, kSeqLen, offset, 3);
        std::vector<double> want;
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t i = 0; i < width; ++i) {
            const double position = positions.get((offset + t % kSeqLen) * width + i);
            want.push_back(table.get(static_cast<int64_t>(ids.get(t)) * width + i) + (with_positions ? position : 0.0));
          }
        }
        // One addition, in fp32 or fp64, and the rounding of the store; a plain look-up is exact where types agree.
        const bool exact = !with_positions && mix.rows == mix.tables;
        require_close(out, want, 0, exact ? 0 : 2 * rounding(mix.rows));
      }
    }
  }
}

TEST_CASE("embedding_forward of the positions of one late token", "[embedding]") {
  HostTensor ids = token_ids(1), table = HostTensor::random(DType::f32, {kVocabulary, 5}, 1);
  HostTensor positions = HostTensor::random(DType::f32, {9, 5}, 2);
  const HostTensor out = forward(kMixes[0], ids, table, &positions, 1, 8, 0);
  for (int64_t i = 0; i < 5; ++i) CHECK(out.get(i) == Approx(table.get(i) + positions.get(8 * 5 + i)));
}

TEST_CASE("embedding_backward adds every token's gradient to its row", "[embedding]") {
  for (const Mix& mix : kMixes) {
    for (int64_t width : kWidths) {
      for (bool with_positions : {false, true}) {
        INFO(dtype_name(mix.rows) << " into " << dtype_name(mix.tables) << ", width " << width);
        const int64_t tokens = 3 * kSeqLen;
        HostTensor ids = token_ids(tokens), dout = HostTensor::random(mix.rows, {tokens, width}, 1, 1.0, 2);
        HostTensor dtable = HostTensor::random(mix.tables, {kVocabulary, width}, 2, 1.0, 1);
        HostTensor dpositions = HostTensor::random(mix.tables, {kSeqLen + 1, width}, 3);
        std::vector<double> want_table = dtable.values(), want_positions = dpositions.values();
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t i = 0; i < width; ++i) {
            want_table[static_cast<size_t>(static_cast<int64_t>(ids.get(t)) * width + i)] += dout.get(t * width + i);
            if (with_positions) {
              want_positions[static_cast<size_t>(t % kSeqLen * width + i)] += dout.get(t * width + i);
            }
          }
        }
        run_op([&](Exec& e) {
          ops::embedding_backward(e, dtable.tensor(), with_positions ? dpositions.tensor() : Tensor(), dout.tensor(),
                                  ids.tensor(), kSeqLen);
        });
        // At most 6 gradients meet in a row, partial sums stay below 16: 6 roundings of numbers of that size.
        require_close(dtable, want_table, 6 * 16 * rounding(mix.tables), 0);
        require_close(dpositions, want_positions, 6 * 16 * rounding(mix.tables), 0);
        REQUIRE(dtable.gaps_intact());
      }
    }
  }
}

TEST_CASE("embedding gradients do not depend on the number of threads", "[embedding]") {
  for (DType type : {DType::f32, DType::bf16}) {
    require_same_for_any_threads([type] {
      HostTensor ids = token_ids(300), dout = HostTensor::random(type, {300, 65}, 1), dtable(type, {kVocabulary, 65});
      run_op([&](Exec& e) { ops::embedding_backward(e, dtable.tensor(), Tensor(), dout.tensor(), ids.tensor(), 300); });
      return dtable;
    });
  }
}

TEST_CASE("embeddings name the argument that is wrong", "[embedding]") {
  HostTensor ids = token_ids(6), table(DType::f32, {kVocabulary, 5}), positions(DType::f32, {4, 5});
  HostTensor out(DType::f32, {6, 5}), narrow(DType::f32, {6, 4}), float_ids(DType::f32, {6});
  const auto forward_of = [&](Tensor rows, Tensor tokens, int64_t seq_len, int64_t offset) {
    return [=, t = table.tensor(), p = positions.tensor()](Exec& e) {
      ops::embedding_forward(e, rows, tokens, t, p, seq_len, offset);
    };
  };
  require_error(forward_of(narrow.tensor(), ids.tensor(), 3, 0), {"embedding_forward", "table", "[11, 5]", "[11, 4]"});
  require_error(forward_of(out.tensor(), float_ids.tensor(), 3, 0), {"embedding_forward", "tokens", "f32", "i32"});
  require_error(forward_of(out.tensor(), ids.tensor(), 3, 2), {"embedding_forward", "[2, 5)", "positions", "[4, 5]"});
  require_error(forward_of(out.tensor(), ids.tensor(), 0, 0), {"embedding_forward", "seq_len is 0"});
}

}  // namespace llmz::test
