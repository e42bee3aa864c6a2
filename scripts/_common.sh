# Shared by quickstart.sh and test.sh: sourced, not run. Sets `root` and `build`, and moves to `root`.
# shellcheck shell=bash
# shellcheck disable=SC2034  # what is set here is used by the scripts that source it
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
caller=$PWD
cd "$root"
build=${LLMZ_BUILD_DIR:-build}
case $build in
  /*) ;;
  *) build=$root/$build ;;
esac

# Two build folders of one checkout share what the compiler cache holds.
export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$root} CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR:-1}

say() { printf '%s\n' "$*"; }
step() { printf '\n==> %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# How many compilers to run at once: one a processor, but each may take 1.5 GB.
job_count() {
  local processors memory_kb by_memory
  processors=$(nproc)
  memory_kb=$(awk '/^MemAvailable/ {print $2}' /proc/meminfo)
  by_memory=$((memory_kb / 1500000))
  if [ "$by_memory" -lt 1 ]; then by_memory=1; fi
  if [ "$by_memory" -lt "$processors" ]; then say "$by_memory"; else say "$processors"; fi
}

# A path that the user gave, as seen from where the user stood.
from_caller() {
  case $1 in
    /*) say "$1" ;;
    *) say "$caller/$1" ;;
  esac
}

# install_dependencies [OPTION of install_deps.sh ...]
install_dependencies() {
  step "Checking what llmz is built from"
  if [ "${LLMZ_SKIP_INSTALL:-0}" = 1 ]; then
    say "skipped, since LLMZ_SKIP_INSTALL=1"
  else
    "$root/scripts/install_deps.sh" "$@"
  fi
}

# Whether this machine has a GPU of NVIDIA's to run on.
has_gpu() { [ -e /dev/nvidiactl ] || [ -e /dev/dxg ]; }

# configure_and_build TARGET [CMAKE ARGUMENT ...]; TARGET may be `all`. A build folder that is there keeps its settings but
# for those that the arguments change.
configure_and_build() {
  local target=$1
  shift
  local log=$build/configure.log
  step "Configuring in $build"
  mkdir -p "$build"
  local command=(cmake --preset release -B "$build" "$@")
  if [ -f "$build/CMakeCache.txt" ]; then command=(cmake -S "$root" -B "$build" "$@"); fi
  if ! "${command[@]}" >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    die "configuring failed (the text above is kept in $log)"
  fi
  sed -n '/component  *state/,/^-- *tests /p' "$log" | sed 's/^-- //'

  local count=${JOBS:-$(job_count)}
  step "Building $target with $count jobs"
  cmake --build "$build" --parallel "$count" --target "$target" </dev/null
}
