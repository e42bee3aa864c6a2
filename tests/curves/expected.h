#pragma once

#include <map>
#include <string>

#include "ranks/curve.h"

namespace llmz::testing {

/// Curves that were kept (expected.json), and where they were made. Floating-point sums depend on the processor, on the
/// compiler and on oneDNN's version; where all three are the same, so are all bits.
class ExpectedCurves {
 public:
  ExpectedCurves();

  bool same_machine() const { return machine_ == machine(); }
  /// Describes processor, compiler, build and oneDNN.
  static std::string machine();

  /// Compares by bits on the machine of the fixture, else within the tolerance that `differs_by` allows. Where
  /// LLMZ_WRITE_CURVES is set, notes the curve instead.
  void check(const std::string& name, const Curve& curve);
  /// Writes expected.json again where that was asked for.
  void finish() const;

 private:
  std::string machine_;
  std::map<std::string, Curve> curves_;
  bool writing_ = false;
};

}  // namespace llmz::testing
