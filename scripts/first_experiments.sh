#!/usr/bin/env bash
# The method's first three experiments, each with a plot in docs/results/experiments (smoke and full:
# docs/results/SIZE/experiments). Finished runs are not run again.
#   1. levels/         does the hierarchy keep short-range and long-range patterns at each level?
#   2. attention/      Kronecker against full attention on the synthetic series: tables and plots of accuracy, time, memory
#   3. memory against length: reproduce_memory.sh, in docs/results/SIZE/memory
#
# usage: bash scripts/first_experiments.sh [smoke|cpu|full]; configs/experiment/{levels,attention}_SIZE.yaml say what a run is
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH"
runs=outputs/experiments-$SIZE results=docs/results/${SIZE#cpu}/experiments threads="env OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}"

$threads krontime train experiment="levels_$SIZE" paths.output="$runs/levels"
run=$(find "$runs/levels" -name record.json -printf '%T@ %h\n' | grep -v until- | sort -n | tail -n 1 | cut -d ' ' -f 2-) # the newest
krontime probe run="$run"
mkdir -p "$results/levels" && cp "$run/probe.csv" "$run/probe.png" "$results/levels/"

# At Kronecker's learning rate, full attention stays at chance: each has its own. A failed job (exit code 2) is shown in the table, and stops nothing.
for kind in "model.attention=kronecker optim.optimizer.lr=0.001" "model.attention=full optim.optimizer.lr=0.0003"; do
    # shellcheck disable=SC2086
    $threads krontime train -m experiment="attention_$SIZE" $kind seed=0,1,2 paths.output="$runs/attention" || [ $? -eq 2 ]
done
krontime tables records="[$runs/attention]" rows=[model.attention] "seeds=[0,1,2]" publish=true output="$results/attention"

bash scripts/reproduce_memory.sh "$SIZE"
