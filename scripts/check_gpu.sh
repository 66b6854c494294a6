#!/usr/bin/env bash
# What the CPU cannot show, in at most 8 minutes on one large GPU, from a fresh clone, with a Python that has torch for the device:
#   1. the tests marked gpu: networks against double precision, bfloat16, torch.compile without graph breaks, memory
#   2. krontime benchmark size=gpu: time, memory and percentages of the device's peak from 4,096 to 1,048,576 points, as it is and
#      compiled with CUDA graphs, beside fused attention by its fastest backend
# Both into docs/results/gpu, which names the device. A part that takes too long is ended, and what there is by then is kept.
#
# usage: [PYTHON=python3] [DRY_RUN=1] bash scripts/check_gpu.sh
#   DRY_RUN=1, or no device: the same steps on the CPU with tiny sizes, into outputs/check_gpu; nothing is claimed
set -euo pipefail
cd "$(dirname "$0")/.."
left() { echo $(($1 > SECONDS ? $1 - SECONDS : 1)); } # seconds until $1 seconds after the start

if [ ! -x .venv/bin/krontime ]; then # the torch of the machine, since its CUDA is that of the device
    packages='import sysconfig; print(sysconfig.get_path("purelib"))'
    ${PYTHON:-python3} -m venv --system-site-packages .venv
    # where that Python is an environment itself, its packages are not the system's
    ${PYTHON:-python3} -c "$packages" > "$(.venv/bin/python -c "$packages")/of_the_machine.pth"
    timeout "$(left 120)" .venv/bin/python -m pip install --quiet --disable-pip-version-check -e . hypothesis pytest pytest-xdist
fi
device=$(.venv/bin/python -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")')
[ -z "${DRY_RUN:-}" ] || device=

if [ -n "$device" ]; then
    results=docs/results/gpu tests="-n 8" sizes=
    echo "On $device, into $results"
else
    results=outputs/check_gpu tests="--collect-only"
    sizes="accelerator=cpu lengths=[512] models=[krontime_d2,patchtst_fused] modes=[eager] points_per_batch=2048 warmup=0 steps=1"
    echo "Dry run on the CPU, into $results: nothing is claimed"
fi
mkdir -p "$results"

failed=0
# shellcheck disable=SC2086
PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 timeout "$(left 240)" .venv/bin/python -m pytest -q -p xdist -m gpu $tests tests/unit > "$results/tests.txt" 2>&1 || failed=$?
tail -n 3 "$results/tests.txt"
# shellcheck disable=SC2086
timeout "$(left 475)" .venv/bin/krontime benchmark size=gpu $sizes total_s="$(left 440)" output="$results" cells=outputs/benchmark
[ "$failed" -eq 0 ] || echo "The tests ended with $failed: see $results/tests.txt"
exit "$failed"
