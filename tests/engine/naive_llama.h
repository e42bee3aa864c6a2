#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "llmz/model/config.h"

namespace llmz::test {

using Values = std::vector<double>;

/// Row-major [rows, columns] of doubles.
struct Matrix {
  int64_t rows = 0, columns = 0;
  Values data;
  Matrix() = default;
  Matrix(int64_t r, int64_t c) : rows(r), columns(c), data(static_cast<size_t>(r * c)) {}
  double& at(int64_t i, int64_t j) { return data[static_cast<size_t>(i * columns + j)]; }
  double at(int64_t i, int64_t j) const { return data[static_cast<size_t>(i * columns + j)]; }
};

Matrix multiply(const Matrix& a, const Matrix& b);             ///< A·B
Matrix multiply_transposed(const Matrix& a, const Matrix& b);  ///< A·Bᵀ
Matrix transposed_multiply(const Matrix& a, const Matrix& b);  ///< Aᵀ·B

/// One training step of a LLaMA after the papers' algorithms, in plain loops: an implementation that shares nothing
/// with the engine's but its definition. Weights have the engine's names and layouts ("layers.0.attention.qkv.weight"
/// [q|k|v rows], "layers.0.mlp.gate_up.weight" [gate|up rows]).
///
/// Wherever a projector is given for a tensor, what backward sees of it is sketched:
///   Ĝ = dYᵀ·(X·P), G̃ = Ĝ·Pᵀ                          for what linear layers read (CompAct eq. 3–5, PRAC algorithm 1)
///   X̃ = X·P·Pᵀ in the backward of RMSNorm and SwiGLU    (PRAC algorithm 2)
class NaiveLlama {
 public:
  NaiveLlama(model::ModelConfig config, int64_t batch, int64_t sequence)
      : c_(std::move(config)), batch_(batch), sequence_(sequence) {}

  std::map<std::string, Matrix> weights;  ///< vectors are [1,n]
  std::map<std::string, Matrix>
      projectors;  ///< by tensor: "layers.0.attention.qkv.input", "….norm.xhat", "….mlp.gate_up.0"
  /// After `step`: G̃ of every weight (Ĝ where `keep_low_rank` holds its name's tensor), and the exact tensors by name.
  std::map<std::string, Matrix> gradients, tensors;
  bool low_rank = false;  ///< linear layers with a projector leave Ĝ instead of Ĝ·Pᵀ

  /// Mean cross-entropy; fills `gradients` and `tensors`.
  double step(const std::vector<int32_t>& tokens, const std::vector<int32_t>& targets);
  /// Forward only, for refreshes: fills `tensors`.
  void forward(const std::vector<int32_t>& tokens);

 private:
  struct Layer {
    Matrix x_in, xhat1, norm1, qkv, attention, x_mid, xhat2, norm2, gate_up, product;
    Values rstd1, rstd2;
    std::vector<Matrix> probabilities;  ///< by (batch, head)
  };
  int64_t tokens() const { return batch_ * sequence_; }
  std::string name(int64_t layer, const char* part) const;
  const Matrix& weight(const std::string& name) const { return weights.at(name); }
  Matrix norm_forward(const Matrix& x, const Matrix& gain, Matrix& xhat, Values& rstd) const;
  Matrix norm_backward(const Matrix& dy, const std::string& gain, const Matrix& xhat, const Values& rstd);
  void rotate(Matrix& qkv, bool inverse) const;
  void attend(Layer& layer) const;
  Matrix attend_backward(const Layer& layer, const Matrix& dout) const;
  void run_layer(int64_t index, Matrix& x, Layer& layer);
  void layer_backward(int64_t index, Matrix& dx, const Layer& layer);
  void linear_gradient(const std::string& weight, const std::string& input, const Matrix& dy, const Matrix& x);
  Matrix reconstructed(const std::string& tensor, const Matrix& x) const;

  model::ModelConfig c_;
  int64_t batch_, sequence_;
  std::vector<Layer> layers_;
  Matrix x_, xhat_, head_input_;
  Values rstd_;
};

}  // namespace llmz::test
