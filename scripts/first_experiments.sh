#!/usr/bin/env bash
# The method's first three experiments, each with a plot in docs/results/experiments (smoke and full:
# docs/results/SIZE/experiments). Finished runs are not run again.
#   1. levels/         does the hierarchy keep short-range and long-range patterns at each level?
#   2. attention/      Kronecker against full attention on the synthetic series: tables and plots of accuracy, time, memory
#   3. memory against length: reproduce_memory.sh, in docs/results/SIZE/memory
#
# usage: bash scripts/first_experiments.sh [smoke|cpu|full]
#   smoke  minutes: two epochs, one seed, short lengths
#   cpu    hours on 2 cores: six minutes of training a run, three seeds
#   full   on a GPU, to the end of training
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH"
runs=outputs/experiments-$SIZE results=docs/results/experiments seeds=0,1,2 threads=
enough="data.source.num_train=4000 tokenizer=conv tokenizer.patch_length=16 tokenizer.stride=16" # series to learn from; 128 tokens
case $SIZE in
smoke) limit=trainer.max_epochs=2 seeds=0 enough= results=docs/results/smoke/experiments ;;
cpu)
    threads="env OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}" # as in the committed tables: what six minutes give depends on it
    limit='+trainer.max_time="00:00:06:00"'
    ;;
full) limit=trainer=gpu results=docs/results/full/experiments ;;
*)
    echo "usage: bash scripts/first_experiments.sh [smoke|cpu|full]" >&2
    exit 2
    ;;
esac
synthetic="data=synthetic model=krontime read_out=none $limit"

# shellcheck disable=SC2086
$threads krontime train $synthetic tokenizer=conv decomposition=depth3 paths.output=$runs/levels
run=$(find $runs/levels -name record.json -printf '%T@ %h\n' | grep -v until- | sort -n | tail -n 1 | cut -d ' ' -f 2-) # the newest
krontime probe run="$run"
mkdir -p $results/levels && cp "$run/probe.csv" "$run/probe.png" $results/levels/

# A failed job (exit code 2) is shown in the table, and stops nothing.
# shellcheck disable=SC2086
$threads krontime train -m $synthetic $enough model.attention=kronecker,full seed=$seeds paths.output=$runs/attention || [ $? -eq 2 ]
krontime tables records=[$runs/attention] rows=[model.attention] "seeds=[$seeds]" publish=true output=$results/attention

bash scripts/reproduce_memory.sh "$SIZE"
