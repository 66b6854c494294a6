#!/usr/bin/env bash
# The closed form, KronTime, its network alone, other networks and two Rocket classifiers on a suite, beside published classifiers on
# the same resamples: tables and plots in docs/results/benchmark, those with every network in docs/results/benchmark_networks (smoke
# and full: docs/results/SIZE/...). Finished runs are not run again: stop it and start it at any time.
#
# usage: bash scripts/reproduce_accuracy.sh [smoke|cpu|full]; configs/experiment/accuracy_SIZE.yaml says what a run is
#   smoke  minutes: ACSF1, one split, two epochs
#   cpu    suite dev: a day of one thread; KRONTIME_DATA names the folder of the files, what is not there is downloaded
#   full   suite long15 on a GPU, downloaded; KRONTIME_PUBLISHED names the folder of published figures
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
declare -A suite=([smoke]=smoke [cpu]=dev [full]=long15)
declare -A many=([smoke]=0 [cpu]=0,1,2,3,4 [full]=0,1,2,3,4) few=([smoke]=0 [cpu]=0,1,2 [full]=0,1,2) # resamples
declare -A budget=([smoke]=trainer.max_epochs=2 [cpu]='+trainer.max_time="00:00:02:00"' [full]='+trainer.max_time="00:01:00:00"')
published=${KRONTIME_PUBLISHED:-docs/results/benchmark/published} results=docs/results/${SIZE#cpu}
train() { krontime train -m experiment="accuracy_$SIZE" +suite="${suite[$SIZE]}" "$@" || [ $? -eq 2 ]; } # 2: a job failed, as tables show

train model=closed_form trainer=cpu data.resample="${many[$SIZE]}"
train model=aeon_minirocket,aeon_multirocket_hydra trainer=cpu data.scaling=none 'model.fit_on=choice(train_and_validation)' \
    data.resample="${many[$SIZE]}"
train model=krontime "${budget[$SIZE]}" data.resample="${many[$SIZE]}"
train model=krontime model.name=krontime_network closed_form=none "${budget[$SIZE]}" data.resample="${few[$SIZE]}"
train model=patchtst "${budget[$SIZE]}" data.resample="${few[$SIZE]}"
train model=inception,tcn,s4d optim.optimizer.lr=0.008 "${budget[$SIZE]}" data.resample="${few[$SIZE]}" # docs/benchmark.md: why

krontime tables records="outputs/accuracy-$SIZE" models=[closed_form,krontime,aeon_minirocket,aeon_multirocket_hydra] \
    published="$published" publish=true output="$results/benchmark"
krontime tables records="outputs/accuracy-$SIZE" published="$published" publish=true output="$results/benchmark_networks"
