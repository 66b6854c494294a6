#!/usr/bin/env bash
# Peak memory of every model at every length, nothing timed: tables (memory.md, .tex, .csv) and plots (memory.svg), into
# docs/results/SIZE/memory. A command that was interrupted resumes where it stopped.
#
# usage: bash scripts/reproduce_memory.sh [smoke|cpu|full]
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
.venv/bin/krontime benchmark size="$SIZE" rounds=0 jobs=[] output="docs/results/$SIZE/memory" cells=outputs/benchmark
