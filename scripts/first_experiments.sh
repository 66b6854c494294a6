#!/usr/bin/env bash
# The method's first three experiments, each with a plot in docs/results/experiments:
#   1. levels.png     does the hierarchy keep short-range and long-range patterns at each level?
#   2. attention/      Kronecker against full attention on the synthetic series: tables and plots of accuracy, time, memory
#   3. memory.png     memory against length
# Finished runs are not run again. Hours on 2 cores; EPOCHS=2 for a look.
set -euo pipefail
cd "$(dirname "$0")/.."
make setup
export PATH="$PWD/.venv/bin:$PATH"
runs=outputs/experiments results=docs/results/experiments epochs=${EPOCHS:-60}
synthetic="data=synthetic model=krontime read_out=none trainer.max_epochs=$epochs"
many_tokens="data.source.length=8192 tokenizer=linear tokenizer.patch_length=16 tokenizer.stride=8"  # 1,024 of them

# shellcheck disable=SC2086
krontime train $synthetic tokenizer=conv decomposition=depth3 paths.output=$runs/levels
run=$(find $runs/levels -name record.json -printf '%h\n' | grep -v until- | head -n 1)
krontime probe run="$run"
mkdir -p $results && cp "$run/probe.png" $results/levels.png && cp "$run/probe.csv" $results/levels.csv

# shellcheck disable=SC2086
krontime train -m $synthetic $many_tokens model.attention=kronecker,full seed=0,1,2 paths.output=$runs/attention
krontime tables records=[$runs/attention] rows=[model.attention] publish=true output=$results/attention

krontime benchmark size=cpu rounds=0 output=$results cells=outputs/benchmark
