#include "llmz/ops/embedding.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {
namespace {

/// rows [T,H], tokens [T] i32, table [V,H], positions [P,H] or absent with P past the last position used.
void check_lookup(Arguments& args, std::array<std::string_view, 3> names, const Tensor& rows, const Tensor& table,
                  const Tensor& positions, const Tensor& tokens, int64_t seq_len, int64_t position_offset) {
  const auto [rows_name, table_name, positions_name] = names;
  args.floats(rows_name, rows);
  args.rank(rows_name, rows, 2);
  args.dtype("tokens", tokens, DType::i32);
  args.shape("tokens", tokens, {rows.dim(0)});
  args.floats(table_name, table);
  args.rank(table_name, table, 2);
  args.shape(table_name, table, {table.dim(0), rows.dim(1)});
  args.require(seq_len > 0, "seq_len is {}, it must be positive", seq_len);
  if (!positions.present()) return;
  args.floats(positions_name, positions);
  args.rank(positions_name, positions, 2);
  args.shape(positions_name, positions, {positions.dim(0), rows.dim(1)});
  const int64_t end = position_offset + std::min(seq_len, rows.dim(0));
  args.require(position_offset >= 0 && end <= positions.dim(0), "positions [{}, {}) are outside {} {}", position_offset,
               end, positions_name, positions.shape.str());
}

}  // namespace

void embedding_forward(Exec& exec, Tensor out, Tensor tokens, Tensor table, Tensor positions, int64_t seq_len,
                       int64_t position_offset) {
  Arguments args("embedding_forward");
  check_lookup(args, {"out", "table", "positions"}, out, table, positions, tokens, seq_len, position_offset);
  dispatch(
      exec, args, [&] { cpu::embedding_forward(out, tokens, table, positions, seq_len, position_offset); },
      [&](Gpu& gpu) { cuda::embedding_forward(gpu, out, tokens, table, positions, seq_len, position_offset); });
}

void embedding_backward(Exec& exec, Tensor dtable, Tensor dpositions, Tensor dout, Tensor tokens, int64_t seq_len) {
  Arguments args("embedding_backward");
  check_lookup(args, {"dout", "dtable", "dpositions"}, dout, dtable, dpositions, tokens, seq_len, 0);
  const Buffer workspace = exec.on_gpu() ? take_workspace(exec, "embedding_backward.workspace",
                                                          cuda::embedding_backward_workspace(tokens, dtable))
                                         : Buffer();
  dispatch(
      exec, args, [&] { cpu::embedding_backward(dtable, dpositions, dout, tokens, seq_len); },
      [&](Gpu& gpu) { cuda::embedding_backward(gpu, dtable, dpositions, dout, tokens, seq_len, workspace.tensor()); });
}

}  // namespace llmz::ops
