# The tests of the kernels, plain and under compute-sanitizer. Sourced by gpu_check.sh, not run.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034  # what is not set here is set, and what is not read is read, by gpu_check.sh
# shellcheck source=scripts/gpu_check/common.sh

test_programs() { find "$build/tests" -type f -name 'test_cuda_*' -perm -u+x 2>/dev/null | sort; }

# Once more with each launch waited for: the error then comes from the kernel that made it.
name_the_kernel() {
  local status=0
  LLMZ_REQUIRE_GPU=1 LLMZ_CUDA_SYNC=1 capped 60 "$work/$1.sync" "$2" || status=$?
  {
    printf '\n### %s, the end of its output\n' "$1"
    quoted "$work/$1.log" 25
    printf 'With LLMZ_CUDA_SYNC=1 (%s):\n' "$(meaning $status)"
    quoted "$work/$1.sync" 25
  } >>"$work/failures"
}

run_tests() {
  local program name status start output ok=0 count=0 limit=75 bad=()
  if [ "$small" = 1 ]; then limit=300; fi # emulated kernels take their time
  : >"$work/fast"
  : >"$work/failures"
  note '## Tests of the kernels' '' '| program | result | seconds | last line |' '|---|---|---|---|'
  while read -r program; do
    name=$(basename "$program")
    output=$work/$name.log
    count=$((count + 1))
    start=$SECONDS status=0
    LLMZ_REQUIRE_GPU=1 capped $limit "$output" "$program" || status=$?
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
        result="FAILED: over $limit s"
        fail "$name" "over $limit s"
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
    case $result in FAILED*) name_the_kernel "$name" "$program" ;; esac
  done < <(test_programs)
  if [ $count -eq 0 ]; then fail tests "no test_cuda_* under $build/tests"; fi
  cat "$work/failures" >>"$log"
  verdict[tests]="$ok of $count programs passed${bad[*]:+; failed: $(printf '%s ' "${bad[@]##*/}")}"
}

run_sanitizer() {
  local tool took program name status output sanitizer clean=0 cut=0 findings=0
  # Not the summary, which names errors and hazards too where there are none.
  local finding='^=+ +(Invalid|Misaligned|Program hit|Barrier error|Out-of-range|(Error|ERROR|Warning|WARN): )'
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
      if [ $status -eq 86 ] || grep -qE "$finding" "$output"; then
        result="FAILED" findings=$((findings + 1))
        fail "$tool $name" "$(grep -m1 -E "$finding" "$output" | sed 's/^=* *//' | cut -c 1-120)"
      elif [ $status -eq 0 ]; then
        result=clean clean=$((clean + 1))
        pass "$tool $name"
      elif [ $status -eq 124 ] || [ $status -eq "$kOutOfTime" ]; then
        result="cut after $((SECONDS - start)) s, nothing found until then" cut=$((cut + 1))
      else
        result="FAILED, exit code $status" findings=$((findings + 1))
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
  verdict[sanitizer]="$clean clean, $findings with findings, $cut cut by the time"
}

