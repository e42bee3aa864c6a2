# Training as one rank of one, through NCCL, against training without. Sourced by gpu_check.sh, not run.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # what is not set here is set, and what is not read is read, by gpu_check.sh
# shellcheck source=scripts/gpu_check/common.sh

# A port that nothing listens on just now.
free_port() {
  local port
  for port in 29517 29531 29557 29587 29611; do
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      say "$port"
      return
    fi
  done
  say 29641
}

# skip_nccl WHY
skip_nccl() {
  say "    NCCL not checked: $1"
  note '' '### NCCL, one rank' '' "Not checked: $1."
  verdict[nccl]="not checked: $1"
}

# The sum over one rank is the number itself, so the losses are those of the run without, but for the order in which
# the gradients of a step come together: fp32 rounding, which training widens.
run_nccl() {
  local before=${#failed[@]} status=0 settings=(--set train.device=cuda --set precision=fp32 --set preset=full)
  if ! grep -qE '^ok +NCCL ' "$work/doctor"; then
    skip_nccl "this build has no NCCL"
    return
  fi
  if ! "$llmz" train --help 2>/dev/null | grep -q -e '--rendezvous'; then
    skip_nccl "this llmz train has no --rendezvous"
    return
  fi
  if [ -z "$(losses gpu-fp32-full)" ]; then
    leave nccl
    verdict[nccl]="not checked: no run to compare with"
    return
  fi
  train nccl-one-rank "${settings[@]}" --rendezvous "tcp:127.0.0.1:$(free_port)" --rank 0 --ranks 1 || status=$?
  if [ $status -eq "$kOutOfTime" ]; then
    leave nccl
    verdict[nccl]="out of time"
    return
  fi
  note '' '### NCCL, one rank' '' 'Losses against the same run without ranks. Tolerances 1e-5, 1e-3, 1e-2. Says nothing of several GPUs.' '' \
    '| run | against | step 1 | steps 1-20 | last 10 | mean of last 10 | tokens/s | |' '|---|---|---|---|---|---|---|---|'
  check_curve nccl-one-rank gpu-fp32-full 1e-5 1e-3 1e-2
  verdict[nccl]="one rank: $((${#failed[@]} - before)) failures"
}
