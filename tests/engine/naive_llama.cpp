#include "engine/naive_llama.h"

#include <cmath>

namespace llmz::test {

Matrix multiply(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.columns);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t k = 0; k < a.columns; ++k) {
      for (int64_t j = 0; j < b.columns; ++j) c.at(i, j) += a.at(i, k) * b.at(k, j);
    }
  }
  return c;
}

Matrix multiply_transposed(const Matrix& a, const Matrix& b) {
  Matrix c(a.rows, b.rows);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.rows; ++j) {
      for (int64_t k = 0; k < a.columns; ++k) c.at(i, j) += a.at(i, k) * b.at(j, k);
    }
  }
  return c;
}

Matrix transposed_multiply(const Matrix& a, const Matrix& b) {
  Matrix c(a.columns, b.columns);
  for (int64_t k = 0; k < a.rows; ++k) {
    for (int64_t i = 0; i < a.columns; ++i) {
      for (int64_t j = 0; j < b.columns; ++j) c.at(i, j) += a.at(k, i) * b.at(k, j);
    }
  }
  return c;
}

namespace {

void add(Matrix& a, const Matrix& b) {
  for (size_t i = 0; i < a.data.size(); ++i) a.data[i] += b.data[i];
}

Matrix columns(const Matrix& a, int64_t first, int64_t count) {
  Matrix part(a.rows, count);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < count; ++j) part.at(i, j) = a.at(i, first + j);
  }
  return part;
}

double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

}  // namespace

std::string NaiveLlama::name(int64_t layer, const char* part) const {
  return "layers." + std::to_string(layer) + "." + part;
}

Matrix NaiveLlama::norm_forward(const Matrix& x, const Matrix& gain, Matrix& xhat, Values& rstd) const {
  xhat = Matrix(x.rows, x.columns);
  Matrix out(x.rows, x.columns);
  rstd.assign(static_cast<size_t>(x.rows), 0);
  for (int64_t t = 0; t < x.rows; ++t) {
    double squares = 0;
    for (int64_t j = 0; j < x.columns; ++j) squares += x.at(t, j) * x.at(t, j);
    const double r = 1 / std::sqrt(squares / static_cast<double>(x.columns) + static_cast<double>(c_.norm_eps));
    rstd[static_cast<size_t>(t)] = r;
    for (int64_t j = 0; j < x.columns; ++j) {
      xhat.at(t, j) = x.at(t, j) * r;
      out.at(t, j) = xhat.at(t, j) * gain.at(0, j);
    }
  }
  return out;
}

/// dx = rstd·(dx̂ − x̂·mean(dx̂∘x̂)), dx̂ = dy∘gain, with the x̂ that backward has.
Matrix NaiveLlama::norm_backward(const Matrix& dy, const std::string& gain, const Matrix& xhat, const Values& rstd) {
  Matrix dx(dy.rows, dy.columns), dgain(1, dy.columns);
  for (int64_t t = 0; t < dy.rows; ++t) {
    double mean = 0;
    for (int64_t j = 0; j < dy.columns; ++j) {
      mean += dy.at(t, j) * weight(gain).at(0, j) * xhat.at(t, j) / static_cast<double>(dy.columns);
      dgain.at(0, j) += dy.at(t, j) * xhat.at(t, j);
    }
    for (int64_t j = 0; j < dy.columns; ++j) {
      dx.at(t, j) = rstd[static_cast<size_t>(t)] * (dy.at(t, j) * weight(gain).at(0, j) - xhat.at(t, j) * mean);
    }
  }
  gradients[gain] = dgain;
  return dx;
}

/// Queries and keys turn in pairs (i, i + D/2) by position·base^(−2i/D).
void NaiveLlama::rotate(Matrix& qkv, bool inverse) const {
  const int64_t d = c_.head_dim(), heads = c_.heads + c_.kv_heads_or_heads();
  for (int64_t t = 0; t < qkv.rows; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < d / 2; ++i) {
        const double angle =
            static_cast<double>(t % sequence_) *
            std::pow(static_cast<double>(c_.rope_base), -2.0 * static_cast<double>(i) / static_cast<double>(d));
        const double s = inverse ? -std::sin(angle) : std::sin(angle), c = std::cos(angle);
        double &a = qkv.at(t, h * d + i), &b = qkv.at(t, h * d + i + d / 2);
        const double turned = a * c - b * s;
        b = b * c + a * s;
        a = turned;
      }
    }
  }
}

void NaiveLlama::attend(Layer& layer) const {
  const int64_t d = c_.head_dim(), kv = c_.kv_heads_or_heads(), group = c_.heads / kv;
  layer.attention = Matrix(tokens(), c_.heads * d);
  layer.probabilities.clear();
  for (int64_t b = 0; b < batch_; ++b) {
    for (int64_t h = 0; h < c_.heads; ++h) {
      const int64_t key = (c_.heads + h / group) * d, value = (c_.heads + kv + h / group) * d, row = b * sequence_;
      Matrix p(sequence_, sequence_);
      for (int64_t i = 0; i < sequence_; ++i) {
        double total = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double score = 0;
          for (int64_t c = 0; c < d; ++c) score += layer.qkv.at(row + i, h * d + c) * layer.qkv.at(row + j, key + c);
          p.at(i, j) = std::exp(score / std::sqrt(static_cast<double>(d)));
          total += p.at(i, j);
        }
        for (int64_t j = 0; j <= i; ++j) {
          p.at(i, j) /= total;
          for (int64_t c = 0; c < d; ++c) {
            layer.attention.at(row + i, h * d + c) += p.at(i, j) * layer.qkv.at(row + j, value + c);
          }
        }
      }
      layer.probabilities.push_back(p);
    }
  }
}

Matrix NaiveLlama::attend_backward(const Layer& layer, const Matrix& dout) const {
  const int64_t d = c_.head_dim(), kv = c_.kv_heads_or_heads(), group = c_.heads / kv;
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  Matrix dqkv(tokens(), layer.qkv.columns);
  for (int64_t b = 0; b < batch_; ++b) {
    for (int64_t h = 0; h < c_.heads; ++h) {
      const int64_t key = (c_.heads + h / group) * d, value = (c_.heads + kv + h / group) * d, row = b * sequence_;
      const Matrix& p = layer.probabilities[static_cast<size_t>(b * c_.heads + h)];
      for (int64_t i = 0; i < sequence_; ++i) {
        Values dp(static_cast<size_t>(i + 1));
        double mean = 0;
        for (int64_t j = 0; j <= i; ++j) {
          for (int64_t c = 0; c < d; ++c) {
            dp[static_cast<size_t>(j)] += dout.at(row + i, h * d + c) * layer.qkv.at(row + j, value + c);
            dqkv.at(row + j, value + c) += p.at(i, j) * dout.at(row + i, h * d + c);
          }
          mean += p.at(i, j) * dp[static_cast<size_t>(j)];
        }
        for (int64_t j = 0; j <= i; ++j) {
          const double ds = scale * p.at(i, j) * (dp[static_cast<size_t>(j)] - mean);
          for (int64_t c = 0; c < d; ++c) {
            dqkv.at(row + i, h * d + c) += ds * layer.qkv.at(row + j, key + c);
            dqkv.at(row + j, key + c) += ds * layer.qkv.at(row + i, h * d + c);
          }
        }
      }
    }
  }
  return dqkv;
}

void NaiveLlama::run_layer(int64_t index, Matrix& x, Layer& layer) {
  layer.x_in = x;
  layer.norm1 = norm_forward(x, weight(name(index, "attention.norm.gain")), layer.xhat1, layer.rstd1);
  layer.qkv = multiply_transposed(layer.norm1, weight(name(index, "attention.qkv.weight")));
  rotate(layer.qkv, false);
  attend(layer);
  add(x, multiply_transposed(layer.attention, weight(name(index, "attention.out.weight"))));
  layer.x_mid = x;
  layer.norm2 = norm_forward(x, weight(name(index, "mlp.norm.gain")), layer.xhat2, layer.rstd2);
  layer.gate_up = multiply_transposed(layer.norm2, weight(name(index, "mlp.gate_up.weight")));
  layer.product = Matrix(tokens(), c_.intermediate);
  for (int64_t t = 0; t < tokens(); ++t) {
    for (int64_t j = 0; j < c_.intermediate; ++j) {
      const double z = layer.gate_up.at(t, j);
      layer.product.at(t, j) = z * sigmoid(z) * layer.gate_up.at(t, c_.intermediate + j);
    }
  }
  add(x, multiply_transposed(layer.product, weight(name(index, "mlp.down.weight"))));

  tensors[name(index, "attention.norm.xhat")] = layer.xhat1;
  tensors[name(index, "attention.qkv.input")] = layer.norm1;
  tensors[name(index, "attention.out")] = layer.attention;
  tensors[name(index, "mlp.norm.xhat")] = layer.xhat2;
  tensors[name(index, "mlp.gate_up.input")] = layer.norm2;
  tensors[name(index, "mlp.gate_up.0")] = columns(layer.gate_up, 0, c_.intermediate);
  tensors[name(index, "mlp.gate_up.1")] = columns(layer.gate_up, c_.intermediate, c_.intermediate);
  tensors[name(index, "mlp.product")] = layer.product;
}

void NaiveLlama::forward(const std::vector<int32_t>& ids) {
  x_ = Matrix(tokens(), c_.hidden);
  for (int64_t t = 0; t < tokens(); ++t) {
    for (int64_t j = 0; j < c_.hidden; ++j) x_.at(t, j) = weight("embedding.table").at(ids[static_cast<size_t>(t)], j);
  }
  layers_.assign(static_cast<size_t>(c_.layers), {});
  for (int64_t i = 0; i < c_.layers; ++i) run_layer(i, x_, layers_[static_cast<size_t>(i)]);
  head_input_ = norm_forward(x_, weight("head.norm.gain"), xhat_, rstd_);
}

void NaiveLlama::linear_gradient(const std::string& weight_name, const std::string& input, const Matrix& dy,
                                 const Matrix& x) {
  const auto p = projectors.find(input);
  if (p == projectors.end()) {
    gradients[weight_name] = transposed_multiply(dy, x);
    return;
  }
  const Matrix low = transposed_multiply(dy, multiply(x, p->second));
  gradients[weight_name] = low_rank ? low : multiply_transposed(low, p->second);
}

Matrix NaiveLlama::reconstructed(const std::string& tensor, const Matrix& x) const {
  const auto p = projectors.find(tensor);
  return p == projectors.end() ? x : multiply_transposed(multiply(x, p->second), p->second);
}

void NaiveLlama::layer_backward(int64_t index, Matrix& dx, const Layer& layer) {
  const int64_t f = c_.intermediate;
  linear_gradient(name(index, "mlp.down.weight"), name(index, "mlp.product"), dx, layer.product);
  const Matrix dproduct = multiply(dx, weight(name(index, "mlp.down.weight")));
  const Matrix gate = reconstructed(name(index, "mlp.gate_up.0"), columns(layer.gate_up, 0, f));
  const Matrix up = reconstructed(name(index, "mlp.gate_up.1"), columns(layer.gate_up, f, f));
  Matrix dgate_up(tokens(), 2 * f);
  for (int64_t t = 0; t < tokens(); ++t) {
    for (int64_t j = 0; j < f; ++j) {
      const double z = gate.at(t, j), s = sigmoid(z), d = dproduct.at(t, j);
      dgate_up.at(t, j) = d * up.at(t, j) * (s + z * s * (1 - s));
      dgate_up.at(t, f + j) = d * z * s;
    }
  }
  linear_gradient(name(index, "mlp.gate_up.weight"), name(index, "mlp.gate_up.input"), dgate_up, layer.norm2);
  Matrix dnorm = multiply(dgate_up, weight(name(index, "mlp.gate_up.weight")));
  add(dx, norm_backward(dnorm, name(index, "mlp.norm.gain"), reconstructed(name(index, "mlp.norm.xhat"), layer.xhat2),
                        layer.rstd2));

  linear_gradient(name(index, "attention.out.weight"), name(index, "attention.out"), dx, layer.attention);
  Matrix dqkv = attend_backward(layer, multiply(dx, weight(name(index, "attention.out.weight"))));
  rotate(dqkv, true);
  linear_gradient(name(index, "attention.qkv.weight"), name(index, "attention.qkv.input"), dqkv, layer.norm1);
  dnorm = multiply(dqkv, weight(name(index, "attention.qkv.weight")));
  add(dx, norm_backward(dnorm, name(index, "attention.norm.gain"),
                        reconstructed(name(index, "attention.norm.xhat"), layer.xhat1), layer.rstd1));
}

double NaiveLlama::step(const std::vector<int32_t>& ids, const std::vector<int32_t>& targets) {
  forward(ids);
  Matrix logits = multiply_transposed(head_input_, weight("head.weight"));
  const double share = 1 / static_cast<double>(tokens());
  double loss = 0;
  for (int64_t t = 0; t < tokens(); ++t) {
    double total = 0;
    for (int64_t v = 0; v < c_.vocab_size; ++v) total += std::exp(logits.at(t, v));
    loss += share * (std::log(total) - logits.at(t, targets[static_cast<size_t>(t)]));
    for (int64_t v = 0; v < c_.vocab_size; ++v) {
      logits.at(t, v) = share * (std::exp(logits.at(t, v)) / total - (v == targets[static_cast<size_t>(t)] ? 1 : 0));
    }
  }
  gradients["head.weight"] = transposed_multiply(logits, head_input_);
  Matrix dx = norm_backward(multiply(logits, weight("head.weight")), "head.norm.gain", xhat_, rstd_);
  for (int64_t i = c_.layers; i-- > 0;) layer_backward(i, dx, layers_[static_cast<size_t>(i)]);
  Matrix table(c_.vocab_size, c_.hidden);
  for (int64_t t = 0; t < tokens(); ++t) {
    for (int64_t j = 0; j < c_.hidden; ++j) table.at(ids[static_cast<size_t>(t)], j) += dx.at(t, j);
  }
  gradients["embedding.table"] = table;
  return loss;
}

}  // namespace llmz::test
