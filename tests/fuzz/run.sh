#!/usr/bin/env bash
# run.sh BUILD: every harness in turn for IOPLAN_FUZZ_SECONDS (20), from the seeds in this folder and from what earlier runs
# found (kept in BUILD). The first finding ends it: libFuzzer prints the trace and keeps the input in BUILD/fuzz-findings.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$1
seconds=${IOPLAN_FUZZ_SECONDS:-20}
findings=$build/fuzz-findings
mkdir -p "$findings"
for harness in "$build"/tests/fuzz/fuzz_*; do
  [ -x "$harness" ] && [ -f "$harness" ] || continue
  name=${harness##*/fuzz_}
  corpus=$build/fuzz-corpus/$name
  mkdir -p "$corpus"
  echo "fuzz: $name, ${seconds}s"
  "$harness" -max_total_time="$seconds" -max_len=16384 -timeout=10 -rss_limit_mb=2048 -dict="$here/import.dict" \
    -artifact_prefix="$findings/$name-" -print_final_stats=1 "$corpus" "$here/seeds/$name" >"$build/fuzz-$name.log" 2>&1 || {
    tail -n 60 "$build/fuzz-$name.log" >&2
    exit 1
  }
  grep -E 'number_of_executed_units|cov:' "$build/fuzz-$name.log" | tail -n 2
done
