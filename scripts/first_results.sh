#!/usr/bin/env bash
# The README's first results: three models on six data sets, one seed (three on ACSF1), written from the records.
# KRONTIME_DATA names the folder of the .npz files. Finished runs are not run again.
set -euo pipefail
cd "$(dirname "$0")/.."
make setup
export PATH="$PWD/.venv/bin:$PATH"
models=krontime,patchtst,tcn

krontime train -m data=ucr model=$models seed=0,1,2
krontime train -m data=bonn_eeg model=$models trainer.max_epochs=10
krontime train -m data=mitbih_ecg model=$models trainer.max_epochs=3
krontime train -m data=fsdd model=$models trainer.max_epochs=3
krontime train -m data=ctu_uhb_ctg model=$models trainer.max_epochs=2
krontime train -m data=esc10 model=$models trainer.max_epochs=2
python -m krontime.results.tables outputs --readme README.md
