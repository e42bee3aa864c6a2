#!/usr/bin/env bash
# Installs what is missing, builds everything, runs the whole test suite. Works from any folder; quick the second time.
#   scripts/test.sh                 all tests
#   scripts/test.sh -R attention    arguments go to ctest: here, the tests whose names match
# Builds twice: as it is used, and the CUDA kernels for the CPU, so that they are tested without a GPU.
# Environment: LLMZ_BUILD_DIR (default build; the second folder is that name with -emulated), JOBS (compilers at once), LLMZ_SKIP_INSTALL=1 (packages are there).
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

case ${1:-} in
  -h | --help)
    sed -n '2,6s/^# \{0,1\}//p' "$root/scripts/test.sh"
    exit 0
    ;;
esac

install_dependencies
configure_and_build all

step "Running the tests"
status=0
# One at a time: each uses every core by itself.
ctest --test-dir "$build" --output-on-failure --no-tests=error -j1 "$@" </dev/null || status=$?

# The CUDA kernels, compiled for the CPU (tests/cuda_emulation/README.md): a GPU need not be there.
emulated=$build-emulated
step "Building the CUDA kernels for the CPU in $emulated"
cmake --preset emulated -B "$emulated" >"$build/configure-emulated.log" 2>&1 </dev/null ||
  die "configuring failed (see $build/configure-emulated.log)"
cmake --build "$emulated" --parallel "${JOBS:-$(job_count)}" </dev/null
step "Running the CUDA backend's tests on the CPU"
ctest --test-dir "$emulated" --output-on-failure --no-tests=ignore -j "$(nproc)" "$@" </dev/null || status=$?
exit "$status"
