#!/usr/bin/env bash
# Checks how the sources are written: clang-format over all of them, shellcheck over all scripts, clang-tidy over the C++ files
# that changed. A tool that is not installed is skipped with a word.
#   scripts/check_style.sh            what changed: against origin/main, or where that is no other commit, in the last commits
#   scripts/check_style.sh COMMIT     what changed since COMMIT
#   --no-tidy     leave out clang-tidy, which takes some ten seconds a file
# Environment: LLMZ_BUILD_DIR (default build; clang-tidy reads a folder of that name with -style), LLMZ_TIDY_FILES (at most so many
# files for clang-tidy, the most recently changed ones; default 4).
# shellcheck source=scripts/_common.sh
source "$(dirname "${BASH_SOURCE[0]}")/_common.sh"

base=""
tidy=1
for argument in "$@"; do
  case $argument in
    --no-tidy) tidy=0 ;;
    -h | --help)
      sed -n '2,8s/^# \{0,1\}//p' "$root/scripts/check_style.sh"
      exit 0
      ;;
    -*) die "unknown option '$argument'; see --help" ;;
    *) base=$argument ;;
  esac
done

status=0
# failed WHAT REMEDY
failed() {
  printf 'style: %s; %s\n' "$1" "$2" >&2
  status=1
}
in_git() { git -C "$root" rev-parse --git-dir >/dev/null 2>&1; }
have() {
  if command -v "$1" >/dev/null; then return; fi
  say "skipped: there is no $1 here (scripts/install_deps.sh --style installs it)"
  return 1
}

# The commit to compare with; where origin/main is HEAD itself, ten commits back, or as far as a shallow clone goes.
compared_with() {
  local fork
  if [ -n "$base" ]; then
    say "$base"
    return
  fi
  fork=$(git merge-base HEAD origin/main 2>/dev/null || true)
  if [ -z "$fork" ] || [ "$fork" = "$(git rev-parse HEAD)" ]; then fork=$(git rev-list --first-parent --max-count=11 HEAD | tail -n 1); fi
  say "$fork"
}

# Changed and new C++ sources that clang can compile here, the most recently changed first.
changed_sources() {
  { git diff --name-only --diff-filter=d HEAD -- 'src/*.cpp' 'kernels/cpu/*.cpp'
    git ls-files --others --exclude-standard -- 'src/*.cpp' 'kernels/cpu/*.cpp'
    git log --format= --name-only --diff-filter=d "$(compared_with)..HEAD" -- 'src/*.cpp' 'kernels/cpu/*.cpp'; } |
    awk '!seen[$0]++' | while read -r file; do if [ -f "$file" ]; then say "$file"; fi; done
}

check_format() {
  step "clang-format"
  have clang-format || return 0
  local files
  mapfile -t files < <(git ls-files '*.cpp' '*.h' '*.cu' '*.cuh')
  clang-format --dry-run --Werror "${files[@]}" </dev/null || failed "some files are not formatted" "run clang-format -i FILE"
}

check_scripts() {
  step "shellcheck"
  have shellcheck || return 0
  local scripts
  mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
  shellcheck -x "${scripts[@]}" || failed "shellcheck found something" "mend it, or say in a comment why it is right"
}

check_tidy() {
  step "clang-tidy over what changed"
  have clang-tidy || return 0
  local files limit=${LLMZ_TIDY_FILES:-4} folder=$build-style
  mapfile -t files < <(changed_sources)
  if [ ${#files[@]} -eq 0 ]; then
    say "no source changed"
    return
  fi
  if [ ${#files[@]} -gt "$limit" ]; then
    say "${#files[@]} files changed; the $limit most recently changed ones are read (LLMZ_TIDY_FILES)"
    files=("${files[@]:0:limit}")
  fi
  # Each file by itself, as a compiler sees it that includes nothing else before it.
  mkdir -p "$folder"
  cmake --preset release -B "$folder" -DLLMZ_UNITS=OFF -DLLMZ_CUDA=OFF -DLLMZ_NCCL=OFF -DLLMZ_CUDNN=OFF -DLLMZ_TESTS=OFF \
    >"$folder/configure.log" 2>&1 </dev/null || die "configuring failed (see $folder/configure.log)"
  printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy --quiet --warnings-as-errors='*' -p "$folder" \
    2> >(grep -v 'warnings\{0,1\} generated' >&2) ||
    failed "clang-tidy found something" "mend it, or say // NOLINT(check): and why"
}

if ! in_git; then
  say "style: not a git checkout, so nothing is known of what changed; skipped"
  exit 0
fi
if [ -n "$base" ] && ! git rev-parse --verify --quiet "$base^{commit}" >/dev/null; then die "$base: no such commit"; fi
check_format
check_scripts
if [ $tidy -eq 1 ]; then check_tidy; fi
if [ $status -eq 0 ]; then say "style: all well"; fi
exit $status
