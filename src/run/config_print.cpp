#include "llmz/core/error.h"
#include "llmz/run/config_io.h"
#include "src/run/config_schema.h"

namespace llmz::run {
namespace {

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

std::string text_of(const config::Json& json) {
  try {
    return json.dump(2) + "\n";
  } catch (const config::Json::exception& error) {
    fail("the configuration holds a text that is not UTF-8: {}", error.what());
  }
}

}  // namespace

std::string to_json(RunConfig config) { return text_of(config::value_to_json(schema(), &config)); }

std::string changes_json(RunConfig config) {
  RunConfig defaults;
  return text_of(config::changes_to_json(schema(), &config, &defaults));
}

std::string config_reference_markdown() {
  RunConfig defaults;
  return kIntroduction + config::tables_markdown(schema(), &defaults);
}

}  // namespace llmz::run
