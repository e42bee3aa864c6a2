#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "llmz/run/config.h"

namespace llmz::report {

/// What a first configuration is to serve.
struct StarterRequest {
  std::string data;    ///< folder made by `llmz data prepare`
  std::string model;   ///< name of a model; empty: the largest that data, memory and time are enough for
  std::string preset;  ///< name of a preset; empty: the most exact that fits with enough tokens at once
  std::string device;  ///< as train.device; empty: auto
  std::string output;  ///< run folder
  std::string file;    ///< where the configuration will lie; models are looked up beside it
  int64_t memory = 0;  ///< bytes that the run may take; 0: nine tenths of what is free
  double seconds = 0;  ///< that training may take; 0: as long as the model wants tokens
};

/// One key that was chosen.
struct ChosenKey {
  std::string key;  ///< dotted path
  nlohmann::ordered_json value;
  std::string why;  ///< one sentence
};

struct Starter {
  std::string text;              ///< the configuration, a comment above every key
  run::RunConfig config;         ///< the same, as the reader of configurations takes it
  int64_t parameters = 0;        ///< of the model
  size_t planned_bytes = 0;      ///< Engine::plan
  double tokens_per_second = 0;  ///< measured; 0 where no time was asked for
};

/// A configuration for `request`. The model: the largest built-in LLaMA that fits the memory, and whose 20 tokens a
/// parameter (arXiv 2203.15556) are there in four passes over the data (arXiv 2305.16264) and in the time. Memory is
/// that of Engine::plan, for every candidate; speed is measured on steps of the one that is chosen, and, to choose it,
/// estimated from this machine's matrix products. Rates are those of the built-in configuration nearest in size.
/// Throws Error where nothing fits, naming what the smallest needs, and for data or names that are not there.
Starter make_starter(const StarterRequest& request);

/// JSON with a comment above every key, `intro` above all.
std::string commented_json(const std::string& intro, const std::vector<ChosenKey>& choices);

}  // namespace llmz::report
