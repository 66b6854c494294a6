#!/usr/bin/env bash
# Accuracy and training time against the number of training series: nested parts of the training split, classes in proportion, one
# validation and one test split for all. Table and plots in docs/results/scaling (smoke and full: docs/results/SIZE/scaling).
# Finished runs are not run again.
#
# usage: bash scripts/reproduce_scaling.sh [smoke|cpu|full]; configs/experiment/scaling_SIZE.yaml says what a run is
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a time limit gives less beside other threads
declare -A data=([smoke]=data=synthetic [cpu]=data=bonn_eeg [full]=data.name=RightWhaleCalls,MosquitoSound,FaultDetectionA)
declare -A sizes=([smoke]=16,32,null [cpu]=35,70,140,null [full]=100,400,1600,null)
[ "$SIZE" != cpu ] || krontime data data=bonn_eeg > /dev/null # a file that is missing ends the script before anything is trained

weights=loss.class_weights=balanced
for model in "model=krontime closed_form.fit_on=train closed_form.min_network_series=0 $weights" "model=patchtst,tcn $weights" \
    "model=aeon_minirocket trainer=cpu ++trainer.max_time=null"; do
    # shellcheck disable=SC2086 # a failed job (exit code 2) is shown in the table, and stops nothing
    krontime train -m experiment="scaling_$SIZE" "${data[$SIZE]}" data.validation.max_train="${sizes[$SIZE]}" seed=0,1,2 $model \
        || [ $? -eq 2 ]
done
krontime tables records="outputs/scaling-$SIZE" output="docs/results/${SIZE#cpu}/scaling" publish=true "seeds=[0,1,2]"
