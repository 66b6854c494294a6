#!/usr/bin/env bash
# One option of KronTime changed at a time: depth, attention kind, order of levels, head, tokenizer. The network is alone, without
# the read-out beside it, which is the same for all, and patches are short. Tables and plots of accuracy and cost, a row for each
# variant, in docs/results/ablation (smoke and full: docs/results/SIZE/ablation). Finished runs are not run again.
#
# usage: bash scripts/reproduce_ablation.sh [smoke|cpu|full]
#   smoke  minutes: the synthetic data set, one seed, one epoch
#   cpu    hours on 2 cores: three data sets, two seeds, 40 s of training a run; KRONTIME_DATA names the folder of the .npz files
#   full   the same on a GPU, on three long data sets of the archive, downloaded
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH"
results=docs/results/ablation
patches="tokenizer.patch_length=16 tokenizer.stride=16" # small convolutions and short patches, so that levels have something to do
case $SIZE in
smoke)
    data=("data=synthetic data.source.num_train=80 data.source.num_test=40")
    common=trainer.max_epochs=1 seeds=0 results=docs/results/smoke/ablation
    ;;
cpu)
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # as in the committed table: what 40 seconds of training give depends on it
    krontime data data=bonn_eeg > /dev/null      # a file that is missing ends the script before anything is trained
    data=(data=ucr data=bonn_eeg data=synthetic)
    seeds=0,1 common='+trainer.max_time="00:00:00:40"'
    ;;
full)
    data=("data=ucr data.name=CatsDogs" "data=ucr data.name=MosquitoSound" "data=ucr data.name=FaultDetectionA")
    seeds=0,1,2 common=trainer=gpu results=docs/results/full/ablation
    ;;
*)
    echo "usage: bash scripts/reproduce_ablation.sh [smoke|cpu|full]" >&2
    exit 2
    ;;
esac

for chosen in "${data[@]}"; do
    for changed in decomposition=depth1,depth2,depth3,depth4,depth5 model.attention=pooled,axial,full,none \
        model.order=parallel "model.attention=axial model.order=top_down,parallel" model.head=mean tokenizer=linear,rocket; do
        base=tokenizer=conv
        case $changed in tokenizer=*) base= ;; esac
        # a failed job (exit code 2) is shown in the table, and stops nothing
        # shellcheck disable=SC2086
        krontime train -m paths.output="outputs/ablation-$SIZE" model=krontime read_out=none $base $patches $chosen seed=$seeds $common $changed || [ $? -eq 2 ]
    done
done

krontime tables records="outputs/ablation-$SIZE" output=$results publish=true "seeds=[$seeds]" \
    rows=[decomposition.depth,model.attention,model.order,model.head,tokenizer]
