#!/usr/bin/env bash
# Tests scripts/launch with programs that stand in for llmz, mpirun, ssh, srun and scontrol: what they are called with,
# where signals go, when a job is requeued. Needs neither MPI nor Slurm.
set -euo pipefail

launch=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../scripts/launch" && pwd)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp"
mkdir bin
export PATH=$temp/bin:$PATH
export LLMZ=$temp/bin/llmz CALLS=$temp/calls
unset LLMZ_BIND LLMZ_LAUNCH LLMZ_MPIRUN_FLAGS LLMZ_PORT LLMZ_MAX_REQUEUES LLMZ_RENDEZVOUS_TOKEN SLURM_RESTART_COUNT SLURM_CPUS_PER_TASK
echo '{}' >config.json

program() {
  cat >"bin/$1"
  chmod +x "bin/$1"
}

# Trains until SIGUSR1 comes, then "saves" for a while. FAKE=finish, fail: as it says, at once. A second signal kills it.
program llmz <<'END'
#!/usr/bin/env bash
if [ "$1" = --version ]; then echo "llmz ${FAKE_VERSION:-1}"; exit 0; fi
echo "llmz $*" >>"$CALLS"
echo "token ${LLMZ_RENDEZVOUS_TOKEN:-}" >>"$CALLS"
case ${FAKE:-} in
  finish) exit 0 ;;
  fail) exit 1 ;;
  stubborn) trap : USR1 ;;
  *) trap 'stop=1; trap - USR1' USR1 ;;
esac
stop=0
echo ready >>"$CALLS"
for _ in $(seq 200); do
  if [ $stop = 1 ]; then
    sleep 0.5
    echo saved >>"$CALLS"
    exit 138
  fi
  sleep 0.05
done
END
# What mpirun and srun have in common: note the arguments, run what begins at llmz or bash, pass SIGUSR1 on, die of SIGTERM.
program starter <<'END'
#!/usr/bin/env bash
name=$1
shift
echo "$name $*" >>"$CALLS"
while [[ $1 != */llmz && $1 != bash ]]; do shift; done
"$@" &
child=$!
again=1
trap 'again=1; kill -USR1 $child' USR1
trap 'echo "$name terminated" >>"$CALLS"; kill -KILL $child; exit 1' TERM HUP INT
while [ $again = 1 ]; do again=0; wait $child; status=$?; done
# srun --kill-on-bad-exit with a task that is slower to leave, which ends by the signal FAKE_STRAGGLER.
if [ $status != 0 ] && [ -n "${FAKE_STRAGGLER:-}" ]; then
  sleep 100 &
  kill "-$FAKE_STRAGGLER" $!
  wait $!
  status=$?
fi
exit $status
END
program mpirun <<'END'
#!/usr/bin/env bash
if [ "$1" = --version ]; then echo "mpirun (${FAKE_MPI:-Open MPI}) 4"; exit 0; fi
exec starter mpirun "$@"
END
program srun <<'END'
#!/usr/bin/env bash
if [ "$1" = --mpi=list ]; then
  printf 'MPI plugin types are...\n\tnone\n%s' "${FAKE_PMIX:+$'\tpmix\n'}" >&2
  sleep 0.1 # a reader that is content with the first lines has gone by now
  echo "specific versions: ${FAKE_PMIX:+pmix_v4}" >&2 || exit 1
  exit 0
fi
SLURM_PROCID=3 exec starter srun "$@"
END
program scontrol <<'END'
#!/usr/bin/env bash
if [ "$1" = show ]; then printf 'node7\nnode8\n'; else echo "scontrol $*" >>"$CALLS"; fi
END
program ssh <<'END'
#!/usr/bin/env bash
while [ "$1" = -o ]; do shift 2; done
case $1 in
  gone) echo "ssh: connect to host gone: no route" >&2; exit 255 ;;
  old) export FAKE_VERSION=0 ;;
  other) cd / && exec sh -c "$(sed 's/config.json/other.json/' <<<"$2")" ;;
esac
exec sh -c "$2"
END
echo '{"model": {}}' >other.json

failures=0
check() { # check WHAT CONDITION ...
  local what=$1
  shift
  if "$@"; then return; fi
  failures=$((failures + 1))
  echo "FAILED: $what ($*)"
  sed 's/^/    calls: /' "$CALLS"
  sed 's/^/    output: /' output
}
called() { grep -q -e "$1" "$CALLS"; }
not() { ! "$@"; }
said() { grep -q -e "$1" output; }
is() { [ "$1" = "$2" ]; }
times() { [ "$(grep -c -e "$2" "$CALLS")" = "$1" ]; }

# Each runs a script to its end and sets `status`: `finish` as it goes, `stop` with signals once llmz is ready.
finish() {
  : >"$CALLS"
  status=0
  "$@" >output 2>&1 || status=$?
}
stop() { # stop "SIGNALS" COMMAND ...: between signals a word like 0.2 waits
  local signals=$1 script word
  shift
  : >"$CALLS"
  "$@" >output 2>&1 &
  script=$!
  for _ in $(seq 200); do
    if called ready; then break; fi
    sleep 0.05
  done
  for word in $signals; do
    case $word in
      [0-9]*) sleep "$word" ;;
      *) kill "-$word" $script ;;
    esac
  done
  status=0
  wait $script || status=$?
}

laptop=$launch/laptop.sh
FAKE=finish finish "$laptop" 1 config.json --set a.b=c --resume
check "laptop: a finished run" is "$status" 0
check "laptop: arguments" called "^llmz train config.json --set a.b=c --resume$"
check "laptop: one rank has all cores" called "-np 1 --map-by slot:PE=[0-9]* --bind-to core"
FAKE=finish finish "$laptop" 5000 config.json
check "laptop: more ranks than cores" called "-np 5000 --oversubscribe --bind-to none"
LLMZ_BIND=none LLMZ_MPIRUN_FLAGS="--mca x y" FAKE=finish finish "$laptop" 1 config.json
check "laptop: unbound, more flags" called "--mca x y -np 1 --oversubscribe --bind-to none"
FAKE=fail finish "$laptop" 1 config.json
check "laptop: a failed run" is "$status" 1
FAKE_MPI=HYDRA finish "$laptop" 1 config.json
check "laptop: another MPI" said "not Open MPI"
check "laptop: another MPI starts nothing" not called .
for signal in USR1 TERM HUP; do
  stop $signal "$laptop" 1 config.json
  check "laptop: $signal is a request to save" called saved
  check "laptop: exit code after $signal" is "$status" 138
done
stop "HUP USR1 0.1 TERM" "$laptop" 1 config.json
check "laptop: signals together are one" called saved
FAKE=stubborn stop "TERM 2.1 TERM" "$laptop" 1 config.json
check "laptop: TERM twice ends it" called "mpirun terminated"
check "laptop: exit code after TERM twice" is "$status" 1
for wrong in "two config.json" "0 config.json" "2" "2 nothing.json"; do
  # shellcheck disable=SC2086  # several arguments
  finish "$laptop" $wrong
  check "laptop: refuses '$wrong'" said "^error: "
  check "laptop: exit code for '$wrong'" is "$status" 1
done

hosts=$launch/hosts.sh
printf '# two hosts\nalpha max_slots=8 slots=2\nbeta \tslots=3 max-slots=9# five ranks\n\n' >hosts.txt
export NCCL_DEBUG=INFO
FAKE=finish finish "$hosts" --interface eth1 hosts.txt config.json --resume
check "hosts: a finished run" is "$status" 0
check "hosts: ranks and file" called "-np 5 --hostfile hosts.txt"
check "hosts: the network" called "btl_tcp_if_include eth1 --mca oob_tcp_if_include eth1"
check "hosts: environment" called "-x NCCL_DEBUG"
check "hosts: NCCL's network" called "-x NCCL_SOCKET_IFNAME"
check "hosts: arguments" called "^llmz train $temp/config.json --resume$"
stop TERM "$hosts" hosts.txt config.json
check "hosts: TERM is a request to save" called saved
check "hosts: exit code" is "$status" 138
finish "$hosts" --check hosts.txt config.json
check "hosts: --check" is "$status" 0
check "hosts: --check starts nothing" not called .
for host in gone:"cannot be reached" old:"old: has 'llmz 0', and this machine 'llmz 1'" other:"config.json differs"; do
  printf 'alpha slots=1\n%s slots=1\n' "${host%%:*}" >bad.txt
  finish "$hosts" bad.txt config.json
  check "hosts: ${host%%:*}" said "${host#*:}"
  check "hosts: ${host%%:*} is not started" not called .
  check "hosts: ${host%%:*} exit code" is "$status" 1
done
for line in "alpha" "alpha slots=x" "alpha slots=0" "alpha slots=2x" "alpha max_slots=2" "# nothing"; do
  echo "$line" >bad.txt
  finish "$hosts" bad.txt config.json
  check "hosts: refuses '$line'" said "^error: bad.txt"
done

batch=$launch/train.sbatch
export SLURM_JOB_ID=12345 SLURM_JOB_NODELIST="node[7-8]" SLURM_NTASKS=8 SLURM_SUBMIT_DIR=$temp
FAKE_PMIX=1 FAKE=finish finish "$batch" config.json --set a.b=c
check "batch: a finished run" is "$status" 0
check "batch: by pmix" called "^srun --mpi=pmix --kill-on-bad-exit=1 "
check "batch: resumes" called "^llmz train config.json --set a.b=c --resume$"
check "batch: a finished run is not requeued" not called scontrol
FAKE_PMIX=1 FAKE=fail finish "$batch" config.json
check "batch: a failed run" is "$status" 1
check "batch: a failed run is not requeued" not called scontrol
FAKE_PMIX=1 stop "TERM 0.1 USR1 0.2 USR1" "$batch" config.json
check "batch: USR1 reaches llmz, once" called saved
check "batch: a stopped run is requeued" times 1 "^scontrol requeue 12345$"
check "batch: exit code of a requeued job" is "$status" 0
FAKE_PMIX=1 SLURM_RESTART_COUNT=2 LLMZ_MAX_REQUEUES=2 stop USR1 "$batch" config.json
check "batch: not requeued for ever" not called scontrol
for signal in TERM KILL; do
  FAKE_STRAGGLER=$signal FAKE_PMIX=1 stop USR1 "$batch" config.json
  check "batch: requeued although srun ended a slower task by $signal" times 1 "^scontrol requeue 12345$"
  check "batch: exit code after $signal" is "$status" 0
  FAKE_STRAGGLER=$signal FAKE_PMIX=1 stop "USR1 0.1 TERM" "$batch" config.json
  check "batch: a cancelled run is not requeued after $signal" not called scontrol
  FAKE_STRAGGLER=$signal FAKE_PMIX=1 FAKE=fail finish "$batch" config.json
  check "batch: a failed run is not requeued after $signal" not called scontrol
done
FAKE_STRAGGLER=TERM FAKE_PMIX=1 SLURM_RESTART_COUNT=2 LLMZ_MAX_REQUEUES=2 stop USR1 "$batch" config.json
check "batch: not requeued for ever after TERM" not called scontrol
SLURM_GPUS_ON_NODE=4 stop USR1 "$batch" config.json
check "batch: without pmix over TCP" called "^srun --mpi=none --distribution=block"
check "batch: where rank 0 is, and who this is" called "--rendezvous tcp:node7:22345 --rank 3 --ranks 8$"
check "batch: a secret of the job" called "^token [0-9a-f]\{32\}$"
check "batch: USR1 through the shell of a task" called saved
check "batch: requeued" called "^scontrol requeue 12345$"
stop USR1 "$batch" config.json
check "batch: without pmix and GPUs by mpirun" called "^mpirun "
check "batch: USR1 through mpirun" called saved
LLMZ_LAUNCH=tcp LLMZ_PORT=7 LLMZ_RENDEZVOUS_TOKEN=x FAKE=finish finish "$batch" config.json
check "batch: as asked" called "--rendezvous tcp:node7:7 "
check "batch: the secret asked for" called "^token x$"
finish "$batch" nothing.json
check "batch: no config" said "cannot read nothing.json"

if [ $failures -gt 0 ]; then
  echo "$failures checks failed"
  exit 1
fi
echo "all passed"
