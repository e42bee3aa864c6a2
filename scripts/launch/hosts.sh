#!/usr/bin/env bash
# Trains on several hosts that can be reached by ssh without a password (Open MPI).
#   scripts/launch/hosts.sh [--interface I] HOSTFILE CONFIG [arguments of llmz train]
#   scripts/launch/hosts.sh --interface 10.0.0.0/24 hosts.txt configs/llama-60m-c4.json --resume
# HOSTFILE has a line "NAME slots=N" for each host, N being its ranks: its number of GPUs, or 1 on CPUs. The first one
# should be this machine; its rank 0 writes the run folder.
#   --interface I   the network that ranks talk over: an interface's name (eth1) or a subnet (10.0.0.0/24)
#   --check         only check the hosts
# Before it starts, every host must answer and have the same llmz, the same CONFIG and this folder at the same paths.
# Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 save after the step and stop; the exit code is then 138. Otherwise it is llmz's.
# Environment: LLMZ (the program), LLMZ_MPIRUN_FLAGS (more options for mpirun). What begins with LLMZ_, OMP_ or NCCL_ is
# passed to all ranks.
# shellcheck source=scripts/launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

interface=""
only_check=0
while [ $# -gt 0 ]; do
  case $1 in
    --interface)
      if [ $# -lt 2 ]; then die "--interface needs a value; see --help"; fi
      interface=$2
      shift
      ;;
    --check) only_check=1 ;;
    -h | --help)
      sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    -*) die "unknown option '$1'; see --help" ;;
    *) break ;;
  esac
  shift
done
if [ $# -lt 2 ]; then die "no HOSTFILE or no CONFIG; see --help"; fi
hostfile=$1
config=$2
shift 2
for file in "$hostfile" "$config"; do
  if ! [ -r "$file" ]; then die "cannot read $file"; fi
done
config=$(realpath -s -- "$config")

# "NAME slots=N" without comments. Without slots= Open MPI would take what it finds, which differs with its version.
read_hostfile() {
  awk '{ sub(/#.*/, "") }
    NF == 0 { next }
    { slots = 0; for (i = 2; i <= NF; ++i) if ($i ~ /^slots=[1-9][0-9]*$/) slots = substr($i, 7) } # not max_slots=
    !slots { print "line " NR ": " $1 " has no slots=N, its number of ranks"; bad = 1; next }
    seen[$1]++ { print "line " NR ": " $1 " stands there twice"; bad = 1; next }
    { print $1, slots }
    END { exit bad }' "$hostfile"
}

# What a host must agree on. mpirun would quietly start in the home folder where it does not find this one.
# shellcheck disable=SC2016  # for the shell of each host
describe='cd "$3" && "$1" --version && cksum <"$2"'
describe_host() {
  local host=$1
  # The remote shell splits the words again, so they are quoted for it.
  timeout 20 ssh -o BatchMode=yes -o ConnectTimeout=8 "$host" \
    "$(printf 'sh -c %q sh %q %q %q' "$describe" "$llmz" "$config" "$PWD")" </dev/null
}

check_hosts() {
  local mine host failed=0 folder
  mine=$(sh -c "$describe" sh "$llmz" "$config" "$PWD") || die "cannot run $llmz"
  folder=$(mktemp -d)
  for host in "${hosts[@]}"; do
    { describe_host "$host" >"$folder/$host" 2>"$folder/$host.err" || echo "exit code $?" >>"$folder/$host.err"; } &
  done
  wait
  for host in "${hosts[@]}"; do
    if [ "$(cat "$folder/$host")" = "$mine" ] && ! grep -q '^exit code' "$folder/$host.err"; then continue; fi
    failed=1
    if grep -q '^exit code 255' "$folder/$host.err"; then
      say "$host: cannot be reached by 'ssh -o BatchMode=yes $host': $(head -n 1 "$folder/$host.err")"
    elif grep -q '^exit code 124' "$folder/$host.err"; then
      say "$host: no answer within 20 seconds"
    elif grep -q '^exit code' "$folder/$host.err"; then
      say "$host: $(head -n 1 "$folder/$host.err")"
    elif [ "$(head -n 1 "$folder/$host")" != "$(head -n 1 <<<"$mine")" ]; then
      say "$host: has '$(head -n 1 "$folder/$host")', and this machine '$(head -n 1 <<<"$mine")'"
    else
      say "$host: $config differs from this machine's"
    fi
  done
  rm -rf "$folder"
  if [ $failed -eq 1 ]; then die "nothing was started"; fi
}

find_llmz
if ! table=$(read_hostfile); then die "$hostfile, $table"; fi
if [ -z "$table" ]; then die "$hostfile names no host"; fi
mapfile -t hosts < <(awk '{ print $1 }' <<<"$table")
ranks=$(awk '{ n += $2 } END { print n }' <<<"$table")
check_hosts
say "${#hosts[@]} hosts have $("$llmz" --version); $ranks ranks"
if [ $only_check -eq 1 ]; then exit 0; fi

find_mpirun
# Not bound: each rank sees all cores of its host, and llmz shares them out among the ranks there.
options=(-np "$ranks" --hostfile "$hostfile" --map-by slot --bind-to none)
if [ -n "$interface" ]; then
  # Otherwise Open MPI tries every network that two hosts seem to share, those of containers and bridges too, and waits.
  options+=(--mca btl_tcp_if_include "$interface" --mca oob_tcp_if_include "$interface")
  # NCCL takes names of interfaces only.
  if [[ $interface != */* ]]; then export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interface}; fi
fi
while read -r name; do
  case $name in
    LLMZ_BUILD_DIR | LLMZ_MPIRUN_FLAGS) ;;
    LLMZ_* | OMP_* | NCCL_*) options+=(-x "$name") ;;
  esac
done < <(compgen -e)

launch "${mpirun[@]}" "${options[@]}" "$llmz" train "$config" "$@"
