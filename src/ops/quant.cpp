#include "llmz/ops/quant.h"

#include <bit>

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {
namespace {

constexpr int64_t kLargestRotation = 1024;

void check_format(const Arguments& args, const QuantFormat& f) {
  args.require(f.bits == 4 || f.bits == 8, "bits is {}; 4 and 8 exist", f.bits);
  args.require(f.group >= 0, "group is {}, it cannot be negative (0 = the whole row)", f.group);
  args.require(f.bits == 8 || f.group % 2 == 0, "group is {}; with 4 bits, two to a byte, it must be even", f.group);
  const bool power_of_two = f.rotate > 0 && std::has_single_bit(static_cast<uint64_t>(f.rotate));
  args.require(f.rotate == 0 || (power_of_two && f.rotate >= 2 && f.rotate <= kLargestRotation),
               "rotate is {}; 0 or a power of two from 2 to {} is needed", f.rotate, kLargestRotation);
}

void check_tensors(Arguments& args, const Tensor& x, const Tensor& codes, const Tensor& scales,
                   const QuantFormat& format) {
  args.floats("x", x);
  args.rank("x", x, 2);
  args.require(x.dim(1) > 0, "x {} has empty rows", x.shape.str());
  args.dtype("codes", codes, DType::u8);
  args.shape("codes", codes, {x.dim(0), format.row_bytes(x.dim(1))});
  args.dtype("scales", scales, DType::bf16);
  args.shape("scales", scales, {x.dim(0), format.groups(x.dim(1))});
}

/// For the rotation's signs, which all rows share; a GPU makes them where it needs them.
Buffer take_signs(Exec& exec, const char* name, const QuantFormat& format, int64_t width) {
  return format.rotate == 0 || exec.on_gpu() ? Buffer()
                                             : exec.memory.take(name, Category::workspace, {width}, DType::f32);
}

}  // namespace

void quantize(Exec& exec, Tensor codes, Tensor scales, Tensor x, const QuantFormat& format, const RandomStream& signs,
              const RandomStream& rounding) {
  Arguments args("quantize");
  check_format(args, format);
  check_tensors(args, x, codes, scales, format);
  const Buffer workspace = take_signs(exec, "quantize.signs", format, x.dim(1));
  dispatch(
      exec, args, [&] { cpu::quantize(codes, scales, x, format, signs, rounding, workspace.tensor()); },
      [&](Gpu& gpu) { cuda::quantize(gpu, codes, scales, x, format, signs, rounding); });
}

void dequantize(Exec& exec, Tensor x, Tensor codes, Tensor scales, const QuantFormat& format,
                const RandomStream& signs) {
  Arguments args("dequantize");
  check_format(args, format);
  check_tensors(args, x, codes, scales, format);
  const Buffer workspace = take_signs(exec, "dequantize.signs", format, x.dim(1));
  dispatch(
      exec, args, [&] { cpu::dequantize(x, codes, scales, format, signs, workspace.tensor()); },
      [&](Gpu& gpu) { cuda::dequantize(gpu, x, codes, scales, format, signs); });
}

}  // namespace llmz::ops
