#!/usr/bin/env bash
# Checks the code: ruff, mypy, then pytest, two tests at a time. --fast leaves out what is marked slow; other options go
# to pytest, for example: bash scripts/test.sh -k spike
set -euo pipefail
source "$(dirname "$0")/setup.sh"
if [ "${1:-}" = --fast ]; then
    set -- -m "not slow" "${@:2}"
fi
unset PYTHONDONTWRITEBYTECODE # with it each process would compile the sources of PyTorch anew
$python -m ruff check .
$python -m ruff format --check .
$python -m mypy
# One thread each: more of them would wait for one another, and sums are then the same on every machine.
OMP_NUM_THREADS=1 $python -m pytest -n 2 --dist worksteal "$@"
