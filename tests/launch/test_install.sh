#!/usr/bin/env bash
# test_install.sh CMAKE BUILD: what `cmake --install` puts into an empty folder, and that the program works from there alone.
set -euo pipefail
cmake=$1
build=$2
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
fail() {
  printf 'test_install: %s\n' "$*" >&2
  exit 1
}

prefix=$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$build/CMakeCache.txt")
DESTDIR=$stage "$cmake" --install "$build" >"$stage/log" || fail "cmake --install failed"
installed=$stage$prefix
for file in bin/llmz share/doc/llmz/README.md share/doc/llmz/docs/config.md share/llmz/configs/quickstart.json \
  share/llmz/configs/models/llama-60m.json; do
  [ -s "$installed/$file" ] || fail "$file is missing from $prefix"
done
[ -x "$installed/bin/llmz" ] || fail "bin/llmz cannot be run"
mkdir "$stage/elsewhere"
cd "$stage/elsewhere"
said=$("$installed/bin/llmz" --version)
case $said in
  "llmz "[0-9]*) ;;
  *) fail "--version says '$said'" ;;
esac
"$installed/bin/llmz" plan "$installed/share/llmz/configs/quickstart.json" --json | grep -q '"total"' || fail "plan of an installed configuration gives no total"
