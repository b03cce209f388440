#!/usr/bin/env bash
# The official steps on interpolated frames (GOPRO_dataset.md), one after another: bash scripts/run.sh RAW_DATA [options]
# scripts/prepare_gopro.py does the same in one pass, and needs no interpolated frames on disk.
set -euo pipefail
[ $# -ge 1 ] && [ -d "$1" ] || { echo "run.sh: error: the first word is the folder of the interpolated sequences" >&2; exit 2; }
here=$(dirname "$0") raw=$1
shift
python=${PYTHON:-python3}
for step in blur_syn spike_simulate sharp_extract; do
    $python "$here/$step.py" --raw_folder "$raw" "$@"
done
