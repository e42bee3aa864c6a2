# Training on the GPU against training on the CPU, and resuming. Sourced by gpu_check.sh, not run.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # what is not set here is set, and what is not read is read, by gpu_check.sh
# shellcheck source=scripts/gpu_check/common.sh

# A model that trains in seconds, on the repository's own text in bytes. 512 = the tokenizer's 257, rounded up.
write_training() {
  steps=60 resume_steps=400
  local model='{"base": "llama-3m", "vocab_size": 512}' batch='"sequence": 256, "micro_batch": 4, "global_batch": 8'
  if [ "$small" = 1 ]; then
    steps=3 resume_steps=4
    model='{"vocab_size": 320, "hidden": 32, "intermediate": 64, "layers": 1, "heads": 2, "context": 64}'
    batch='"sequence": 16, "micro_batch": 1, "global_batch": 2'
  fi
  cat >"$work/train.json" <<JSON
{
  "model": $model,
  "data": { "path": "$work/data" },
  "optimizer": { "lr": 4e-3, "beta2": 0.95, "lr_scale": { "blocks": 0.25 } },
  "schedule": { "warmup": 0.1 },
  "train": { "steps": $steps, $batch, "eval_every": 0, "eval_batches": 2 },
  "output": { "save_every": 0, "save_best": false }
}
JSON
  if [ -f "$work/data/dataset.json" ]; then return; fi
  if ! capped 60 "$work/prepare.log" "$llmz" data prepare --input "docs/*.md" "src/*/*.cpp" "include/llmz/*/*.h" \
    --out "$work/data" --tokenizer bytes --validation 0.05 --overwrite; then
    fail "data prepare" "$(tail -n 1 "$work/prepare.log")"
    return 1
  fi
}

train() {
  local name=$1
  shift
  capped 100 "$work/$name.log" "$llmz" train "$work/train.json" --set "output.path=$work/$name" "$@"
}

# Steps and losses of a run. Two lines of one step would be an error of resuming, and show as a difference.
losses() { sed -n 's/^{"step":\([0-9]*\),"loss":\([^,]*\),.*/\1 \2/p' "$work/$1/metrics.jsonl" 2>/dev/null; }
speed() { sed -n 's/.*"tokens_per_second":\([^,]*\),.*/\1/p' "$work/$1/metrics.jsonl" 2>/dev/null | sort -g | awk '{ v[NR] = $1 } END { printf "%.0f", v[int((NR + 1) / 2)] }'; }

# compare NAME REFERENCE: differences of the losses in the first step, the first 20, and of the means of the last 10.
compare() {
  paste -d ' ' <(losses "$2") <(losses "$1") | awk -v steps="$steps" '
    function size(x) { return x < 0 ? -x : x }
    NF != 4 || $1 != $3 || $2 !~ /^[0-9.e+-]+$/ || $4 !~ /^[0-9.e+-]+$/ { broken = 1; next }
    { d = size($4 - $2) }
    NR == 1 { first = d; start = $4 }
    NR <= 20 && d > early { early = d }
    NR > steps - 10 { a += $2; b += $4; n++ }
    END {
      if (broken || NR != steps) print "broken"
      else printf "%.2e %.2e %.2e %.4f %.4f\n", first, early, size(a - b) / n, b / n, start
    }'
}

# check_curve NAME REFERENCE FIRST EARLY LAST: a row of the table, within these tolerances.
check_curve() {
  local name=$1 reference=$2 first early last mean start result=passed
  read -r first early last mean start < <(compare "$name" "$reference")
  if [ "${first:-broken}" = broken ]; then
    fail "train $name" "no $steps steps with finite losses beside $reference's: $(tail -n 1 "$work/$name.log" 2>/dev/null)"
    note "| $name | $reference | FAILED: steps missing or not finite | | | | |"
    return
  fi
  if ! holds "$first <= $3 && $early <= $4 && $last <= $5"; then
    result="FAILED: over $3, $4, $5"
    fail "train $name" "losses off $reference's by $first, $early, $last; allowed $3, $4, $5"
  elif [ "$small" != 1 ] && ! holds "$mean < $start - 0.5"; then
    result="FAILED: does not learn"
    fail "train $name" "loss $mean after $steps steps, $start before"
  else
    pass "train $name"
  fi
  note "| $name | $reference | $first | $early | $last | $mean | $(speed "$name") | $result |"
}

# Sums of fp32 in another order differ by some 1e-6 of a loss of 6; training then widens the gap. Codes round, and a
# number next to a level's edge may fall on its other side: more room. TF32 has 10 bits, bf16 7.
run_curves() {
  local presets=(full lean prac_sign compact_n4) preset name kind names=()
  for preset in "${presets[@]}"; do
    for kind in cpu-fp32 gpu-fp32 gpu-tf32 gpu-bf16; do
      if [ $kind = gpu-tf32 ] && [ "$preset" != full ]; then continue; fi
      if [ "$small" = 1 ] && [ $kind = gpu-bf16 ] && [ "$preset" != full ]; then continue; fi
      name=$kind-$preset
      local device=cuda status=0
      if [ $kind = cpu-fp32 ]; then device=cpu; fi
      train "$name" --set "train.device=$device" --set "precision=${kind#*-}" --set "preset=$preset" || status=$?
      if [ $status -eq "$kOutOfTime" ]; then
        leave "train $name"
        continue
      fi
      names+=("$name")
      say "    trained $name (exit code $status)"
    done
  done
  note '' "Losses of $steps steps against a reference run's: largest difference in step 1, in steps 1 to 20, between the means of" \
    'the last 10. Tolerances: fp32 GPU against CPU 5e-5, 2e-3, 2e-2 (with codes 5e-5, 2e-2, 5e-2); tf32 2e-3, 2e-2, 5e-2; bf16 2e-2, 0.1, 0.1.' '' \
    '| run | against | step 1 | steps 1-20 | last 10 | mean of last 10 | tokens/s | |' '|---|---|---|---|---|---|---|---|'
  for name in "${names[@]}"; do
    preset=${name#*-*-}
    case $name in
      cpu-*)
        note "| $name | | | | | $(losses "$name" | tail -n 10 | awk '{ s += $2 } END { if (NR) printf "%.4f", s / NR }') | $(speed "$name") | |"
        if [ -z "$(losses "$name")" ]; then fail "train $name" "$(tail -n 1 "$work/$name.log")"; fi
        ;;
      gpu-fp32-full) check_curve "$name" cpu-fp32-full 5e-5 2e-3 2e-2 ;;
      gpu-fp32-*) check_curve "$name" "cpu-fp32-$preset" 5e-5 2e-2 5e-2 ;;
      gpu-tf32-*) check_curve "$name" "cpu-fp32-$preset" 2e-3 2e-2 5e-2 ;;
      gpu-bf16-*) check_curve "$name" "cpu-fp32-$preset" 2e-2 0.1 0.1 ;;
    esac
  done
  lay_over "${names[@]}"
}

# The curves side by side, at a few steps.
lay_over() {
  local name step row
  note '' "| step | $(printf '%s | ' "$@")" "|---|$(printf -- '---|%.0s' "$@")"
  for step in 1 2 3 5 10 20 30 40 50 60; do
    if [ "$step" -gt "$steps" ]; then break; fi
    row="| $step |"
    for name in "$@"; do row="$row $(losses "$name" | awk -v s="$step" '$1 == s { printf "%.4f", $2 }') |"; done
    note "$row"
  done
}

# A run killed with SIGKILL and resumed has every loss of one that was left in peace, to the last digit.
run_resume() {
  local settings=(--set train.device=cuda --set precision=bf16 --set preset=compact_n4 --set "train.steps=$resume_steps"
    --set "output.save_every=$((resume_steps / 4))")
  local pid count=0 status=0 result
  train whole "${settings[@]}" || status=$?
  if [ $status -eq "$kOutOfTime" ]; then leave resume; verdict[resume]="out of time"; return; fi
  "$llmz" train "$work/train.json" --set "output.path=$work/killed" "${settings[@]}" >"$work/killed.log" 2>&1 </dev/null &
  pid=$!
  while kill -0 $pid 2>/dev/null && [ "$(seconds_left)" -gt 0 ]; do
    count=$(losses killed | wc -l)
    if [ "$count" -gt $((resume_steps / 4 + resume_steps / 16)) ]; then break; fi
    sleep 0.05
  done
  kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null
  count=$(losses killed | wc -l)
  status=0
  train killed "${settings[@]}" --resume || status=$?
  if [ $status -eq "$kOutOfTime" ]; then
    leave resume
    result="out of time"
  elif [ "$count" -ge "$resume_steps" ]; then
    leave "resume: the run was over before it could be killed"
    result="not tried: the run was over too soon"
  elif [ $status -ne 0 ] || [ "$(losses whole | wc -l)" -ne "$resume_steps" ]; then
    fail resume "exit code $status: $(tail -n 1 "$work/killed.log")"
    result=FAILED
  elif [ "$(losses whole)" = "$(losses killed)" ]; then
    pass resume
    result="killed after step $count of $resume_steps and resumed: the same losses, every digit"
  else
    fail resume "losses differ: $(diff <(losses whole) <(losses killed) | sed -n '2p;/^>/{p;q}' | tr '\n' ' ')"
    result="FAILED: killed after step $count of $resume_steps and resumed, the losses differ"
  fi
  note '' '### Resume' '' "compact_n4, bf16: $result."
  verdict[resume]=$result
}

measure_yardstick() {
  if [ "$yardstick" != 0 ]; then return; fi
  write_training || return
  train yardstick --overwrite --set train.device=cuda --set precision=bf16 --set train.steps=1 || return
  yardstick=$(sed -n 's/.*matmul peak \([0-9]*\) GFLOP.*/\1/p' "$work/yardstick.log" | head -n 1)
  yardstick=${yardstick:-0}
}

run_train() {
  local before=${#failed[@]}
  note '' '## Training, GPU against CPU'
  write_training || { verdict[train]="no data"; return; }
  measure_yardstick
  run_resume
  run_curves
  verdict[train]="loss curves: $((${#failed[@]} - before)) failures"
  run_nccl
}

