#!/usr/bin/env bash
# The README's first results: three models on six data sets, from nothing to the table. Three seeds on ACSF1, else one.
# KRONTIME_DATA names the folder of the .npz files. Finished runs are not run again. About an hour on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
make setup
export PATH="$PWD/.venv/bin:$PATH"
models=krontime,patchtst,tcn

krontime train -m data=ucr model=$models seed=0,1,2
krontime train -m data=bonn_eeg model=$models trainer.max_epochs=5
krontime train -m data=mitbih_ecg model=$models trainer.max_epochs=1
krontime train -m data=ctu_uhb_ctg model=$models trainer.max_epochs=1
krontime train -m data=esc10 model=$models trainer.max_epochs=1
krontime train -m data=fsdd model=$models trainer.max_epochs=1

krontime tables records=outputs output=docs/results/first published=docs/results/published.csv publish=true readme=README.md
