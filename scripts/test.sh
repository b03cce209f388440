#!/usr/bin/env bash
# Checks the code: ruff, then pytest. Options go to pytest, for example: bash scripts/test.sh -k spike
set -euo pipefail
source "$(dirname "$0")/setup.sh"
$python -m ruff check .
$python -m ruff format --check .
$python -m pytest "$@"
