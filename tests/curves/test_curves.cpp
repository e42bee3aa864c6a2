// Loss curves of every preset, kept as numbers: a change of the code that is meant to change no number changes none of
// their bits. One rank and four, straight through and taken up again from a checkpoint, of this llmz and of an older
// one. To keep new ones, on purpose: LLMZ_WRITE_CURVES=1 ctest --test-dir build -R curves
#include "catch.h"
#include "curves/cases.h"
#include "curves/expected.h"
#include "llmz/core/error.h"
#include "ranks/mpi_run.h"

using namespace llmz::testing;

namespace {

Curve train(const TinyRun& place, const CurveCase& c, int ranks, const std::string& how) {
  Settings settings = common_settings();
  settings.push_back(fmt::format("train.threads={}", ranks == 1 ? 2 : 1));
  settings.insert(settings.end(), c.settings.begin(), c.settings.end());
  const Outcome outcome = run_on(ranks, place, train_arguments(settings, {how}));
  INFO(c.name << ": " << outcome.err);
  REQUIRE(outcome.exit_code == 0);
  return read_curve(place / "run");
}

/// The end of a curve.
Curve after(const Curve& whole, int64_t step) {
  Curve rest = whole;
  for (auto* values : {&rest.loss, &rest.grad_norm, &rest.validation}) {
    values->erase(values->begin(), values->upper_bound(step));
  }
  return rest;
}

fs::path saved(const fs::path& run, int step) { return run / "checkpoints" / fmt::format("step_{:08}", step); }

/// An older run's folder, as it was when it stood at kSavedStep.
void put_old_checkpoint(const TinyRun& place, const CurveCase& c) {
  fs::remove_all(place / "run");
  fs::create_directories(saved(place / "run", kSavedStep));
  fs::copy(fs::path(LLMZ_CURVES) / "format1" / c.name, saved(place / "run", kSavedStep));
}

}  // namespace

TEST_CASE("loss curves of every preset are those that were kept, straight through and resumed") {
  const TinyRun place(/*in_memory=*/true);
  ExpectedCurves expected;
  if (!expected.same_machine())
    WARN("compared within a tolerance, for this is another machine or build: " << expected.machine());
  for (const CurveCase& c : curve_cases()) {
    const Curve straight = train(place, c, 1, "--overwrite");
    expected.check(c.name, straight);
    fs::remove_all(saved(place / "run", kCurveSteps));
    REQUIRE(fs::exists(saved(place / "run", kSavedStep)));
    const Curve resumed = train(place, c, 1, "--resume");
    INFO(c.name);
    CHECK(distance(after(straight, kSavedStep), after(resumed, kSavedStep)) == 0);
  }
  expected.finish();
}

TEST_CASE("loss curves of four ranks are those that were kept") {
  if (!is_open_mpi()) {
    WARN("skipped: there is no Open MPI here");
    return;
  }
  const TinyRun place(/*in_memory=*/true);
  ExpectedCurves expected;
  for (const CurveCase& c : curve_cases()) {
    if (c.on_ranks) expected.check(c.name + " on 4 ranks", train(place, c, 4, "--overwrite"));
  }
  expected.finish();
}

TEST_CASE("runs that an llmz of checkpoint format 1 saved go on as they did there") {
  const TinyRun place(/*in_memory=*/true);
  ExpectedCurves expected;
  for (const CurveCase& c : old_checkpoint_cases()) {
    put_old_checkpoint(place, c);
    const Curve resumed = train(place, c, 1, "--resume");
    REQUIRE(resumed.loss.size() == kCurveSteps - kSavedStep);
    expected.check("format 1/" + c.name, resumed);
  }
  expected.finish();
}
