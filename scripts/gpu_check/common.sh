# What knows nothing of llmz: time, verdicts, the log, numbers out of JSON. Sourced by gpu_check.sh, not run.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034,SC2016  # what is not set here is set, and what is not read is read, by gpu_check.sh

passed=() failed=() missed=() unfinished=()

say() { printf '%s\n' "$*"; }
# note LINE...: into the log.
note() { printf '%s\n' "$@" >>"$log"; }
pass() { passed+=("$1"); }
fail() {
  failed+=("$1${2:+: $2}")
  say "    FAILED $1${2:+: $2}"
}
miss() {
  missed+=("$1")
  say "    below target: $1"
}
leave() {
  unfinished+=("$1")
  say "    not finished: $1"
}

# quoted FILE LINES: the end of a program's output as a block of Markdown; quote: the same, into the log.
quoted() {
  printf '\n```\n'
  tail -n "$2" "$1" 2>/dev/null | cut -c 1-240 | tr '`' "'"
  printf '```\n\n'
}
quote() { quoted "$1" "$2" >>"$log"; }

# share_of_time SHARE SHARES_LEFT: the section may take its share of what is left, so that the time which one saves
# goes to those behind it.
share_of_time() {
  local left=$((cap_end - SECONDS))
  if [ $left -lt 0 ]; then left=0; fi
  section_end=$((SECONDS + left * $1 / $2))
}

seconds_left() { say $((section_end - SECONDS)); }

# meaning STATUS
meaning() {
  case $1 in
    0) say passed ;;
    124) say "over its time" ;;
    "$kOutOfTime") say "the section's time was over" ;;
    *) say "exit code $1" ;;
  esac
}

kOutOfTime=75 # what capped() returns when the section's time ended the command, not the command's own limit

# capped LIMIT OUTPUT COMMAND...: 124 when it ran past its own limit, kOutOfTime when the section's time was over first.
capped() {
  local limit=$1 output=$2 left status=0 over=124
  shift 2
  left=$(seconds_left)
  if [ "$left" -lt "$limit" ]; then
    limit=$left
    over=$kOutOfTime
  fi
  if [ "$limit" -lt 1 ]; then
    : >"$output"
    return "$kOutOfTime"
  fi
  local start=$SECONDS
  { timeout -k 5 "$limit" "$@" >"$output" 2>&1 </dev/null; } 2>/dev/null || status=$? # the shell's word on a signal is no news
  # 137 may also be a kill for want of memory, long before the limit.
  if [ $status -eq 124 ] || { [ $status -eq 137 ] && [ $((SECONDS - start)) -ge "$limit" ]; }; then status=$over; fi
  return $status
}

# json FILE KEY or json FILE PARENT.KEY: a number of JSON printed one member a line.
json() {
  awk -v want="$2" '
    { line = $0; sub(/^ */, "", line); indent = length($0) - length(line) }
    match(line, /^"[^"]*": */) {
      key = substr(line, 2, index(substr(line, 2), "\"") - 1)
      value = substr(line, RLENGTH + 1); sub(/,? *$/, "", value)
      if (value == "{") { parent = key; next }
      path = indent > 2 ? parent "." key : key
      if (path == want) { gsub(/"/, "", value); print value; exit }
    }' "$1"
}

# calc EXPRESSION [FORMAT]: awk's arithmetic; "-" where it has no value.
calc() { awk "BEGIN { x = ($1); printf(\"${2:-%.3g}\", x) }" 2>/dev/null || printf -- '-'; }
holds() { [ "$(awk "BEGIN { print (($1) ? 1 : 0) }" 2>/dev/null)" = 1 ]; }

# Watches the memory of the first GPU in use, as the driver sees it: all of the process, not only the arena.
watch_memory() {
  watcher=""
  : >"$work/memory"
  if ! command -v nvidia-smi >/dev/null; then return; fi
  nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits -i "$gpu_index" -lms 100 >"$work/memory" 2>/dev/null &
  watcher=$!
}
# Prints the highest in GB, "-" where nobody can tell.
watched_memory() {
  if [ -n "$watcher" ]; then
    kill "$watcher" 2>/dev/null
    wait "$watcher" 2>/dev/null
  fi
  awk '/^ *[0-9]+/ && $1 > most { most = $1 } END { if (most > 0) printf "%.2f", most * 1.048576e-3; else printf "-" }' "$work/memory"
}
