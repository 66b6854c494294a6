#!/usr/bin/env bash
# Kronecker attention, full attention and none in otherwise equal networks, for equal training time and each at the learning rate that
# validation chose for it, 0.002 for all three (docs/accuracy.md): five long data sets with tokens of 4 or 16 points, seven of the UCR
# archive with tokens of 8. Tables and plots in docs/results/attention (smoke and full: docs/results/SIZE/attention). Finished runs are
# not run again.
#
# usage: bash scripts/reproduce_attention.sh [smoke|cpu|full]; configs/experiment/kinds_SIZE.yaml says what a run is
#   cpu    six hours of one thread; KRONTIME_DATA names the folder of the long sets
set -euo pipefail
cd "$(dirname "$0")/.."
SIZE=${1:-cpu}
make setup
export PATH="$PWD/.venv/bin:$PATH" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
declare -A many=([smoke]=0 [cpu]=0,1,2 [full]=0,1,2) # resamples
ucr=ACSF1,Computers,EOGVerticalSignal,LargeKitchenAppliances,PigArtPressure,RefrigerationDevices,SmallKitchenAppliances
for set in bonn_eeg mitbih_ecg fsdd ctu_uhb_ctg esc10; do # a file that is missing ends the script before anything is trained
    [ "$SIZE" != cpu ] || krontime data data=$set > /dev/null
done
train() { # exit code 2: a job failed, as the tables show
    krontime train -m experiment="kinds_$SIZE" data.resample="${many[$SIZE]}" model.attention=kronecker,none,full "$@" || [ $? -eq 2 ]
}

case $SIZE in
smoke) train ;;
cpu)
    train data=bonn_eeg,mitbih_ecg,fsdd tokenizer.patch_length=4
    train data=ctu_uhb_ctg,esc10 tokenizer.patch_length=16
    train data=archive data.name=$ucr tokenizer.patch_length=8 'trainer.max_time="00:00:02:00"'
    ;;
full) train data.name=CatsDogs,MosquitoSound,FaultDetectionA tokenizer.patch_length=16 ;;
esac
krontime tables records="outputs/kinds-$SIZE" rows=[model.attention] publish=true output="docs/results/${SIZE#cpu}/attention"
