# Shared by laptop.sh and hosts.sh: sourced, not run.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

say() { printf '%s\n' "$*" >&2 || true; } # the terminal may be gone
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

whole_number() {
  if ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then die "$1 takes a whole number, not '$2'; see --help"; fi
}

# Sets `llmz` to the absolute path of the program: $LLMZ, this repository's build, or the one on the PATH.
find_llmz() {
  local build=${LLMZ_BUILD_DIR:-$root/build}
  llmz=${LLMZ:-}
  if [ -z "$llmz" ] && [ -x "$build/bin/llmz" ]; then llmz=$build/bin/llmz; fi
  if [ -z "$llmz" ]; then
    llmz=$(command -v llmz) || die "there is no $build/bin/llmz and no llmz on the PATH; LLMZ=PATH names one"
  fi
  llmz=$(realpath -s -- "$llmz")
  if ! [ -x "$llmz" ]; then die "cannot run ${LLMZ:-llmz}"; fi
}

# Sets `mpirun`, an array: the program and the options that every launch takes.
find_mpirun() {
  local version
  version=$(mpirun --version 2>/dev/null) || die "there is no mpirun (Debian's and Ubuntu's package openmpi-bin)"
  if ! [[ $version == *"Open MPI"* ]]; then
    die "this mpirun is not Open MPI's, whose options this script speaks; try: mpirun -np RANKS $llmz train CONFIG"
  fi
  mpirun=(mpirun --quiet) # without it, mpirun calls a run that was asked to stop an aborted one
  if [ "$(id -u)" -eq 0 ]; then mpirun+=(--allow-run-as-root); fi
  local extra
  read -r -a extra <<<"${LLMZ_MPIRUN_FLAGS:-}"
  mpirun+=(${extra[@]+"${extra[@]}"})
}

# launch COMMAND ...: runs mpirun and returns its exit code. mpirun answers SIGTERM, SIGINT and SIGHUP by killing its ranks
# within two seconds, which is too short to save in; SIGUSR1 it passes on. So each of these comes here, mpirun standing in
# a session of its own, and goes on as one SIGUSR1. llmz would die of a second one: SIGINT or SIGTERM two seconds or more
# later ends everything at once, and any other signal is dropped. (SECONDS shows whole seconds: one later may be a moment.)
launch() {
  asked_at=""
  killer=""
  interrupted=0
  setsid "$@" </dev/null &
  child=$!
  trap 'pass_on USR1' USR1
  trap 'pass_on HUP' HUP
  trap 'pass_on INT' INT
  trap 'pass_on TERM' TERM
  local status
  while true; do
    status=0
    interrupted=0
    wait "$child" || status=$?
    if [ $interrupted -eq 0 ]; then break; fi # otherwise the status may be that of `wait` cut short
  done
  if [ -n "$killer" ]; then kill "$killer" 2>/dev/null || true; fi
  return $status
}

pass_on() {
  interrupted=1
  if [ -z "$asked_at" ]; then
    asked_at=$SECONDS
    say "SIG$1: asked training to save after this step and stop (SIGINT or SIGTERM once more ends it without saving)"
    kill -USR1 "$child" 2>/dev/null || true
  elif [ $((SECONDS - asked_at)) -ge 2 ] && { [ "$1" = INT ] || [ "$1" = TERM ]; }; then
    say "SIG$1 again: ending training at once"
    kill -TERM "$child" 2>/dev/null || true
    if [ -z "$killer" ]; then # mpirun 4.1 has been seen to end its ranks and then to wait for ever
      { sleep 5 && kill -KILL "$child"; } >/dev/null 2>&1 &
      killer=$!
    fi
  fi
}
