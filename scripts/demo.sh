#!/usr/bin/env bash
# S-SDM from photographs to a sharp colour video, in one command: bash scripts/demo.sh [options]
set -euo pipefail

folder=demo size=360x640 train=24 test=8 photos= device=auto
bsn_steps=200 sr_steps=150 ldn_steps=600 sdmnet_steps=1000 long=1 skip=

usage() {
    cat <<TEXT
Usage: bash scripts/demo.sh [options]

Makes a virtual environment (.venv) and a data set from real photographs, shows what the weights in model/ make of it,
then trains BSN, EDSR, LDN and SDMNet from scratch for a small budget, evaluates all on other photographs, and prints one
table.
13 to 17 minutes on two CPU cores; a GPU is used where there is one. What is finished already is not done again.

  --folder DIR       where everything goes (default: $folder): GOPRO/ cache/ exp/ results/
  --photos DIR       your own photographs (default: the four of scikit-image)
  --size HxW         size of the images (default: $size)
  --train N          training samples (default: $train)
  --test N           held-out samples (default: $test)
  --bsn_steps N      optimiser steps of train_bsn.py (default: $bsn_steps)
  --sr_steps N       optimiser steps of train_sr.py (default: $sr_steps)
  --ldn_steps N      optimiser steps of train_deblur.py (default: $ldn_steps)
  --sdmnet_steps N   optimiser steps of scripts/train_robust.py (default: $sdmnet_steps)
  --long             ten times the steps
  --device D         auto, cpu, cuda, cuda:N, mps (default: $device)
  --skip LIST        stages to leave out: any of data,look,bsn,sr,deblur,sdmnet,test,compare joined by commas
  --help             this text
TEXT
}

fail() { echo "demo.sh: error: $1" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
        --help|-h) usage; exit 0 ;;
        --long) long=10; shift; continue ;;
        --folder|--photos|--size|--train|--test|--bsn_steps|--sr_steps|--ldn_steps|--sdmnet_steps|--device|--skip)
            [ $# -ge 2 ] || fail "$1 needs a value (see --help)"
            printf -v "${1#--}" '%s' "$2"; shift 2 ;;
        *) fail "unknown option '$1' (see --help)" ;;
    esac
done
for name in train test bsn_steps sr_steps ldn_steps sdmnet_steps; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || fail "--$name is '${!name}'; expected a whole number above 0 (--skip leaves a stage out)"
done
for name in bsn sr ldn sdmnet; do printf -v "${name}_steps" '%d' $((${name}_steps * long)); done
for stage in ${skip//,/ }; do
    case $stage in
        data|look|bsn|sr|deblur|sdmnet|test|compare) ;;
        *) fail "--skip: no stage '$stage'; there are data,look,bsn,sr,deblur,sdmnet,test,compare" ;;
    esac
done
# Paths are the caller's; the rest happens in the project's folder.
[[ $folder = /* ]] || folder=$PWD/$folder
[[ -z $photos || $photos = /* ]] || photos=$PWD/$photos

begun=$SECONDS
source "$(dirname "$0")/setup.sh"
folder=${folder#"$PWD"/}

wanted() { [[ ",$skip," != *",$1,"* ]]; }
stage() { printf '\n== %s (%d:%02d since the start)\n' "$1" $(((SECONDS - begun) / 60)) $(((SECONDS - begun) % 60)); }

data=$folder/GOPRO exp=$folder/exp
common=(--base_folder "$data" --cache "$folder/cache" --exp_name demo --device "$device")
table=(--base_folder "$data" --cache "$folder/cache" --device "$device" --metrics psnr ssim)
# A small budget wants a faster recipe than the official one: docs/training.md, "The demo's recipe".
quick=(--lr_schedule onecycle --grad_clip 1 --no-clip_output --eval_every 0 --state_every 60)

if wanted data; then
    stage "data set from photographs: $data"
    $python scripts/make_demo_data.py --out "$data" --size "$size" --train "$train" --test "$test" ${photos:+--photos "$photos"}
fi
if wanted look && [ -f model/DeblurNet_photo.pth ] && [ -f model/SDMNet_photo.pth ]; then
    stage "a first look: the weights in model/, pictures in $folder/look"
    $python scripts/tables.py "${table[@]}" --methods blur sdm sdm21 ldn sdmnet sdmnet_motion --out "$folder/look"
    $python scripts/deblur.py --base_folder "$data" --limit 1 --frames 25 --device "$device" --out "$folder/look/deblur"
fi
if wanted bsn; then
    stage "training BSN, the blind-spot denoiser"
    $python train_bsn.py "${common[@]}" "${quick[@]}" --save_folder "$exp/BSN" --max_steps "$bsn_steps" --lr 1e-3 \
        --bs 2 --roi_size 256
fi
if wanted sr; then
    stage "training EDSR, the super-resolution"
    $python train_sr.py "${common[@]}" "${quick[@]}" --save_folder "$exp/SR" --max_steps "$sr_steps" --lr 5e-4 \
        --roi_size 128
fi
if wanted deblur; then
    stage "training LDN, the student"
    $python train_deblur.py "${common[@]}" "${quick[@]}" --save_folder "$exp/Deblur" --max_steps "$ldn_steps" --lr 2e-3 --roi_size 128 \
        --train_split train --teacher sdm --tea_loss l1 --lambda_reblur 10
fi
if wanted sdmnet; then
    stage "training SDMNet, the student that deblurs here: on scenes made of the captures that the SDM deblurred"
    $python scripts/make_scenes.py --base_folder "$data" --out "$folder/scenes" --count 320 --shrink 1.6 --device "$device"
    $python scripts/train_robust.py --base_folder "$folder/scenes" --save_folder "$exp/SDMNet" --exp_name demo \
        --device "$device" --max_steps "$sdmnet_steps" --lr 1e-3 --state_every 60
fi
# What was skipped and is not there from an earlier run has no rows.
trained() { [ -f "$exp/$1/demo/ckpts/$2_last.pth" ]; }
bsn=$exp/BSN/demo/ckpts/BSN_last.pth sr=$exp/SR/demo/ckpts/SR_last.pth student=$exp/Deblur/demo/ckpts/DeblurNet_last.pth
if wanted test; then
    stage "evaluating on held-out photographs"
    trained BSN BSN && $python train_bsn.py --test_mode "${common[@]}" --save_folder "$exp/BSN" --bsn_path "$bsn"
    trained BSN BSN && trained SR SR &&
        $python train_sr.py --test_mode "${common[@]}" --save_folder "$exp/SR" --bsn_path "$bsn" --sr_path "$sr"
    trained BSN BSN && trained SR SR && trained Deblur DeblurNet &&
        $python train_deblur.py --test_mode "${common[@]}" --save_folder "$exp/Deblur" --bsn_path "$bsn" --sr_path "$sr" \
            --deblur_path "$student"
fi
if wanted compare; then
    stage "what each part adds"
    runs=()
    trained BSN BSN && runs+=(--bsn_path "$exp/BSN/demo")
    trained SR SR && runs+=(--sr_path "$exp/SR/demo")
    trained Deblur DeblurNet && runs+=(--deblur_path "$exp/Deblur/demo")
    trained SDMNet SDMNet && runs+=(--sdmnet_path "$exp/SDMNet/demo")
    $python scripts/tables.py "${table[@]}" --methods blur sdm sdm21 sdm_bsn teacher ldn ldn_motion sdmnet sdmnet_motion \
        --out "$folder/results" ${runs[@]+"${runs[@]}"}
    logs=()
    for log in "$exp"/{BSN,SR,Deblur,SDMNet}/demo/metrics.jsonl; do [ -f "$log" ] && logs+=("${log%/*}"); done
    [ ${#logs[@]} = 0 ] || $python scripts/plot_runs.py "${logs[@]}" --out "$folder/results/curves.html"
    if trained SDMNet SDMNet; then
        $python scripts/deblur.py --base_folder "$data" --limit 1 --frames 25 --device "$device" --sdmnet_path "$exp/SDMNet/demo" \
            --out "$folder/results/deblur"
    fi
fi
stage "done: open $folder/results/index.html in a browser"
