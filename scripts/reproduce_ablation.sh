#!/usr/bin/env bash
# One option of KronTime changed at a time: depth, attention kind, order of levels, head, tokenizer, on the data sets below. Tables
# and plots in docs/results/ablation (smoke and full: docs/results/SIZE/ablation). Finished runs are not run again.
#
# usage: bash scripts/reproduce_ablation.sh [smoke|cpu|full]; configs/experiment/ablation_SIZE.yaml says what a run is
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # a time limit gives less beside other threads
declare -A data=([smoke]=data=synthetic [cpu]=data=ucr,bonn_eeg,synthetic [full]=data.name=CatsDogs,MosquitoSound,FaultDetectionA)
[ "$SIZE" != cpu ] || krontime data data=bonn_eeg > /dev/null # a file that is missing ends the script before anything is trained

for changed in decomposition=depth1,depth2,depth3,depth4,depth5 model.attention=pooled,axial,full,none model.order=parallel \
    "model.attention=axial model.order=top_down,parallel" model.head=mean tokenizer=linear,rocket; do
    # shellcheck disable=SC2086 # a failed job (exit code 2) is shown in the table, and stops nothing
    krontime train -m experiment="ablation_$SIZE" "${data[$SIZE]}" seed=0,1 $changed || [ $? -eq 2 ]
done
krontime tables records="outputs/ablation-$SIZE" output="docs/results/${SIZE#cpu}/ablation" publish=true "seeds=[0,1]" \
    rows=[decomposition.depth,model.attention,model.order,model.head,tokenizer]
