#!/usr/bin/env bash
# Proves llmz on a GPU machine that has only the CUDA toolkit, CMake and a C++ compiler; no network, no Python. Tests of
# every kernel, training against the CPU's, resuming, speed and memory against their targets, compute-sanitizer. Writes
# one dated Markdown log and ends with ten lines. A section that breaks or runs out of time does not stop the next.
#   scripts/gpu_check.sh                      everything, within nine minutes
#   scripts/gpu_check.sh tests train          only these of: tests train targets sanitizer bench
# Exit code: 0 all passed; 1 something failed, or there is no GPU; 2 nothing failed, but something was not finished.
# Missing a speed or memory target is told, and changes no exit code.
# Environment:
#   LLMZ_BUILD_DIR      a build that is there already (bin/llmz, tests/cuda/test_cuda_*); without it, build/ is made
#   LLMZ_DEPS           folder with the dependencies (include, lib, bin, or unpacked packages with usr/) for build and run
#   LLMZ_CHECK_MINUTES  all the time there is, the build included (default 9)
#   LLMZ_CHECK_SMALL=1  tiny models and few steps: for trying this script with an emulated GPU
#   OUT                 folder for the log (default docs/measurements)
#   JOBS                compilers at once (default: one a processor)
set -u

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
# shellcheck source=scripts/gpu_check/common.sh
source scripts/gpu_check/common.sh
# shellcheck source=scripts/gpu_check/tests.sh
source scripts/gpu_check/tests.sh
# shellcheck source=scripts/gpu_check/train.sh
source scripts/gpu_check/train.sh
# shellcheck source=scripts/gpu_check/ranks.sh
source scripts/gpu_check/ranks.sh
# shellcheck source=scripts/gpu_check/speed.sh
source scripts/gpu_check/speed.sh

all_sections=(tests train targets sanitizer bench)
case ${1:-} in
  -h | --help)
    sed -n '2,16s/^# \{0,1\}//p' scripts/gpu_check.sh
    exit 0
    ;;
esac
sections=("$@")
if [ $# -eq 0 ]; then sections=("${all_sections[@]}"); fi
for name in "${sections[@]}"; do
  case " ${all_sections[*]} " in
    *" $name "*) ;;
    *)
      say "error: no section '$name'; there are: ${all_sections[*]}" >&2
      exit 1
      ;;
  esac
done

small=${LLMZ_CHECK_SMALL:-0}
cap_end=$(awk -v m="${LLMZ_CHECK_MINUTES:-9}" 'BEGIN { print int(60 * m) }')
gpu_index=${CUDA_VISIBLE_DEVICES:-0}
gpu_index=${gpu_index%%,*}
work=$(mktemp -d)
export OMP_WAIT_POLICY=passive # waiting threads leave the processors to others
declare -A verdict=()
watcher=""
yardstick=0 # GFLOP/s of the GPU's bf16 product, as `llmz train` measures it
gpu_bytes=0

use_dependencies() {
  local deps=${LLMZ_DEPS:-} triplet
  if [ -z "$deps" ]; then return; fi
  deps=$(cd "$deps" && pwd) || { say "error: LLMZ_DEPS=$LLMZ_DEPS cannot be entered" >&2; exit 1; }
  triplet=$(g++ -dumpmachine 2>/dev/null || say x86_64-linux-gnu)
  export PATH=$deps/bin:$deps/usr/bin:$PATH
  export CMAKE_PREFIX_PATH=$deps:$deps/usr${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}
  # For the dependencies of libraries that are linked, and for running.
  local libraries=$deps/lib:$deps/usr/lib:$deps/usr/lib/$triplet:$deps/lib/$triplet
  export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LIBRARY_PATH=$libraries${LIBRARY_PATH:+:$LIBRARY_PATH}
  export CPATH=$deps/include:$deps/usr/include:$deps/usr/include/$triplet${CPATH:+:$CPATH}
  export PKG_CONFIG_PATH=$deps/lib/pkgconfig:$deps/usr/lib/pkgconfig:$deps/usr/lib/$triplet/pkgconfig:$deps/share/pkgconfig
  if compgen -G "$deps/usr/lib/*/pkgconfig/*.pc" >/dev/null; then export PKG_CONFIG_SYSROOT_DIR=$deps; fi # they name /usr
}

no_gpu() {
  say "no GPU here, so nothing was checked: $1"
  rm -rf "$work"
  exit 1
}

find_gpu() {
  local doctor=$work/doctor line
  if ! timeout 60 "$llmz" doctor >"$doctor" 2>&1 </dev/null && ! grep -q CUDA "$doctor"; then
    say "error: $llmz doctor does not run: $(tail -n 1 "$doctor")" >&2
    rm -rf "$work"
    exit 1
  fi
  line=$(grep -m1 -E '^[a-z]+ +CUDA ' "$doctor")
  case $line in
    ok*) ;;
    *) no_gpu "$(grep -A1 -m1 -E '^[a-z]+ +CUDA ' "$doctor" | tail -n 1 | sed 's/^ *//')" ;;
  esac
  gpu=$(sed -n 's/.*driver up to [^:]*: \([^(]*\) (.*/\1/p' <<<"$line")
  gpu=${gpu:-GPU}
  gpu_bytes=$(sed -n 's/.*(\([0-9]*\) GB, compute.*/\1e9/p' <<<"$line")
  gpu_bytes=${gpu_bytes:-16e9}
}

# Before an hour's build: is there any sign of a GPU?
expect_gpu() {
  if [ -n "${LLMZ_BUILD_DIR:-}" ]; then return; fi
  if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then return; fi
  if compgen -G '/dev/nvidia[0-9]*' >/dev/null; then return; fi
  no_gpu "nvidia-smi lists none and there is no /dev/nvidia0"
}

prepare_build() {
  build=${LLMZ_BUILD_DIR:-$root/build}
  llmz=$build/bin/llmz
  if [ -n "${LLMZ_BUILD_DIR:-}" ]; then
    build=$(cd "$build" 2>/dev/null && pwd) || build=$LLMZ_BUILD_DIR
    llmz=$build/bin/llmz
    if [ ! -x "$llmz" ]; then
      say "error: LLMZ_BUILD_DIR=$LLMZ_BUILD_DIR has no bin/llmz" >&2
      rm -rf "$work"
      exit 1
    fi
    return
  fi
  local configure=(cmake --preset release -B "$build")
  if ! command -v ninja >/dev/null; then
    configure=(cmake -S . -B "$build" -G "Unix Makefiles" -DCMAKE_BUILD_TYPE=Release)
  fi
  configure+=(-DCMAKE_CUDA_ARCHITECTURES=native -DLLMZ_CUDA=ON)
  local tests=()
  mapfile -t tests < <(sed -n 's/^llmz_cuda_test(\([a-z_0-9]*\).*/test_cuda_\1/p' tests/cuda/CMakeLists.txt)
  say "==> building in $build: llmz and ${#tests[@]} test programs"
  local start=$SECONDS output=$work/build.log
  section_end=$cap_end
  if ! capped 600 "$output" "${configure[@]}" ||
    ! capped 1200 "$output" cmake --build "$build" --parallel "${JOBS:-$(nproc)}" --target llmz "${tests[@]}"; then
    tail -n 30 "$output"
    say "error: the build failed or took all the time there is (its last lines are above)" >&2
    rm -rf "$work"
    exit 1
  fi
  build_seconds=$((SECONDS - start))
}

start_log() {
  local folder=${OUT:-docs/measurements} name driver commit
  mkdir -p "$folder"
  name=$(tr '[:upper:]' '[:lower:]' <<<"$gpu" | sed 's/nvidia *//; s/[^a-z0-9]\{1,\}/-/g; s/^-*//; s/-*$//')
  log=$folder/$(date +%Y-%m-%d)-gpu-$name.md
  if [ "${#sections[@]}" -lt "${#all_sections[@]}" ]; then log=${log%.md}-$(IFS=-; printf '%s' "${sections[*]}").md; fi
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader -i "$gpu_index" 2>/dev/null | head -n 1)
  commit=$(git rev-parse --short=12 HEAD 2>/dev/null || say "not known")
  if [ -n "$(git status --porcelain --untracked-files=no 2>/dev/null)" ]; then commit="$commit, with changes"; fi
  : >"$log" || exit 1
  note "# GPU check, $(date +%Y-%m-%d), $gpu" '' \
    "Written by \`scripts/gpu_check.sh${*:+ $*}\`. Commit $commit; \`$("$llmz" --version 2>/dev/null | head -n 1)\`;" \
    "driver ${driver:-not known}; ${build_seconds:+built in $build_seconds s; }$(nproc) processors."
  if [ "$small" = 1 ]; then note '' "**A trial of the script with tiny sizes: no number below says anything about a GPU's speed.**"; fi
  note '' '## llmz doctor'
  quote "$work/doctor" 60
  header="$gpu, driver ${driver:-not known}, commit $commit"
}

# list SEPARATED: its arguments in one line, "none" where there are none.
list() {
  if [ $# -eq 0 ]; then printf none; else printf '%s; ' "$@" | sed 's/; $//'; fi
}

finish() {
  if [ -n "$watcher" ]; then kill "$watcher" 2>/dev/null; fi
  local code=0
  if [ ${#unfinished[@]} -gt 0 ]; then code=2; fi
  if [ ${#failed[@]} -gt 0 ]; then code=1; fi
  {
    say "device     $header; ${SECONDS} s"
    say "tests      ${verdict[tests]:-not run}"
    say "sanitizer  ${verdict[sanitizer]:-not run}"
    say "training   ${verdict[train]:-not run}; resume: ${verdict[resume]:-not run}; NCCL: ${verdict[nccl]:-not run}"
    say "targets    ${verdict[targets]:-not run}"
    say "benches    ${verdict[bench]:-not run}"
    say "passed     ${#passed[@]}"
    say "failed     ${#failed[@]}: $(list "${failed[@]}" | cut -c 1-600)"
    say "slow       ${#missed[@]}: $(list "${missed[@]}" | cut -c 1-600)"
    say "unfinished ${#unfinished[@]}: $(list "${unfinished[@]}" | cut -c 1-600)"
  } >"$work/summary"
  note '' '## In ten lines' '' '```'
  cat "$work/summary" >>"$log"
  note '```'
  printf '\n'
  cat "$work/summary"
  say "log: $log" >&2
  rm -rf "$work"
  exit "$code"
}

use_dependencies
expect_gpu
prepare_build
find_gpu
start_log "$@"
trap 'leave "stopped by a signal"; finish' INT TERM
declare -A shares=([tests]=30 [train]=20 [targets]=22 [sanitizer]=18 [bench]=10)
shares_left=0
for name in "${sections[@]}"; do shares_left=$((shares_left + shares[$name])); done
for name in "${sections[@]}"; do
  share_of_time "${shares[$name]}" "$shares_left"
  shares_left=$((shares_left - shares[$name]))
  say "==> $name, at most $(seconds_left) s"
  case $name in
    tests) run_tests ;;
    train) run_train ;;
    targets) run_targets ;;
    sanitizer) run_sanitizer ;;
    bench) run_bench ;;
  esac
done
finish
