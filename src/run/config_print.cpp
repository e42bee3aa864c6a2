#include <set>

#include "config_schema.h"
#include "config_text.h"
#include "llmz/core/decimal.h"
#include "llmz/core/error.h"
#include "llmz/run/config_io.h"

namespace llmz::train {
namespace {

struct ToJson {
  template <class T>
  Json operator()(const T* slot) const {
    return *slot;
  }
  Json operator()(const float* slot) const { return decimal_double(*slot); }
};

Json value_of(const Key& key, RunConfig& config) { return std::visit(ToJson{}, key.slot(config)); }

/// The member of `root` that a dotted path leads to, made on the way.
Json& member(Json& root, const std::string& path) {
  const size_t dot = path.find('.');
  Json& next = root[path.substr(0, dot)];
  return dot == std::string::npos ? next : member(next, path.substr(dot + 1));
}

std::string code(const std::string& text) { return "`" + text + "`"; }

std::string allowed_markdown(const Key& key) {
  if (key.choices.empty()) return key.range.text();
  std::string text;
  for (const std::string& choice : key.choices) text += (text.empty() ? "" : ", ") + code(choice);
  return text;
}

constexpr const char* kIntroduction = R"(# Configuration

<!-- Made from src/run/config_schema.cpp, and compared with it by a test. To write it again:
     LLMZ_WRITE_DOCS=1 ctest --test-dir build -R config -->

A run is one JSON file, read by `llmz train` and `llmz plan`. Every key may be left out and then has the default below.
`//` and `/* */` comments are allowed. An unknown key, a key that stands twice, a wrong type or a value out of range is
an error that names file, line and key. The complete configuration of a run, defaults and overrides included, is
written into its run folder and its checkpoints; that file is a configuration too.

```json
{
  "model": "llama-60m",
  "data": { "path": "data/c4" },
  "optimizer": { "lr": 0.002 },
  "train": { "steps": 10000, "micro_batch": 32, "global_batch": 512 }
}
```

**Overrides.** `--set train.steps=200 --set optimizer.lr=1e-3` changes single keys from the command line, after the file
and in the order given; the last one wins. Texts need no quotes, lists are written `a,b,c` or as JSON, objects as JSON.

**Models.** `"model"` is an object of the keys below, or the name of a model, or an object that starts from a named one:
`{"base": "llama-60m", "context": 2048}`. A name such as `llama-60m` means `models/llama-60m.json` beside the
configuration (in the working directory where the configuration is no file) or, failing that, the model of that name
inside the program: the files of `configs/models` are built in. A name with a slash or the ending `.json` is a path that
starts at the configuration's folder. Such a file holds an object of model keys. `--set model=llama-130m` puts another
model in the place of the file's, also of one that is not known.

**Built-in configurations.** The files of `configs` are in the program too: `llmz train llama-60m-c4` and `llmz plan
llama-60m-c4` take the built-in one where there is no file of that name. `llmz init` writes a configuration for your own
data, with a comment at every key.

**Presets.** `"preset": "lean"` fills in the keys of a named method first: the keys of `activations` and
`weight_gradient` and where the optimizer's moments live; keys in the file then change single ones. `llmz plan --presets`
lists them, `llmz plan --show lean` prints one as JSON.

A *whole number* may be written 10000 or 1e4.
)";

}  // namespace

std::string to_json(const RunConfig& config, bool complete) {
  RunConfig copy = config;
  Json root = Json::object();
  RunConfig defaults;
  for (const Key& key : schema()) {
    Json value = value_of(key, copy);
    if (complete || key.family.empty() || value != value_of(key, defaults)) member(root, key.path) = std::move(value);
  }
  try {
    return root.dump(2) + "\n";
  } catch (const Json::exception& error) {
    fail("the configuration holds a text that is not UTF-8: {}", error.what());
  }
}

std::string config_reference_markdown() {
  RunConfig defaults;
  std::string text = kIntroduction;
  for (const Section& section : sections()) {
    text += fmt::format("\n## `{}`\n\n{}\n\n| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n",
                        section.name, section.meaning);
    std::set<std::string> families;
    for (const Key& key : schema()) {
      if (key.section() != section.name) continue;
      if (!key.family.empty() && !families.insert(key.family).second) continue;
      text += fmt::format("| {} | {} | {} | {} | {} |\n", code(key.family.empty() ? key.path : key.family),
                          type_name(key.slot(defaults)), code(value_of(key, defaults).dump()), allowed_markdown(key),
                          key.meaning);
    }
  }
  return text;
}

}  // namespace llmz::train
