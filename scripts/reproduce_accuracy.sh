#!/usr/bin/env bash
# Accuracy of every model on every data set, three seeds: tables, significance tests and plots in docs/results/accuracy
# (smoke and full: docs/results/SIZE/accuracy); cpu also FSDD by speakers, in docs/results/speakers, and the area under the ROC
# curve on CTU_UHB_CTG, in docs/results/ctu. Each network has the same time budget; one that uses all of it is marked in the
# table. In cpu, series are brought to at most 16,384 points, as the records say. Finished runs are not run again, so that the
# command can be stopped and started at any time.
#
# usage: bash scripts/reproduce_accuracy.sh [smoke|cpu|full]
#   smoke  minutes: two data sets that need no download, two seeds, two epochs
#   cpu    eight hours on 2 cores, 24 GB: 3 minutes of training a run; KRONTIME_DATA names the folder of the .npz files
#   full   the long data sets of the archive and of MONSTER on a GPU, downloaded; two hours a run; references on the archive's alone
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH"
models=krontime,patchtst,tcn reference=aeon_multirocket_hydra seeds=0,1,2 results=docs/results/accuracy readme=null

train() { # a failed job (exit code 2) is shown in the table, and stops nothing
    krontime train -m paths.output="outputs/accuracy-$SIZE" "$@" seed=$seeds || [ $? -eq 2 ]
}

case $SIZE in
smoke)
    seeds=0,1 results=docs/results/smoke/accuracy
    for data in "data=ucr" "data=synthetic data.source.num_train=80 data.source.num_test=40"; do
        # shellcheck disable=SC2086
        train $data model=$models trainer.max_epochs=2
        # shellcheck disable=SC2086
        train $data model=aeon_minirocket
    done
    ;;
cpu)
    readme=README.md # whose table it is
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # as in the committed table: what a minute of training gives depends on it
    for name in ucr bonn_eeg mitbih_ecg fsdd esc10 ctu_uhb_ctg; do
        krontime data data=$name > /dev/null # a file that is missing ends the script before anything is trained
    done
    budget='+trainer.max_time="00:00:03:00"'
    fsdd="data=fsdd data.prepare.crop_length=16384" esc10="data=esc10 data.prepare.resample_hz=3200"
    ctu="data=ctu_uhb_ctg data.prepare.resample_hz=3"
    # the baselines as published, and with KronTime's tokenizer and closed form
    for model in model=krontime model=patchtst,tcn \
        "model=patchtst model.name=patchtst_kernels tokenizer=conv closed_form=parts" \
        "model=tcn model.name=tcn_kernels closed_form=parts"; do
        for chosen in data=ucr data=bonn_eeg data=mitbih_ecg "$fsdd" "$esc10" "$ctu"; do
            # shellcheck disable=SC2086
            train $chosen $model "$budget"
        done
    done
    for chosen in data=ucr data=bonn_eeg "$fsdd" "$esc10"; do
        # shellcheck disable=SC2086
        train $chosen model=$reference model.fit_on=train_and_validation
    done
    # MultiRocketHydra needs more than 24 GB for these, as FSDD's cell shows
    for chosen in data=mitbih_ecg "$fsdd" "$ctu"; do
        # shellcheck disable=SC2086
        train $chosen model=aeon_multirocket model.fit_on=train_and_validation
    done
    # FSDD again, tested on a speaker who was never heard
    krontime train -m paths.output=outputs/speakers-cpu data=fsdd_speakers data.prepare.crop_length=16384 model=$models \
        data.source.test_group=george,jackson,lucas,nicolas,theo,yweweler "$budget" || [ $? -eq 2 ]
    ;;
full)
    results=docs/results/full/accuracy
    .venv/bin/python -m pip install --quiet -c constraints.txt -e '.[monster]'
    for name in EigenWorms BinaryHeartbeat CatsDogs AbnormalHeartbeat UrbanSound RightWhaleCalls FruitFlies MosquitoSound \
        KeplerLightCurves FaultDetectionA MotorImagery EthanolConcentration; do
        train data=ucr data.name=$name model=$models trainer=gpu '+trainer.max_time="00:02:00:00"'
        train data=ucr data.name=$name model=$reference
    done
    for name in AudioMNIST CornellWhaleChallenge FruitFlies MosquitoSound WhaleSounds; do
        train data=monster data.source.name=$name model=$models trainer=gpu '+trainer.max_time="00:02:00:00"'
    done
    ;;
*)
    echo "usage: bash scripts/reproduce_accuracy.sh [smoke|cpu|full]" >&2
    exit 2
    ;;
esac

krontime tables records="outputs/accuracy-$SIZE" output=$results published=docs/results/published.csv publish=true \
    "seeds=[$seeds]" readme="$readme"
if [ "$SIZE" = cpu ]; then
    krontime tables records=outputs/speakers-cpu output=docs/results/speakers publish=true
    krontime tables records=outputs/accuracy-cpu/CTU_UHB_CTG metric=auroc "seeds=[$seeds]" output=docs/results/ctu publish=true
fi
