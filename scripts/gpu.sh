#!/usr/bin/env bash
# What to measure first where a GPU is at hand: bash scripts/gpu.sh [--quick]
# The suite; the benchmark in fp32, TF32 and bf16, and with the forms of the networks that are fast on a CPU; a training
# whose gradient travels by nccl, on one GPU; 15 minutes of training of the released student; memory over 2,000 steps.
# At most 25 minutes beside the installation. Each part leaves its output in log/gpu/PART.txt; the same command goes on and
# repeats no finished part. --quick runs every part in a tiny size, on a CPU where there is no GPU, in exp/gpu_quick.
# PYTHON=... is an environment that has everything already.
set -euo pipefail

case ${1:-} in
    --quick | "") quick=${1:-} ;;
    --help | -h) awk 'NR > 1 { if (!/^#/) exit; print substr($0, 3) }' "$0"; exit 0 ;; # the lines above
    *) echo "gpu.sh: error: unknown option '$1' (see --help)" >&2; exit 2 ;;
esac
if [ "${PYTHON:-}" ] && "$PYTHON" -c 'from importlib.util import find_spec; assert find_spec("torch") and find_spec("xdist")' 2>/dev/null; then
    cd "$(dirname "$0")/.." && python=$PYTHON
else
    source "$(dirname "$0")/setup.sh"
fi

log=log/gpu work=exp/gpu device=cuda suite=(-n auto --dist worksteal) bench=() data=(--size 360x640 --train 48)
crop=() steps=200 most=100000 memory=2000 patience=1
if [ "$quick" ]; then
    log=exp/gpu_quick work=exp/gpu_quick device=auto suite=(-n 0 tests/engine/test_step.py) data=(--size 64x96 --train 3)
    bench=(--quick --repeats 1 --only "LDN forward") crop=(--roi_size 32 --bs 2 --workers 1) steps=3 most=5 memory=200
    patience=30 # a busy CPU is no fault
fi
gpu=$($python -c 'import torch; print("gpu" * torch.cuda.is_available())')
[ "$gpu$quick" ] || { echo "gpu.sh: error: PyTorch finds no CUDA device here; --quick tries the script without" >&2; exit 2; }

failed=()
part() { # name, seconds that it may take, command; expected=124 where the time may end it
    local name=$1 limit=$2 file=$log/$1.txt begun=$SECONDS code=0
    shift 2 && limit=$((limit * patience))
    if grep -qs '^finished in' "$file"; then
        echo "== $name: finished before, see $file"
        return
    fi
    echo "== $name" && mkdir -p "$log"
    printf '$ %s\n' "$*" >>"$file"
    timeout --foreground --signal=INT --kill-after=60 "$limit" "$@" 2>&1 | tee -a "$file" || code=$?
    if [ $code = 0 ] || [ $code = "${expected:-0}" ]; then
        echo "finished in $((SECONDS - begun)) s" | tee -a "$file"
    else
        failed+=("$name (exit code $code, see $file)")
    fi
}

part machine 20 bash -c "nvidia-smi 2>/dev/null; $python -m torch.utils.collect_env"
part suite 200 env OMP_NUM_THREADS=1 $python -m pytest -q "${suite[@]}"
for precision in fp32 ${gpu:+tf32} bf16; do
    part "benchmark_$precision" 45 $python scripts/dev/benchmark.py --device $device --precision $precision --no-memory "${bench[@]}"
done
# Ours is then the fast form, the other the plain one: which is faster there is to be the default there.
part forms 45 $python scripts/dev/benchmark.py --device $device --fast --no-memory "${bench[@]}"
part data 45 $python scripts/make_demo_data.py --out $work/GOPRO --test 2 --vth 1 2 4 "${data[@]}"
train=(scripts/train_student.py --base_folder $work/GOPRO --cache $work/cache --device $device --save_folder $work "${crop[@]}")
part one_process 30 $python "${train[@]}" --exp_name alone --max_steps $steps
part ddp 30 $python -m torch.distributed.run --standalone --nproc_per_node=1 "${train[@]}" --exp_name ddp --max_steps $steps
expected=124 part training 900 $python "${train[@]}" --exp_name student --max_steps $most
part memory 80 $python scripts/dev/torture.py --out $log/torture --only long_run --steps $memory

echo "== all is in $log; ${#failed[@]} parts failed"
[ ${#failed[@]} = 0 ] || { printf '%s\n' "${failed[@]}"; exit 1; }
