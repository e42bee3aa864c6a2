#define CATCH_CONFIG_RUNNER  // for Catch2 v2
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "catch.h"
#include "llmz/core/system.h"

// Without a GPU these tests skip themselves: exit code 77, which ctest reports as "Skipped". LLMZ_REQUIRE_GPU=1 makes
// that a failure, for machines that should have one.
int main(int argc, char** argv) {
  const llmz::CudaInfo info = llmz::cuda_info();
  if (!info.devices.empty()) return Catch::Session().run(argc, argv);
  std::printf("skipped, all of them need a GPU: %s\n", info.reason.c_str());
  const char* required = std::getenv("LLMZ_REQUIRE_GPU");
  return required != nullptr && std::string_view(required) == "1" ? 1 : 77;
}
