#!/usr/bin/env bash
# Accuracy and training time against the number of training series: nested parts of the training split, classes in proportion,
# one validation and one test split for all. Table and plots in docs/results/scaling (smoke and full:
# docs/results/SIZE/scaling). Weights are fitted to these series alone; validation, which networks select on, stays whole.
# Finished runs are not run again.
#
# usage: bash scripts/reproduce_scaling.sh [smoke|cpu|full]
#   smoke  minutes: the synthetic data set, one seed, one epoch
#   cpu    an hour on 2 cores: BonnEEG, three seeds, a minute of training a run; KRONTIME_DATA names the folder of the .npz files
#   full   three long data sets of the archive on a GPU, downloaded, three seeds, half an hour a run
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH"
results=docs/results/scaling
case $SIZE in
smoke)
    data=("data=synthetic data.source.num_train=80 data.source.num_test=40") sizes=16,32,null
    seeds=0 limit=trainer.max_epochs=1 results=docs/results/smoke/scaling
    ;;
cpu)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # as in the committed table: what a minute of training gives depends on it
    krontime data data=bonn_eeg > /dev/null      # a file that is missing ends the script before anything is trained
    data=("data=bonn_eeg") sizes=35,70,140,null
    seeds=0,1,2 limit='+trainer.max_time="00:00:01:00"'
    ;;
full)
    data=("data=ucr data.name=RightWhaleCalls" "data=ucr data.name=MosquitoSound" "data=ucr data.name=FaultDetectionA")
    sizes=100,400,1600,null seeds=0,1,2 limit='+trainer.max_time="00:00:30:00" trainer=gpu'
    results=docs/results/full/scaling
    ;;
*)
    echo "usage: bash scripts/reproduce_scaling.sh [smoke|cpu|full]" >&2
    exit 2
    ;;
esac

train() { # a failed job (exit code 2) is shown in the table, and stops nothing
    # shellcheck disable=SC2086
    krontime train -m paths.output="outputs/scaling-$SIZE" seed=$seeds data.validation.max_train=$sizes "$@" || [ $? -eq 2 ]
}

for chosen in "${data[@]}"; do
    # shellcheck disable=SC2086
    train $chosen model=krontime read_out.fit_on=train loss.class_weights=balanced $limit
    # shellcheck disable=SC2086
    train $chosen model=patchtst,tcn loss.class_weights=balanced $limit
    # shellcheck disable=SC2086
    train $chosen model=aeon_minirocket
done

krontime tables records="outputs/scaling-$SIZE" output=$results publish=true "seeds=[$seeds]"
