#!/usr/bin/env bash
# Trains with several ranks on this machine (Open MPI).
#   scripts/launch/laptop.sh RANKS CONFIG [arguments of llmz train]
#   scripts/launch/laptop.sh 2 configs/quickstart.json --set output.path=out/two --resume
# Each rank gets an equal share of the cores for itself. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 save after the step and stop;
# the exit code is then 138. Otherwise it is llmz's.
# Environment: LLMZ (the program), LLMZ_BIND (cores, or none: let ranks move), LLMZ_MPIRUN_FLAGS (more options for mpirun).
# shellcheck source=scripts/launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
  "" | -h | --help)
    sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
    if [ $# -eq 0 ]; then exit 1; fi
    exit 0
    ;;
esac
ranks=$1
whole_number RANKS "$ranks"
if [ $# -lt 2 ]; then die "no CONFIG; see --help"; fi
config=$2
shift 2
if ! [ -r "$config" ]; then die "cannot read $config"; fi

# Cores that this process may use, hardware threads of one core counted once.
usable_cores() {
  local allowed
  allowed=$(awk '/^Cpus_allowed_list:/ { print $2 }' /proc/self/status)
  lscpu --parse=CPU,CORE,SOCKET | awk -F, -v allowed="$allowed" '
    BEGIN {
      n = split(allowed, ranges, ",")
      for (i = 1; i <= n; ++i) {
        ends = split(ranges[i], range, "-")
        for (cpu = range[1]; cpu <= range[ends]; ++cpu) usable[cpu + 0] = 1
      }
    }
    /^#/ { next }
    ($1 + 0) in usable && !(($2, $3) in seen) { seen[$2, $3] = 1; ++cores }
    END { print cores + 0 }'
}

find_llmz
find_mpirun
cores=$(usable_cores)
case ${LLMZ_BIND:-cores} in
  cores) ;;
  none) cores=0 ;;
  *) die "LLMZ_BIND is cores or none, not '$LLMZ_BIND'" ;;
esac
if [ "$ranks" -le "$cores" ]; then
  # mpirun's own choice would be one core a rank, however many there are.
  binding=(--map-by "slot:PE=$((cores / ranks))" --bind-to core)
else
  binding=(--oversubscribe --bind-to none)
  if [ "$cores" -gt 0 ]; then say "$ranks ranks on $cores cores: good for trying, not for speed"; fi
fi

launch "${mpirun[@]}" -np "$ranks" "${binding[@]}" "$llmz" train "$config" "$@"
