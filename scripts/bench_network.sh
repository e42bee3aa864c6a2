#!/usr/bin/env bash
# How fast llmz trains with two ranks over a slow network, on one machine: two network namespaces stand for two hosts, a
# veth pair with a rate limit for the wire, or, with a delay, two TUN devices and a program that lets packets wait. Needs
# root, Linux, iproute2 and Open MPI.
#   scripts/bench_network.sh [options] CONFIG... [-- arguments of llmz train]
#   scripts/bench_network.sh configs/quickstart.json configs/quickstart.json:preset=lean -- --set train.global_batch=16
#   scripts/bench_network.sh --check --rate 1gbit      no llmz: is the wire as slow as it should be? (needs mpicxx)
# CONFIG may be followed by settings of its own: FILE:key=value,key=value. The table compares each with the first.
#   --rate R      of each direction, as tc writes it: 100mbit, 1gbit (default 1gbit)
#   --delay D     of each direction: 0.1ms (default none; needs /dev/net/tun and a C++ compiler)
#   --steps K     steps that are measured, after 3 that are not (default 20)
#   --rounds N    go through all configs so many times, one after the other (default 1)
#   --threads T   threads of each rank (default 1)
# Bytes are those that the device's own counters saw, for a step of one rank.
# Exit code 77: it cannot run here, and says why. Environment: LLMZ, LLMZ_MPIRUN_FLAGS as in scripts/launch.
# shellcheck source=scripts/launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/launch/common.sh"

rate=1gbit
delay=""
steps=20
rounds=1
threads=1
check=0
configs=()
arguments=()
warm_up=3

cannot() {
  say "cannot run here: $*"
  exit 77
}

while [ $# -gt 0 ]; do
  case $1 in
    --rate | --delay | --steps | --rounds | --threads)
      if [ $# -lt 2 ]; then die "$1 needs a value; see --help"; fi
      ;;&
    --steps | --rounds | --threads) whole_number "$1" "$2" ;;&
    --rate) rate=$2 && shift ;;
    --delay) delay=$2 && shift ;;
    --steps) steps=$2 && shift ;;
    --rounds) rounds=$2 && shift ;;
    --threads) threads=$2 && shift ;;
    --check) check=1 ;;
    -h | --help)
      sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    --)
      shift
      arguments=("$@")
      break
      ;;
    -*) die "unknown option '$1'; see --help" ;;
    *) configs+=("$1") ;;
  esac
  shift
done
if [ $check -eq 0 ] && [ ${#configs[@]} -eq 0 ]; then die "no CONFIG; see --help"; fi
for config in ${configs[@]+"${configs[@]}"}; do
  if ! [ -r "${config%%:*}" ]; then die "cannot read ${config%%:*}"; fi
done

if [ "$(uname)" != Linux ]; then cannot "network namespaces are Linux's"; fi
if [ "$(id -u)" -ne 0 ]; then cannot "only root may make network namespaces"; fi
for tool in ip:iproute2 tc:iproute2 unshare:util-linux mpirun:openmpi-bin; do
  if ! command -v "${tool%%:*}" >/dev/null; then cannot "there is no ${tool%%:*} (package ${tool#*:})"; fi
done
if [ -n "$delay" ] && ! command -v c++ >/dev/null; then cannot "there is no c++ (package g++), which --delay needs"; fi
if [ $check -eq 1 ] && ! command -v mpicxx >/dev/null; then cannot "there is no mpicxx (package libopenmpi-dev)"; fi

# --- the network ------------------------------------------------------------------------------------------------------

work=$(mktemp -d)
space=llmz-$$ # namespaces are $space-hosta and -hostb; the hosts are called hosta and hostb
subnet=10.213.77.0/30
wire="" # the process that delays

clean_up() {
  local host pid
  trap - EXIT
  if [ -n "$wire" ]; then kill "$wire" 2>/dev/null || true; fi
  for host in hosta hostb; do
    for pid in $(ip netns pids "$space-$host" 2>/dev/null); do kill -KILL "$pid" 2>/dev/null || true; done
    ip netns del "$space-$host" 2>/dev/null || true # takes the veth with it
  done
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

in_host() { ip netns exec "$space-$1" "${@:2}"; }

make_network() {
  local host number=1
  for host in hosta hostb; do
    ip netns add "$space-$host" 2>"$work/error" ||
      cannot "the kernel refuses a network namespace: $(head -n 1 "$work/error")"
  done
  if [ -n "$delay" ]; then
    make_slow_wire
  else
    ip link add wire netns "$space-hosta" type veth peer name wire netns "$space-hostb" 2>"$work/error" ||
      cannot "the kernel refuses a veth pair: $(head -n 1 "$work/error")"
  fi
  for host in hosta hostb; do
    ip -n "$space-$host" addr add "10.213.77.$number/30" dev wire
    ip -n "$space-$host" link set lo up
    ip -n "$space-$host" link set wire up
    slow_down "$host"
    number=$((number + 1))
  done
}

# A program hands packets on; large ones, or it would have too much to do.
make_slow_wire() {
  c++ -O2 -std=c++17 "$root/scripts/bench_network/delay.cpp" -o "$work/delay"
  mkfifo "$work/ready"
  "$work/delay" "$space-hosta" "$space-hostb" wire "$(delay_in_seconds)" >"$work/ready" 2>"$work/error" &
  wire=$!
  read -r <"$work/ready" || cannot "no TUN device: $(head -n 1 "$work/error")"
  for host in hosta hostb; do ip -n "$space-$host" link set wire mtu 9000 txqueuelen 10000; done
}

slow_down() {
  in_host "$1" tc qdisc add dev wire root tbf rate "$rate" burst 128kb latency 100ms 2>"$work/error" ||
    cannot "the kernel refuses tbf: $(head -n 1 "$work/error")"
}

# mpirun calls this in place of ssh: [-x ...] HOST COMMAND.
write_agent() {
  cat >"$work/agent" <<END
#!/usr/bin/env bash
while [[ \$1 == -* ]]; do shift; done
host=\$1
shift
exec ip netns exec "$space-\$host" unshare --uts sh -c "hostname \$host && \$*"
END
  chmod +x "$work/agent"
  printf 'hosta slots=1\nhostb slots=1\n' >"$work/hosts"
}

# two_ranks COMMAND ...: one rank on each host. Not bound: both would take the first core, each alone on its host.
two_ranks() {
  # shellcheck disable=SC2016  # for the shell of the host
  in_host hosta unshare --uts sh -c 'hostname hosta && exec "$@"' sh \
    "${mpirun[@]}" -np 2 --hostfile "$work/hosts" --map-by node --bind-to none \
    --mca orte_tmpdir_base "$work" --mca plm rsh --mca plm_rsh_agent "$work/agent" --mca pml ob1 --mca btl tcp,self \
    --mca btl_tcp_if_include $subnet --mca oob_tcp_if_include $subnet \
    --mca btl_tcp_sndbuf "$buffer" --mca btl_tcp_rcvbuf "$buffer" "$@" </dev/null &
  wait $! # in the background, so that a signal to this script is not kept waiting
}

# Bytes that both hosts have sent since the network stands.
bytes_sent() {
  local host
  for host in hosta hostb; do in_host "$host" cat /sys/class/net/wire/statistics/tx_bytes; done |
    awk '{ n += $1 } END { printf "%.0f\n", n }'
}

# Bytes a second of a rate as tc writes it.
rate_in_bytes() {
  awk -v rate="$rate" 'BEGIN {
    unit = tolower(rate); sub(/^[0-9.]+/, "", unit)
    scale = unit ~ /^t/ ? 1e12 : unit ~ /^g/ ? 1e9 : unit ~ /^m/ ? 1e6 : unit ~ /^k/ ? 1e3 : 1
    printf "%.0f\n", rate * scale / (unit ~ /bps$/ ? 1 : 8) }'
}

# Of a delay as tc writes it; without a unit microseconds.
delay_in_seconds() {
  awk -v delay="${delay:-0}" 'BEGIN {
    unit = delay; sub(/^[0-9.]+/, "", unit)
    printf "%.9f\n", delay * (unit ~ /^m/ ? 1e-3 : unit ~ /^s/ ? 1 : 1e-6) }'
}

# Bytes of a socket's buffer: what is under way, and 100 KB. In larger ones, as the system would choose them,
# acknowledgements wait behind data, and traffic in both directions reaches between half of the rate and all of it.
socket_buffer() {
  awk -v seconds="$(delay_in_seconds)" -v rate="$(rate_in_bytes)" \
    'BEGIN { printf "%.0f\n", 100000 + 2 * seconds * rate }'
}

# --- is it as slow as it should be? -----------------------------------------------------------------------------------

check_network() {
  local bytes=32000000 repeats=5 before after
  mpicxx -O2 -std=c++17 "$root/scripts/bench_network/probe.cpp" -o "$work/probe"
  before=$(bytes_sent)
  two_ranks "$work/probe" $bytes $repeats >"$work/probe.out"
  after=$(bytes_sent)
  awk -v bytes=$bytes -v seen=$((after - before)) -v sent=$((2 * bytes * repeats)) \
    -v rate="$(rate_in_bytes)" -v name="$rate" -v delay="$delay" '{
    least = bytes / rate
    printf "hosts                          %s and %s, %d rank on each\n", $1, $2, $3
    printf "all-reduce of %.0f MB           %.4f s; at %s at least %.4f s, with headers %.4f s\n",
      bytes / 1e6, $4, name, least, least * 1514 / 1448
    printf "bytes through the device       %.4g; in the tensors %.4g (%+.1f%%)\n", seen, sent, 100 * (seen / sent - 1)
    printf "round trip of one byte         %.0f microseconds%s\n", $5, delay == "" ? "" : "; of them twice " delay
    if ($3 != 1 || $1 == $2) { print "FAILED: the ranks see one host"; bad = 1 }
    if (seen < 0.99 * sent) { print "FAILED: bytes went another way"; bad = 1 }
    if ($4 < 0.9 * least) { print "FAILED: the rate is not limited"; bad = 1 }
  } END { exit bad || NR != 1 }' "$work/probe.out"
}

# --- trainings --------------------------------------------------------------------------------------------------------

# train NUMBER STEPS: its run folder is $work/run.
train() {
  local config=${configs[$1]} settings=() setting
  if [[ $config == *:* ]]; then
    while read -r setting; do settings+=(--set "$setting"); done < <(tr , '\n' <<<"${config#*:}")
  fi
  if ! two_ranks "$llmz" train "${config%%:*}" ${settings[@]+"${settings[@]}"} ${arguments[@]+"${arguments[@]}"} --overwrite \
    --set "train.threads=$threads" --set "train.steps=$2" --set train.eval_every=0 --set train.eval_batches=1 \
    --set output.save_every=0 --set "output.path=$work/run" >"$work/log" 2>&1; then
    tail -n 20 "$work/log" >&2
    die "training $config failed"
  fi
}

# key NAME: the number of that key in each line on standard input that has it.
key() { sed -n "s/.*\"$1\": *\([0-9.eE+-]*\).*/\1/p"; }
median() { sort -g | awk '{ v[NR] = $1 } END { print (NR ? v[int((NR + 1) / 2)] : 0) }'; }
# Steps of the last run, without those of the warm-up.
measured() { grep '"seconds"' "$work/run/metrics.jsonl" | tail -n +$((warm_up + 1)); }

# What starting and ending a run sends is the same for any number of steps, so the difference of two runs tells a step's.
bytes_of_step() {
  local number=$1 before middle after
  before=$(bytes_sent)
  train "$number" $warm_up
  middle=$(bytes_sent)
  train "$number" $((warm_up + steps))
  after=$(bytes_sent)
  awk -v few=$((middle - before)) -v more=$((after - middle)) -v steps="$steps" \
    'BEGIN { printf "%.0f\n", (more - few) / steps / 2 }'
}

measure() {
  local round number
  for ((round = 1; round <= rounds; ++round)); do
    for number in "${!configs[@]}"; do
      say "round $round of $rounds: ${configs[$number]}"
      if [ "$round" -eq 1 ]; then
        bytes_of_step "$number" >"$work/bytes.$number"
      else
        train "$number" $((warm_up + steps))
      fi
      measured | key seconds >>"$work/seconds.$number"
      measured | key tokens_per_second >>"$work/speed.$number"
      measured | key sent_bytes >>"$work/counted.$number"
    done
  done
}

print_table() {
  local number
  printf '%s%s, 2 ranks of %s thread(s), median of %s steps\n' \
    "$rate" "${delay:+, delay $delay}" "$threads" $((steps * rounds))
  printf '%-48s%12s%14s%14s%12s%8s\n' config "seconds" "bytes on wire" "llmz counted" "tokens/s" ratio
  for number in "${!configs[@]}"; do
    printf '%s\t%s\t%s\t%s\t%s\n' "${configs[$number]}" "$(median <"$work/seconds.$number")" \
      "$(cat "$work/bytes.$number")" "$(median <"$work/counted.$number")" "$(median <"$work/speed.$number")"
  done | awk -F '\t' 'NR == 1 { first = $2 }
    { printf "%-48s%12.4f%14.0f%14.0f%12.0f%8.3f\n", $1, $2, $3, $4, $5, (first > 0 ? $2 / first : 0) }'
}

find_mpirun
if [ $check -eq 0 ]; then find_llmz; fi
buffer=$(socket_buffer)
make_network
write_agent
if [ $check -eq 1 ]; then
  check_network
else
  measure
  print_table
fi
