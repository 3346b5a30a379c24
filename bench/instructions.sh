#!/usr/bin/env bash
# Instructions per page of the map path, by callgrind: bench/instructions.sh BUILD_DIR [CONTESTANT]. Under a minute; the same
# figures on every run. Goals are those of the 4 KiB pages and are judged for every format; fails when one is missed.
set -euo pipefail
build=${1:?usage: bench/instructions.sh BUILD_DIR [CONTESTANT]}
shift
dumps=$(mktemp -d)
trap 'rm -rf "$dumps"' EXIT

valgrind --tool=callgrind --instr-atstart=no --collect-atstart=no --callgrind-out-file="$dumps/out" \
  "$build/bench/map_instructions" "$@" >"$dumps/log" 2>&1 || { cat "$dumps/log" >&2; exit 1; }

# A dump names its label after "Trigger: Client Request:" and its count in the line "summary:" (or "totals:").
find "$dumps" -name 'out.*' | sort -V | xargs cat | awk '
  BEGIN {
    operations = split("map-each map-each-random map-list map-run unmap-each unmap-each-random unmap-all translate " \
                       "translate-random dirty-none dirty-1-in-64 dirty-all", operation)
    # Per page of 4 KiB. Shuffled single maps are held to the same goal as ascending ones.
    goal["map-each"] = 70; goal["map-each-random"] = 70; goal["map-run"] = 5; goal["unmap-all"] = 1; goal["translate"] = 30
  }
  /^desc: Trigger: Client Request: / { label = $5 " " $7; who = $5; op = $6; work = $7; pages = $8 }
  /^totals: / && op != "" {
    if (!(label in seen)) { seen[label] = 1; order[++rows] = label }
    count[label, op] = $2 / pages
    op = ""
  }
  function cell(value) { return value < 10 ? sprintf("%.2f", value) : sprintf("%.1f", value) }
  END {
    printf "%-10s %-4s", "per page", ""
    for (o = 1; o <= operations; ++o) printf " %17s", operation[o]
    print ""
    for (r = 1; r <= rows; ++r) {
      split(order[r], part, " ")
      printf "%-10s %-4s", part[1], part[2]
      for (o = 1; o <= operations; ++o) printf " %17s", (order[r], operation[o]) in count ? cell(count[order[r], operation[o]]) : "-"
      print ""
    }
    for (o = 1; o <= operations; ++o) {
      if (!(operation[o] in goal)) continue
      printf "goal: %-16s at most %2d:", operation[o], goal[operation[o]]
      for (r = 1; r <= rows; ++r) {
        split(order[r], part, " ")
        if (part[2] != "4K" || part[1] ~ /^(std::map|btree|icl)$/) continue
        passed = count[order[r], operation[o]] <= goal[operation[o]]
        printf " %s %s %s;", part[1], cell(count[order[r], operation[o]]), passed ? "pass" : "FAIL"
        if (!passed) ++failures
      }
      print ""
    }
    exit failures > 0
  }'
