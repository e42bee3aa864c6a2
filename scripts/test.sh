#!/usr/bin/env bash
# Installs what is missing, builds everything, runs the whole test suite. Works from any folder; quick the second time.
#   scripts/test.sh                 all tests
#   scripts/test.sh -R attention    arguments go to ctest: here, the tests whose names match
# Environment: LLMZ_BUILD_DIR (default build), JOBS (compilers at once), LLMZ_SKIP_INSTALL=1 (packages are there).
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

case ${1:-} in
  -h | --help)
    sed -n '2,5s/^# \{0,1\}//p' "$root/scripts/test.sh"
    exit 0
    ;;
esac

install_dependencies
configure_and_build all

step "Running the tests"
# One at a time: each uses every core by itself.
exec ctest --test-dir "$build" --output-on-failure --no-tests=error -j1 "$@" </dev/null
