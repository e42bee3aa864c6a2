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
# shellcheck source=scripts/_gpu_check.sh
source scripts/_gpu_check.sh

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
  if [ -d "$deps/usr" ]; then export PKG_CONFIG_SYSROOT_DIR=$deps; fi # unpacked packages name /usr
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
  gpu_bytes=$(sed -n 's/^[^(]*(\([0-9]*\) GB.*/\1e9/p' <<<"$line")
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
  say "==> building in $build"
  local start=$SECONDS output=$work/build.log
  section_end=$cap_end
  if ! capped 600 "$output" "${configure[@]}" ||
    ! capped 1200 "$output" cmake --build "$build" --parallel "${JOBS:-$(nproc)}"; then
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
    "driver ${driver:-not known}; ${build_seconds:+built in $build_seconds s; }$(nproc) processors." '' '## llmz doctor'
  if [ "$small" = 1 ]; then note '' "**A trial of the script with tiny sizes: no number below says anything about a GPU's speed.**"; fi
  quote "$work/doctor" 60
  header="$gpu, driver ${driver:-not known}, commit $commit"
}

# --- tests ------------------------------------------------------------------------------------------------------------

test_programs() { find "$build/tests" -type f -name 'test_cuda_*' -perm -u+x 2>/dev/null | sort; }

run_tests() {
  local program name status start output ok=0 count=0 bad=()
  : >"$work/fast"
  note '## Tests of the kernels' '' '| program | result | seconds | last line |' '|---|---|---|---|'
  while read -r program; do
    name=$(basename "$program")
    output=$work/$name.log
    count=$((count + 1))
    start=$SECONDS status=0
    LLMZ_REQUIRE_GPU=1 capped 120 "$output" "$program" || status=$?
    local took=$((SECONDS - start)) result
    case $status in
      0)
        result=passed ok=$((ok + 1))
        pass "$name"
        say "$took $program" >>"$work/fast"
        ;;
      "$kOutOfTime")
        result="not finished, out of time"
        leave "$name"
        ;;
      124)
        result="FAILED: over 120 s"
        fail "$name" "over 120 s"
        bad+=("$program")
        ;;
      *)
        result="FAILED, exit code $status"
        fail "$name" "exit code $status"
        bad+=("$program")
        ;;
    esac
    note "| $name | $result | $took | $(grep -v '^ *$' "$output" | tail -n 1 | cut -c 1-100 | tr '|' '/') |"
    say "    $name: $result ($took s)"
  done < <(test_programs)
  if [ $count -eq 0 ]; then fail tests "no test_cuda_* under $build/tests"; fi
  for program in "${bad[@]}"; do
    name=$(basename "$program")
    note '' "### $name, the end of its output"
    quote "$work/$name.log" 25
    # Each launch waited for: the error comes from the kernel that made it.
    status=0
    LLMZ_REQUIRE_GPU=1 LLMZ_CUDA_SYNC=1 capped 60 "$work/$name.sync" "$program" || status=$?
    note "The same with LLMZ_CUDA_SYNC=1 (exit code $status):"
    quote "$work/$name.sync" 25
  done
  verdict[tests]="$ok of $count programs passed${bad[*]:+; failed: $(printf '%s ' "${bad[@]##*/}")}"
}

# --- training -----------------------------------------------------------------------------------------------------------

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
      if [ $kind = gpu-tf32 ] && [ $preset != full ]; then continue; fi
      if [ "$small" = 1 ] && [ $kind = gpu-bf16 ] && [ $preset != full ]; then continue; fi
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
  timeout 100 "$llmz" train "$work/train.json" --set "output.path=$work/killed" "${settings[@]}" >"$work/killed.log" 2>&1 </dev/null &
  pid=$!
  while kill -0 $pid 2>/dev/null && [ "$(seconds_left)" -gt 0 ]; do
    count=$(losses killed | wc -l)
    if [ "$count" -gt $((resume_steps / 4 + resume_steps / 16)) ]; then break; fi
    sleep 0.05
  done
  # `timeout` would pass a TERM on, and only that: the trainer is its child.
  pkill -KILL -P $pid 2>/dev/null || kill -KILL $pid 2>/dev/null
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
}

# --- targets, benches ---------------------------------------------------------------------------------------------------

# bench_row LABEL CONFIG MICRO SEQUENCE [SETTING...]: a step measured, with a row in the log. Sets speed_now, share_now,
# memory_now (planned GB). The settings' last words after preset= and precision= are what the row names.
bench_row() {
  local label=$1 config=$2 micro=$3 sequence=$4 output=$work/step.json status=0 sets=() setting
  shift 4
  speed_now="" share_now="" memory_now=""
  for setting in train.device=cuda "$@"; do sets+=(--set "$setting"); done
  watch_memory
  capped 150 "$output" "$llmz" bench step --config "$config" --micro-batch "$micro" --sequence "$sequence" \
    --repeat "$repeat" --json "${sets[@]}" || status=$?
  local device_memory planned allocated peak plan=$work/plan.json
  device_memory=$(watched_memory)
  if [ $status -eq "$kOutOfTime" ]; then
    leave "bench step $label"
    return 1
  fi
  speed_now=$(json "$output" tokens_per_second)
  if [ $status -ne 0 ] || [ -z "$speed_now" ]; then
    fail "bench step $label" "exit code $status: $(tail -n 1 "$output" | cut -c 1-160)"
    note "| $label | $micro x $sequence | FAILED, exit code $status | | | | | | |"
    return 1
  fi
  allocated=$(json "$output" allocated_bytes)
  capped 30 "$plan" "$llmz" plan "$config" --json --set "train.micro_batch=$micro" --set "train.global_batch=$micro" \
    --set "train.sequence=$sequence" "${sets[@]}"
  planned=$(json "$plan" total)
  # The larger of two measurements of the GPU's product: an older `bench step` measures the processor's.
  peak=$(json "$output" peak_gflops.median)
  if holds "$yardstick > ${peak:-0}"; then peak=$yardstick; fi
  share_now=$(calc "100 * $(json "$output" matmul_parameters_only.gflops) / $peak" %.1f)
  memory_now=$(calc "$allocated / 1e9" %.2f)
  if [ "${planned:-none}" = "$allocated" ]; then
    pass "plan $label"
  else
    fail "plan $label" "planned ${planned:-nothing}, allocated $allocated bytes"
  fi
  note "| $label | $micro x $sequence | $(calc "$speed_now" %.0f) | $(calc "${full_speed:-0} > 0 ? $speed_now / ${full_speed:-1} : 1" %.3f) | $share_now % | $(calc "100 * $(json "$output" executed.gflops) / $peak" %.1f) % | $(calc "${planned:-0} / 1e9" %.2f) | $memory_now | $device_memory |"
  say "    $label, $micro x $sequence: $(calc "$speed_now" %.0f) tokens/s, $share_now % of peak, $memory_now GB"
}

bench_header() {
  note '' '| | batch | tokens/s | ratio to full | of matmul peak | as executed | planned GB | allocated GB | GPU in use GB |' '|---|---|---|---|---|---|---|---|---|'
}

# target NAME VALUE at_least|at_most BOUND
target() {
  if [ -z "$2" ]; then
    note "| $1 | not measured | $3 $4 | |"
    return
  fi
  local good="$2 >= $4"
  if [ "$3" = at_most ]; then good="$2 <= $4"; fi
  if holds "$good"; then
    pass "target $1"
    note "| $1 | $2 | ${3/_/ } $4 | met |" >>"$log"
  else
    miss "$1 is $2, wanted ${3/_/ } $4"
    note "| $1 | $2 | ${3/_/ } $4 | **missed** |"
  fi
}

# fitting CONFIG SEQUENCE MICRO: the micro-batch, halved until `full` takes at most 88 % of the GPU's memory.
fitting() {
  local micro=$3 total
  while [ "$micro" -gt 1 ]; do
    total=$("$llmz" plan "$1" --json --set train.device=cuda --set precision=bf16 --set "train.micro_batch=$micro" \
      --set "train.global_batch=$micro" --set "train.sequence=$2" 2>/dev/null | awk '/"total"/ { gsub(/[^0-9]/, ""); print }')
    if [ -n "$total" ] && holds "$total <= 0.88 * $gpu_bytes"; then break; fi
    micro=$((micro / 2))
  done
  say "$micro"
}

# measure_presets MODEL CONFIG MICRO SEQUENCE: full first, for the others' ratios. Results in got[MODEL.PRESET.WHAT].
measure_presets() {
  local preset
  full_speed=0
  for preset in full prac compact_n4 lean; do
    bench_row "$1 bf16 $preset" "$2" "$3" "$4" precision=bf16 "preset=$preset" || continue
    if [ $preset = full ]; then full_speed=$speed_now; fi
    got[$1.$preset.share]=$share_now
    got[$1.$preset.memory]=$memory_now
    if holds "$full_speed > 0"; then got[$1.$preset.ratio]=$(calc "$speed_now / $full_speed" %.3f); fi
  done
}

run_targets() {
  local before=${#missed[@]} micro_350=128 sequence_350=256 micro_1b=16 sequence_1b=2048
  declare -gA got=()
  say '{"model": "llama-350m"}' >"$work/350m.json"
  say '{"model": {"base": "llama-1b", "context": 2048}}' >"$work/1b.json"
  repeat=8
  if [ "$small" = 1 ]; then
    cp "$work/train.json" "$work/350m.json" 2>/dev/null || { write_training && cp "$work/train.json" "$work/350m.json"; }
    cp "$work/350m.json" "$work/1b.json"
    micro_350=2 sequence_350=16 micro_1b=4 sequence_1b=32 repeat=1
  fi
  note '' '## Targets' '' 'Steps of made-up tokens, medians; "of matmul peak" counts 6 x the parameters that meet a product, and causal attention; refreshes of' \
    'projectors fall into the step before the measured ones.'
  measure_yardstick
  note "GPU matrix product, bf16, as \`llmz train\` measures it: $yardstick GFLOP/s."
  bench_header
  measure_presets llama-350m "$work/350m.json" "$(fitting "$work/350m.json" $sequence_350 $micro_350)" $sequence_350
  measure_presets llama-1b "$work/1b.json" "$(fitting "$work/1b.json" $sequence_1b $micro_1b)" $sequence_1b
  # On a 24 GB card: the micro-batch of configs/llama-1b-c4.json. Then the width that the published shape lacks: 5461 is
  # odd, and rows of an odd number of bf16 keep the tensor cores from their fastest loads.
  full_speed=0
  if bench_row "llama-1b bf16 lean, small batch" "$work/1b.json" "$((small == 1 ? 1 : 8))" "$((small == 1 ? 16 : 256))" \
    precision=bf16 preset=lean; then got[small.memory]=$memory_now; fi
  if [ "$small" != 1 ]; then
    bench_row "llama-1b bf16 full, intermediate 5504" "$work/1b.json" "$(fitting "$work/1b.json" $sequence_1b $micro_1b)" \
      $sequence_1b precision=bf16 model.intermediate=5504
  fi
  note '' '| target | measured | wanted | |' '|---|---|---|---|'
  target "llama-1b full at 2048 tokens, % of bf16 peak" "${got[llama-1b.full.share]:-}" at_least 55
  target "llama-350m full at 128 x 256, % of bf16 peak" "${got[llama-350m.full.share]:-}" at_least 45
  local model preset
  for model in llama-350m llama-1b; do
    for preset in prac compact_n4; do
      target "$model $preset, tokens/s over full's" "${got[$model.$preset.ratio]:-}" at_least 1.1
    done
  done
  target "llama-350m full at 128 x 256, GB" "${got[llama-350m.full.memory]:-}" at_most 24
  target "llama-350m prac at 128 x 256, GB" "${got[llama-350m.prac.memory]:-}" at_most 20
  target "llama-350m lean at 128 x 256, GB" "${got[llama-350m.lean.memory]:-}" at_most 11
  target "llama-1b lean at 8 x 256, GB" "${got[small.memory]:-}" at_most 24
  verdict[targets]="1B full ${got[llama-1b.full.share]:--} % of peak, 350M full ${got[llama-350m.full.share]:--} %; $((${#missed[@]} - before)) missed"
}

# bench_table NAME: `llmz bench NAME`, where this build can run it on the GPU.
bench_table() {
  local where=() help status=0 extra=(--seconds 0.1)
  help=$("$llmz" bench "$1" --help 2>/dev/null)
  case $help in
    *--device*) where=(--device cuda) ;;
    *--set*) where=(--set train.device=cuda --set precision=bf16) ;;
    *)
      note '' "### bench $1" '' "Not run: in this build it measures the processor only."
      leave "bench $1: it measures the processor only"
      return
      ;;
  esac
  case $help in *--precision*) where+=(--precision bf16) ;; esac
  if [ "$small" = 1 ]; then
    extra=(--seconds 0 --hidden 64 --intermediate 128 --vocabulary 320)
    if [ "$1" = ops ]; then extra+=(--batch 1 --sequence 32 --heads 2); else extra+=(--tokens 64); fi
  fi
  capped 60 "$work/bench-$1" "$llmz" bench "$1" "${where[@]}" "${extra[@]}" || status=$?
  note '' "### bench $1 ${where[*]}"
  quote "$work/bench-$1" 60
  case $status in
    0) pass "bench $1" ;;
    "$kOutOfTime") leave "bench $1" ;;
    *) fail "bench $1" "exit code $status: $(tail -n 1 "$work/bench-$1" | cut -c 1-160)" ;;
  esac
}

run_bench() {
  local before=${#failed[@]} precision model=llama-60m micro=64 sequence=256
  repeat=5
  note '' '## Benches'
  say '{"model": "llama-60m"}' >"$work/60m.json"
  say '{"model": "gpt2-124m"}' >"$work/gpt2.json"
  if [ "$small" = 1 ]; then
    write_training && cp "$work/train.json" "$work/60m.json"
    micro=1 sequence=16 repeat=1
  fi
  measure_yardstick
  bench_header
  full_speed=0
  for precision in bf16 tf32 fp32; do bench_row "$model $precision full" "$work/60m.json" $micro $sequence "precision=$precision"; done
  if [ "$small" != 1 ]; then
    for precision in prac_sign fast lean; do
      bench_row "$model bf16 $precision" "$work/60m.json" $micro $sequence precision=bf16 "preset=$precision"
    done
    bench_row "gpt2-124m bf16 full" "$work/gpt2.json" 16 1024 precision=bf16
  fi
  bench_table matmul
  bench_table ops
  verdict[bench]="$((${#failed[@]} - before)) failures"
}

# --- compute-sanitizer --------------------------------------------------------------------------------------------------

run_sanitizer() {
  local tool took program name status output sanitizer clean=0 cut=0 bad=0
  sanitizer=$(command -v compute-sanitizer || compgen -G "${CUDA_HOME:-/usr/local/cuda}/bin/compute-sanitizer") || sanitizer=""
  note '' '## compute-sanitizer'
  if [ -z "$sanitizer" ]; then
    note '' 'Not run: compute-sanitizer is not on this machine.'
    leave "sanitizer: no compute-sanitizer here"
    verdict[sanitizer]="not run: no compute-sanitizer here"
    return
  fi
  if [ ! -s "$work/fast" ]; then test_programs | sed 's/^/0 /' >"$work/fast"; fi
  note '' '| tool | program | result | seconds |' '|---|---|---|---|'
  for tool in memcheck racecheck; do
    # The quick ones first; the tools make a program ten to a hundred times slower.
    while read -r took program; do
      if [ $tool = racecheck ] && [ "$took" -gt 5 ]; then continue; fi
      name=$(basename "$program")
      output=$work/$name.$tool
      local start=$SECONDS result
      status=0
      LLMZ_REQUIRE_GPU=1 capped 60 "$output" "$sanitizer" --tool "$tool" --error-exitcode 86 "$program" || status=$?
      if grep -qE '^=+ +(Invalid|Misaligned|Program hit|Error|Race|Out-of-range|.*hazard)' "$output"; then
        result="FAILED" bad=$((bad + 1))
        fail "$tool $name" "$(grep -m1 -E '^=+ +(Invalid|Misaligned|Program hit|Error|Race|Out-of-range|.*hazard)' "$output" | sed 's/^=* *//' | cut -c 1-120)"
      elif [ $status -eq 0 ]; then
        result=clean clean=$((clean + 1))
        pass "$tool $name"
      elif [ $status -eq 124 ] || [ $status -eq "$kOutOfTime" ]; then
        result="cut after $((SECONDS - start)) s, nothing found until then" cut=$((cut + 1))
      else
        result="FAILED, exit code $status" bad=$((bad + 1))
        fail "$tool $name" "exit code $status"
      fi
      note "| $tool | $name | $result | $((SECONDS - start)) |"
      case $result in FAILED*) cp "$output" "$work/bad-$tool-$name" ;; esac
    done < <(sort -n "$work/fast")
  done
  for output in "$work"/bad-*; do
    if [ ! -f "$output" ]; then continue; fi
    note '' "### ${output##*/bad-}"
    grep -E '^=' "$output" >"$output.lines"
    head -n 40 "$output.lines" >"$output.first"
    quote "$output.first" 40
  done
  if [ $cut -gt 0 ]; then leave "sanitizer: $cut programs cut by the time, without a finding"; fi
  verdict[sanitizer]="$clean clean, $bad with findings, $cut cut by the time"
}

# --- all of it ----------------------------------------------------------------------------------------------------------

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
    say "training   ${verdict[train]:-not run}; resume: ${verdict[resume]:-not run}"
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
  exit $code
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
  "run_$name"
done
finish
