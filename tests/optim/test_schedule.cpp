#include <cmath>

#include "catch.h"
#include "errors.h"
#include "llmz/optim/config.h"

using namespace llmz;
using optim::schedule_factor;
using optim::ScheduleConfig;

namespace {

// The formulas take a handful of double operations on values of at most 1, so a few units of 1e-16.
Approx near(double value) { return Approx(value).margin(1e-14).epsilon(0); }

}  // namespace

TEST_CASE("the warm-up is linear, has no step at 0 and reaches the peak right after it") {
  const auto kind = GENERATE("cosine", "linear", "constant", "wsd");
  const ScheduleConfig config{.kind = kind, .warmup = 4, .final_fraction = 0.25f, .decay = 10};
  for (int64_t step = 0; step < 4; ++step) {
    CHECK(schedule_factor(config, step, 100) == near(static_cast<double>(step + 1) / 5));
  }
  CHECK(schedule_factor(config, 4, 100) == 1.0);
}

TEST_CASE("without a warm-up the first step is at the peak") {
  const auto kind = GENERATE("cosine", "linear", "constant", "wsd");
  const ScheduleConfig config{.kind = kind, .warmup = 0, .final_fraction = 0, .decay = 0.5f};
  CHECK(schedule_factor(config, 0, 100) == 1.0);
  CHECK(schedule_factor(config, 0, 1) == 1.0);  // a run of one step trains at the peak
}

TEST_CASE("cosine and linear go through their known values and end at the floor") {
  // Peak at step 10, last step 90, so step 50 is the middle and step 30 a quarter.
  ScheduleConfig config{.kind = "cosine", .warmup = 10, .final_fraction = 0.25f, .decay = 0};
  CHECK(schedule_factor(config, 10, 91) == 1.0);
  CHECK(schedule_factor(config, 30, 91) == near(0.25 + 0.75 * 0.5 * (1 + std::sqrt(0.5))));
  CHECK(schedule_factor(config, 50, 91) == near(0.625));
  CHECK(schedule_factor(config, 90, 91) == 0.25);
  CHECK(schedule_factor(config, 500, 91) == 0.25);

  config.kind = "linear";
  CHECK(schedule_factor(config, 10, 91) == 1.0);
  CHECK(schedule_factor(config, 30, 91) == near(0.8125));
  CHECK(schedule_factor(config, 50, 91) == near(0.625));
  CHECK(schedule_factor(config, 90, 91) == 0.25);
  CHECK(schedule_factor(config, 500, 91) == 0.25);
}

TEST_CASE("constant stays at the peak") {
  const ScheduleConfig config{.kind = "constant", .warmup = 10, .final_fraction = 0.25f, .decay = 0.2f};
  CHECK(schedule_factor(config, 50, 91) == 1.0);
  CHECK(schedule_factor(config, 90, 91) == 1.0);
}

TEST_CASE("wsd is stable until its decay, which takes as many steps as it was given") {
  const ScheduleConfig config{.kind = "wsd", .warmup = 10, .final_fraction = 0.25f, .decay = 20};
  CHECK(schedule_factor(config, 10, 101) == 1.0);
  CHECK(schedule_factor(config, 80, 101) == 1.0);
  CHECK(schedule_factor(config, 81, 101) == near(1 - 0.75 / 20));
  CHECK(schedule_factor(config, 90, 101) == near(0.625));
  CHECK(schedule_factor(config, 100, 101) == 0.25);

  SECTION("a decay longer than what follows the warm-up starts right after it") {
    const ScheduleConfig all{.kind = "wsd", .warmup = 10, .final_fraction = 0.25f, .decay = 1000};
    CHECK(schedule_factor(all, 10, 91) == 1.0);
    CHECK(schedule_factor(all, 50, 91) == near(0.625));
    CHECK(schedule_factor(all, 90, 91) == 0.25);
  }
  SECTION("no decay") {
    const ScheduleConfig none{.kind = "wsd", .warmup = 10, .final_fraction = 0.25f, .decay = 0};
    CHECK(schedule_factor(none, 100, 101) == 1.0);
  }
}

TEST_CASE("lengths below 1 are fractions of the run, others are steps") {
  const auto kind = GENERATE("cosine", "linear", "wsd");
  const ScheduleConfig steps{.kind = kind, .warmup = 1000, .final_fraction = 0.1f, .decay = 2000};
  const ScheduleConfig fractions{.kind = kind, .warmup = 0.1f, .final_fraction = 0.1f, .decay = 0.2f};
  for (int64_t step = 0; step < 10000; step += 7) {
    CHECK(schedule_factor(steps, step, 10000) == schedule_factor(fractions, step, 10000));
  }
  CHECK(optim::warmup_steps(fractions, 10000) == 1000);
  CHECK(optim::warmup_steps({.warmup = 1.0f}, 10000) == 1);  // one step, not the whole run
  CHECK(optim::warmup_steps({.warmup = 0.1f}, 4) == 0);
  CHECK(optim::warmup_steps({.warmup = 0.1f}, 5) == 1);  // half a step rounds up
}

TEST_CASE("the factor rises during the warm-up, never rises after it, and stays between 0 and 1") {
  const auto kind = GENERATE("cosine", "linear", "constant", "wsd");
  const auto steps = GENERATE(1, 2, 3, 17, 1000);
  const auto warmup = GENERATE(0.0f, 0.1f, 1.0f, 2.0f);
  const ScheduleConfig config{.kind = kind, .warmup = warmup, .final_fraction = 0.1f, .decay = 0.3f};
  const int64_t peak = optim::warmup_steps(config, steps);
  for (int64_t step = 0; step < steps; ++step) {
    const double factor = schedule_factor(config, step, steps);
    CAPTURE(kind, steps, warmup, step, factor);
    REQUIRE(factor > 0);
    REQUIRE(factor <= 1);
    if (step == 0) continue;
    const double before = schedule_factor(config, step - 1, steps);
    if (step <= peak) REQUIRE(factor > before);
    if (step > peak) REQUIRE(factor <= before);
  }
}

TEST_CASE("what cannot be scheduled is an error") {
  CHECK_ERROR(schedule_factor({.kind = "cosin"}, 0, 10), "\"cosin\"", "cosine, linear, constant, wsd");
  CHECK_ERROR(schedule_factor({}, 0, 0), "step 0 of 0");
  CHECK_ERROR(schedule_factor({}, -1, 10), "step -1 of 10");
}
