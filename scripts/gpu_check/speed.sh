# Speed and memory: targets and benches. Sourced by gpu_check.sh, not run.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # what is not set here is set, and what is not read is read, by gpu_check.sh
# shellcheck source=scripts/gpu_check/common.sh

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
  # The larger of two measurements of the GPU's product.
  peak=$(json "$output" peak_gflops.median)
  if holds "$yardstick > ${peak:-0}"; then peak=$yardstick; fi
  case $label in *"bf16 full") full_speed=$speed_now ;; esac # what the rows below it are compared with
  share_now=$(calc "100 * $(json "$output" matmul_parameters_only.gflops) / $peak" %.1f)
  memory_now=$(calc "$allocated / 1e9" %.2f)
  if [ "${planned:-none}" = "$allocated" ]; then
    pass "plan $label"
  else
    fail "plan $label" "planned ${planned:-nothing}, allocated $allocated bytes"
  fi
  note "| $label | $micro x $sequence | $(calc "$speed_now" %.0f) | $(calc "$speed_now / $full_speed" %.3f) | $share_now % | $(calc "100 * $(json "$output" executed.gflops) / $peak" %.1f) % | $(calc "${planned:-0} / 1e9" %.2f) | $memory_now | $device_memory |"
  say "    $label, $micro x $sequence: $(calc "$speed_now" %.0f) tokens/s, $share_now % of peak, $memory_now GB"
}

bench_header() {
  note '' '| | batch | tokens/s | ratio to full | of matmul peak | as executed | planned GB | allocated GB | GPU in use GB |' '|---|---|---|---|---|---|---|---|---|'
}

# target NAME VALUE at_least|at_most BOUND
target() {
  if [ -z "$2" ]; then
    note "| $1 | not measured | ${3/_/ } $4 | |"
    return
  fi
  local good="$2 >= $4"
  if [ "$3" = at_most ]; then good="$2 <= $4"; fi
  if holds "$good"; then
    pass "target $1"
    note "| $1 | $2 | ${3/_/ } $4 | met |"
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
  # For a 24 GB card. Then a width that is a multiple of 8 beside the published
  # 5461, to see what the padding and the copies of odd rows cost.
  full_speed=0
  if bench_row "llama-1b bf16_stochastic lean" "$work/1b.json" "$((small == 1 ? 1 : 128))" "$((small == 1 ? 16 : 256))" \
    precision=bf16_stochastic preset=lean; then got[small.memory]=$memory_now; fi
  local micro_memory
  micro_memory=$(fitting "$work/350m.json" $sequence_350 $micro_350)
  if bench_row "llama-350m pure_bf16 full, product rebuilt" "$work/350m.json" "$micro_memory" $sequence_350 \
    precision=pure_bf16 activations.down_input.codec=recompute; then got[350m.full.pure]=$memory_now; fi
  if bench_row "llama-350m pure_bf16 prac" "$work/350m.json" "$micro_memory" $sequence_350 \
    precision=pure_bf16 preset=prac; then got[350m.prac.pure]=$memory_now; fi
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
  target "llama-350m full, SwiGLU's product rebuilt, pure bf16, at 128 x 256, GB" "${got[350m.full.pure]:-}" at_most 24
  target "llama-350m prac, pure bf16, at 128 x 256, GB" "${got[350m.prac.pure]:-}" at_most 20
  target "llama-350m lean at 128 x 256, GB" "${got[llama-350m.lean.memory]:-}" at_most 11
  target "llama-1b lean, bf16_stochastic, at 128 x 256, GB" "${got[small.memory]:-}" at_most 24
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

