#!/usr/bin/env bash
# Installs what is missing, builds everything, checks the style, runs the whole test suite. Works from any folder; quick the second time.
#   scripts/test.sh                 all tests
#   scripts/test.sh -R attention    arguments go to ctest: here, the tests whose names match (-L short: those of seconds)
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

install_dependencies --style
# A folder that quickstart.sh made knows no tests and, without a GPU, no device code.
settings=()
if grep -qs '^LLMZ_TESTS:BOOL=OFF' "$build/CMakeCache.txt"; then
  settings=(-DLLMZ_TESTS=ON -DLLMZ_CUDA=AUTO -DLLMZ_NCCL=AUTO -DLLMZ_CUDNN=AUTO)
fi
configure_and_build all "${settings[@]}"

status=0
if [ $# -eq 0 ]; then "$root/scripts/check_style.sh" || status=$?; fi

step "Running the tests"
# Side by side as far as the processors go: each test says how many it keeps busy (PROCESSORS in its CMakeLists.txt).
ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$(nproc)" "$@" </dev/null || status=$?

# The CUDA kernels, compiled for the CPU (tests/cuda_emulation/README.md): a GPU need not be there.
emulated=$build-emulated
step "Building the CUDA kernels for the CPU in $emulated"
cmake --preset emulated -B "$emulated" >"$build/configure-emulated.log" 2>&1 </dev/null ||
  die "configuring failed (see $build/configure-emulated.log)"
cmake --build "$emulated" --parallel "${JOBS:-$(job_count)}" </dev/null
step "Running the CUDA backend's tests on the CPU"
ctest --test-dir "$emulated" --output-on-failure --no-tests=ignore -j "$(nproc)" "$@" </dev/null || status=$?
exit "$status"
