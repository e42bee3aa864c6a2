// Whole training steps of CompAct and PRAC against transcriptions of the papers' algorithms in plain double-precision
// loops: ten steps with two refreshes after the first projectors.
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <cmath>

#include "catch.h"
#include "engine/naive_llama.h"
#include "engine/tiny_engine.h"
#include "llmz/core/random.h"
#include "llmz/engine/engine.h"
#include "llmz/run/config_io.h"
#include "llmz/run/placement.h"
#include "llmz/run/presets.h"
#include "run/preset_run.h"

using namespace llmz;
using namespace llmz::engine;
using namespace llmz::run;
using test::Matrix;
using test::NaiveLlama;

namespace {

constexpr int64_t kBatch = 2, kSequence = 7, kRefresh = 4, kSteps = 10;
constexpr uint64_t kSeed = 21;
constexpr float kLr = 0.02f, kBeta1 = 0.9f, kBeta2 = 0.95f, kEps = 1e-8f, kDecay = 0.1f, kClip = 0.3f;

RunConfig tiny(const std::string& preset) {
  RunConfig config;
  config.model = {.architecture = "llama",
                  .vocab_size = 23,
                  .hidden = 12,
                  .intermediate = 20,
                  .layers = 2,
                  .heads = 6,
                  .kv_heads = 3,
                  .context = 16,
                  .init_std = 0.3f};
  config.optimizer.beta1 = kBeta1;
  config.optimizer.beta2 = kBeta2;
  config.optimizer.eps = kEps;
  config.optimizer.weight_decay = kDecay;
  config.optimizer.clip_norm = kClip;
  config.train.seed = kSeed;
  config.train.micro_batch = kBatch;
  config.train.sequence = kSequence;
  config.train.loss_chunk = 5;
  config = with_preset(config, preset);
  test::refresh_every(config.activations, kRefresh);
  for (const nn::ActivationRole& role : nn::activation_roles()) {
    (config.activations.*role.config).projector.decomposition = subspace::Decomposition::exact;
  }
  return config;
}

/// The stream of a tensor's projector that begins at `step`: the run's seed, the tensor's name by FNV-1a, and the step.
/// Parts of a tensor, "mlp.gate_up.0" and so on, count on from it.
struct ProjectorStream {
  uint64_t seed;
  uint32_t layer;
};

ProjectorStream stream_of(const std::string& tensor, int64_t step) {
  const bool part = tensor.ends_with(".0") || tensor.ends_with(".1");
  const std::string whole = part ? tensor.substr(0, tensor.size() - 2) : tensor;
  uint64_t layer = 0x811c9dc5;
  for (const unsigned char letter : whole) layer = ((layer ^ letter) * 0x01000193) & 0xffffffff;
  if (part) layer += static_cast<uint64_t>(tensor.back() - '0');
  const auto word =
      RandomStream(kSeed, Purpose::projector, static_cast<uint32_t>(layer)).block(static_cast<uint64_t>(step));
  return {(static_cast<uint64_t>(word[0]) << 32) | word[1], static_cast<uint32_t>(layer)};
}

/// CompAct: entries N(0, 1/r).
Matrix gaussian_projector(int64_t n, int64_t r, const ProjectorStream& s) {
  const RandomStream stream(s.seed, Purpose::projector, s.layer);
  Matrix p(n, r);
  const float stddev = 1.0f / std::sqrt(static_cast<float>(r));
  for (int64_t i = 0; i < n * r; ++i) {
    p.data[static_cast<size_t>(i)] = static_cast<double>(stddev * stream.normal(static_cast<uint64_t>(i)));
  }
  return p;
}

/// PRAC, algorithm 1: Q₁ from the eigenvectors of XᵀX, Q₂ from the QR of (I − Q₁Q₁ᵀ)S, P = [Q₁, √k·Q₂].
Matrix prac_projector(const Matrix& x, int64_t r1, int64_t r2, const ProjectorStream& s) {
  const int64_t n = x.columns;
  using Dense = Eigen::MatrixXd;
  Dense data(x.rows, n);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t j = 0; j < n; ++j) data(t, j) = x.at(t, j);
  }
  const Eigen::SelfAdjointEigenSolver<Dense> eigen(data.transpose() * data);
  const Dense q1 = eigen.eigenvectors().rightCols(r1);
  const RandomStream stream(s.seed, Purpose::projector, s.layer);
  Dense random(n, r2);  // numbers go along the directions: direction j has n·j … n·j + n − 1
  for (int64_t j = 0; j < r2; ++j) {
    for (int64_t i = 0; i < n; ++i) random(i, j) = static_cast<double>(stream.normal(static_cast<uint64_t>(j * n + i)));
  }
  random -= q1 * (q1.transpose() * random).eval();
  Eigen::HouseholderQR<Dense> qr(random);
  const Dense q2 = qr.householderQ() * Dense::Identity(n, r2);
  const double root = std::sqrt(static_cast<double>(n - r1) / static_cast<double>(r2));
  Matrix p(n, r1 + r2);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < r1; ++j) p.at(i, j) = q1(i, j);
    for (int64_t j = 0; j < r2; ++j) p.at(i, r1 + j) = root * q2(i, j);
  }
  return p;
}

/// Adam's moments, in the paper's letters.
struct Adam {
  std::vector<double> m, v;
  /// N = M̂/(√V̂ + ε).
  std::vector<double> direction(const Matrix& g, double scale, int64_t step) {
    m.resize(g.data.size());
    v.resize(g.data.size());
    std::vector<double> n(g.data.size());
    const double b1 = static_cast<double>(kBeta1), b2 = static_cast<double>(kBeta2);
    for (size_t i = 0; i < n.size(); ++i) {
      const double gradient = scale * g.data[i];
      m[i] = b1 * m[i] + (1 - b1) * gradient;
      v[i] = b2 * v[i] + (1 - b2) * gradient * gradient;
      const double m_hat = m[i] / (1 - std::pow(b1, static_cast<double>(step)));
      const double v_hat = v[i] / (1 - std::pow(b2, static_cast<double>(step)));
      n[i] = m_hat / (std::sqrt(v_hat) + static_cast<double>(kEps));
    }
    return n;
  }
};

/// The engine and the transcription, side by side.
class Duel {
 public:
  explicit Duel(const RunConfig& config)
      : config_(config), engine_(options(config)), naive_(config.model, kBatch, kSequence) {
    engine_.initialise(kSeed);
    for (const Parameter* p : engine_.model().parameters()) {
      const Tensor& w = p->weight;
      Matrix& mine = naive_.weights[p->name] = w.rank() == 2 ? Matrix(w.dim(0), w.dim(1)) : Matrix(1, w.dim(0));
      std::copy_n(w.as<double>(), w.numel(), mine.data.begin());
    }
  }

  NaiveLlama& naive() { return naive_; }
  /// What a linear weight's projector belongs to: the tensor that the layer reads.
  static std::string input_of(const std::string& weight) {
    const std::string block = weight.substr(0, 9);
    if (weight.ends_with("attention.qkv.weight")) return block + "attention.qkv.input";
    if (weight.ends_with("attention.out.weight")) return block + "attention.out";
    if (weight.ends_with("mlp.gate_up.weight")) return block + "mlp.gate_up.input";
    if (weight.ends_with("mlp.down.weight")) return block + "mlp.product";
    return "";
  }

  /// Runs both for ten steps. `refresh(step)` renews the naive model's projectors, which has just run forward.
  void run(const std::function<void(int64_t)>& refresh, bool subspace) {
    for (int64_t step = 1; step <= kSteps; ++step) {
      INFO("step " << step);
      const auto [tokens, targets] =
          test::random_batch(kBatch * kSequence, static_cast<uint64_t>(100 * step), config_.model.vocab_size);
      if ((step - 1) % kRefresh == 0) {
        naive_.forward(tokens);
        refresh(step - 1);
      }
      naive_.low_rank = subspace;
      const double loss = naive_.step(tokens, targets);
      engine_.begin_step(step);
      const double count = kBatch * kSequence;
      engine_.micro_step(tokens, targets, 1.0f / static_cast<float>(count));
      const double got = engine_.loss_sum() / count;
      CHECK(got == Approx(loss).epsilon(1e-6));  // the clipping coefficient and the loss's scale are fp32 numbers
      const double norm = update(step, subspace);
      CHECK(engine_.update(step, static_cast<double>(kLr)) == Approx(norm).epsilon(1e-6));
    }
    for (const Parameter* p : engine_.model().parameters()) {
      INFO(p->name);
      const Matrix& mine = naive_.weights[p->name];
      double largest = 0, worst = 0;
      for (size_t i = 0; i < mine.data.size(); ++i) {
        largest = std::max(largest, std::abs(mine.data[i]));
        worst = std::max(worst, std::abs(mine.data[i] - p->weight.as<double>()[i]));
      }
      CHECK(worst < 2e-5 * largest);  // ten steps of Adam, which divides small gradients by their own size
    }
  }

 private:
  static EngineOptions options(const RunConfig& config) {
    EngineOptions o = engine_options(config);
    o.build.precision = {DType::f64, DType::f64};
    return o;
  }

  /// Clipping by the norm of the expanded gradient, then the papers' updates. Returns the norm.
  double update(int64_t step, bool subspace) {
    double squares = 0;
    for (const auto& [name, g] : naive_.gradients) {
      const bool low = subspace && naive_.projectors.count(input_of(name)) > 0;
      const Matrix whole = low ? test::multiply_transposed(g, naive_.projectors[input_of(name)]) : g;
      for (double x : whole.data) squares += x * x;
    }
    const double norm = std::sqrt(squares);
    const double scale =
        static_cast<double>(static_cast<float>(std::min(1.0, static_cast<double>(kClip) / (norm + 1e-6))));
    for (const auto& [name, g] : naive_.gradients) {
      Matrix& w = naive_.weights[name];
      const bool low = subspace && naive_.projectors.count(input_of(name)) > 0;
      const bool decays = w.rows > 1 && name != "embedding.table";
      double lr = static_cast<double>(kLr);
      if (name.ends_with("attention.out.weight")) {
        lr = static_cast<double>(
            static_cast<float>(lr * static_cast<double>(config_.optimizer.lr_scale.attention_output)));
      }
      const std::vector<double> n = adam_[name].direction(g, scale, step);
      for (double& x : w.data) x -= decays ? lr * static_cast<double>(kDecay) * x : 0.0;
      if (!low) {
        for (size_t i = 0; i < w.data.size(); ++i) w.data[i] -= lr * n[i];
        continue;
      }
      Matrix direction(g.rows, g.columns);  // CompAct: W ← W − η·α·N·Pᵀ, α = 1/4
      direction.data = n;
      const Matrix back = test::multiply_transposed(direction, naive_.projectors[input_of(name)]);
      for (size_t i = 0; i < w.data.size(); ++i) w.data[i] -= lr * 0.25 * back.data[i];
    }
    return norm;
  }

  RunConfig config_;
  Engine engine_;
  NaiveLlama naive_;
  std::map<std::string, Adam> adam_;
};

int64_t fraction(double part, int64_t n) {
  return std::max<int64_t>(1, static_cast<int64_t>(std::floor(part * static_cast<double>(n) + 1e-9)));
}

}  // namespace

TEST_CASE("full rank equals a plain transcription of LLaMA and AdamW") {
  Duel duel(tiny("full"));
  duel.run([](int64_t) {}, false);
}

TEST_CASE("CompAct equals the paper's algorithm over ten steps with two refreshes") {
  Duel duel(tiny("compact_n4"));
  duel.run(
      [&](int64_t step) {
        for (const auto& [name, x] : duel.naive().tensors) {
          const bool sketched = name.ends_with(".input") || name.ends_with(".product");
          if (sketched)
            duel.naive().projectors[name] = gaussian_projector(x.columns, x.columns / 4, stream_of(name, step));
        }
      },
      true);
}

TEST_CASE("PRAC on linear layers equals the paper's algorithm over ten steps with two refreshes") {
  Duel duel(tiny("prac_linear"));
  duel.run(
      [&](int64_t step) {
        for (const auto& [name, x] : duel.naive().tensors) {
          if (name.find(".norm.") != std::string::npos || name.find("gate_up.0") != std::string::npos ||
              name.find("gate_up.1") != std::string::npos) {
            continue;
          }
          const int64_t r = fraction(0.3, x.columns);
          duel.naive().projectors[name] = prac_projector(x, r, r, stream_of(name, step));
        }
      },
      false);
}

TEST_CASE("PRAC with norms and SwiGLU equals the paper's algorithm over ten steps with two refreshes") {
  Duel duel(tiny("prac"));
  duel.run(
      [&](int64_t step) {
        for (const auto& [name, x] : duel.naive().tensors) {
          const bool linear = name.ends_with(".input") || name.ends_with(".product") || name.ends_with("attention.out");
          const int64_t r = fraction(linear ? 0.3 : 0.2, x.columns);
          duel.naive().projectors[name] = prac_projector(x, r, r, stream_of(name, step));
        }
      },
      false);
}
