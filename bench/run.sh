#!/usr/bin/env bash
# Runs every benchmark of a build: bench/run.sh BUILD_DIR [GOOGLE_BENCHMARK_OPTION...]. Under four minutes.
# Fails when a benchmark finds a wrong result (a row with ERROR OCCURRED).
set -euo pipefail
build=${1:?usage: bench/run.sh BUILD_DIR [OPTION...]}
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for bench in bench_plan bench_lifecycle bench_command bench_cover bench_map; do
  echo "== $bench"
  "$build/bench/$bench" --benchmark_min_time=0.2 --benchmark_counters_tabular=true "$@" 2>&1 | tee "$log"
  if grep -q 'ERROR OCCURRED' "$log"; then
    echo "$bench: wrong result" >&2
    exit 1
  fi
done
