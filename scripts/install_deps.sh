#!/usr/bin/env bash
# Installs what llmz is built from, with apt: the one list of packages. Quick, and needs no rights, when all is there.
#   scripts/install_deps.sh           install what is missing
#   scripts/install_deps.sh --check   only say what is missing; exit code 1 if anything is
#   --style                           also what scripts/check_style.sh runs, some hundreds of megabytes
# NVIDIA's CUDA toolkit and NCCL are never installed from here: llmz finds them where they are.
set -euo pipefail

needed=(
  cmake ninja-build g++ git pkg-config
  libdnnl-dev            # oneDNN: matrix products on the CPU
  libeigen3-dev          # eigenvectors and QR
  nlohmann-json3-dev     # configs, metrics
  libcli11-dev           # the command line
  libspdlog-dev          # logging, and fmt
  libsentencepiece-dev   # tokenizers
  libpcre2-dev           # GPT-2's tokenizer
  libzstd-dev zlib1g-dev # compressed text
  catch2                 # tests
)
useful=(
  ccache                     # faster rebuilds
  openmpi-bin libopenmpi-dev # training in several processes
  bible-kjv                  # quickstart's text
)
for_style=(clang-format clang-tidy shellcheck) # scripts/check_style.sh
cmake_least=3.24

usage() {
  sed -n '2,6s/^# \{0,1\}//p' "$0"
}

say() { printf '%s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Tools may have come another way (pip, Kitware, a module system); then no package is needed.
have_tool() {
  case $1 in
    cmake) cmake_is_new_enough ;;
    ninja-build) command -v ninja >/dev/null ;;
    git | ccache) command -v "$1" >/dev/null ;;
    *) return 1 ;;
  esac
}

cmake_is_new_enough() {
  local version
  version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p') || return 1
  [ -n "$version" ] && [ "$(printf '%s\n' "$cmake_least" "$version" | sort -V | head -n 1)" = "$cmake_least" ]
}

# Prints those of its arguments that are not installed.
missing_of() {
  local installed package
  # "ii " or "hi ": installed, whether or not held at its version.
  installed=$(dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^.i[^ ]*  *//p' || true)
  for package in "$@"; do
    if ! grep -qxF -- "$package" <<<"$installed" && ! have_tool "$package"; then say "$package"; fi
  done
}

# The packages, among its arguments, that apt could install with the lists it has.
known_of() {
  apt-cache policy -- "$@" 2>/dev/null | awk '/^[^ ]/ {name = $1; sub(/:$/, "", name)}
    /^  Candidate:/ && $2 != "(none)" {print name}'
}

# apt's own long output is worth reading only when it fails.
apt_get() {
  local log status=0
  log=$(mktemp)
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" \
    </dev/null >"$log" 2>&1 || status=$?
  if [ $status -ne 0 ]; then tail -n 30 "$log" >&2; fi
  rm -f "$log"
  return $status
}

explain_other_system() {
  cat >&2 <<EOF
error: this script installs with apt (Debian 12, Ubuntu 22.04, Ubuntu 24.04), and there is no apt on this system.
Install these with your own package manager, headers included:
  CMake $cmake_least or newer, Ninja, a C++20 compiler with OpenMP (GCC 11 or newer, Clang 14 or newer), git, pkg-config,
  oneDNN 2.5 or newer, Eigen 3.4, nlohmann-json 3.10, CLI11 2.1, spdlog 1.9 with fmt, SentencePiece 0.1.96, PCRE2 (8 bit),
  zstd, zlib, Catch2 2.13 or 3; if you like: ccache, an MPI
Then run again with LLMZ_SKIP_INSTALL=1 in the environment. Configuring names any that is still missing.
EOF
  exit 1
}

explain_old_cmake() {
  cat >&2 <<EOF
error: CMake here is $(cmake --version | sed -n '1s/cmake version //p'); llmz needs $cmake_least or newer (Ubuntu 22.04 brings 3.22).
Any one of these mends it:
  pip install cmake                  (and have its folder, often ~/.local/bin, on the PATH)
  sudo snap install cmake --classic
  the apt repository of CMake's makers, https://apt.kitware.com
EOF
  exit 1
}

# Fresh lists only where they are needed: some package unknown, or the install failing on lists gone stale.
install() {
  local attempt
  if [ "$(known_of "$@" | wc -l)" -lt $# ]; then apt_get update || say "apt-get update failed; trying with the lists there are"; fi
  local known=()
  mapfile -t known < <(known_of "$@")
  for package in "$@"; do
    if grep -qxF -- "$package" <<<"$(printf '%s\n' "${known[@]}")"; then continue; fi
    if grep -qxF -- "$package" <<<"$(printf '%s\n' "${needed[@]}")"; then
      die "apt knows no package $package; on Ubuntu enable the universe component (add-apt-repository universe)"
    fi
    say "apt knows no package $package; going on without it"
  done
  for attempt in 1 2 3; do
    if apt_get install --no-install-recommends "${known[@]}"; then return; fi
    if [ "$attempt" -lt 3 ]; then
      say "installing failed; trying again with fresh package lists in $((attempt * 5)) seconds"
      sleep $((attempt * 5))
      apt_get update || true
    fi
  done
  die "apt-get could not install: ${known[*]} (its messages are above)"
}

check_only=0
for option in "$@"; do
  case $option in
    --check) check_only=1 ;;
    --style) useful+=("${for_style[@]}") ;;
    -h | --help)
      usage
      exit 0
      ;;
    *) die "unknown option '$option'; see --help" ;;
  esac
done

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then explain_other_system; fi

mapfile -t missing < <(missing_of "${needed[@]}" "${useful[@]}")
if [ ${#missing[@]} -eq 0 ]; then
  say "all packages are installed"
elif [ $check_only -eq 1 ]; then
  say "missing packages: ${missing[*]}"
  exit 1
else
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then die "no sudo here; as root, run: apt-get install ${missing[*]}"; fi
    as_root=(sudo)
  fi
  say "installing with apt, which takes about a minute: ${missing[*]}"
  install "${missing[@]}"
fi
if ! cmake_is_new_enough; then explain_old_cmake; fi
