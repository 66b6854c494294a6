#!/usr/bin/env bash
# Step times of every model at every length, and whole trainings: tables (runtime.md, .tex, .csv) and plots (runtime.svg), and memory's
# beside them, into docs/results/SIZE. A command that was interrupted resumes where it stopped.
#
# usage: bash scripts/reproduce_runtime.sh [smoke|cpu|full]
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
.venv/bin/krontime benchmark size="$SIZE" output="docs/results/$SIZE" cells=outputs/benchmark
