#!/usr/bin/env bash
# What each choice of the students' recipe is worth (README, "Results"): bash scripts/dev/photo_trials.sh [FOLDER]
# Short runs of equal length on the data of scripts/train_photo.sh, whose first two rounds must be there.
set -euo pipefail

folder=${1:-demo/photo}
[[ $folder = /* ]] || folder=$PWD/$folder
source "$(dirname "$0")/setup.sh"
steps=${STEPS:-1000}

trial() { # name, data set, script and options
    local run=$folder/trials/$1
    $python "${@:3}" --base_folder "$2" --cache "$folder/cache" --save_folder "$folder/trials" --exp_name "$1" \
        --max_steps "$steps" --bs 8 --roi_size 128 --eval_every 0 --precision bf16 --workers 1 --eval_samples 1
    for vth in 1 4; do
        $python scripts/tables.py --base_folder "$folder/val" --vth $vth --protocol sequence --cache "$folder/cache" --eval_images 0 \
            --methods ldn --deblur_path "$run" --no-shipped --metrics psnr ssim --precision bf16 --out "$run/vth$vth" | grep "| Student"
    done
}
captures=$folder/captures first=$folder/resim1/GOPRO exp=$folder/exp
distilled=(train_deblur.py --train_split train --tea_loss l1 --no-clip_output --lr 2e-3 --lr_schedule onecycle --grad_clip 1)
known=(scripts/train_student.py --eval_folder "$folder/val")
plain=(--student_spikes frames --no-spike_gain --train_vth 1)

trial cascade "$captures" "${distilled[@]}" --lambda_reblur 0 --blur_step 48 --bsn_path "$exp/BSN/photo/ckpts/BSN_last.pth" \
    --sr_path "$exp/SR/photo/ckpts/SR_last.pth"
trial sdm "$captures" "${distilled[@]}" --teacher sdm --lambda_reblur 0 --blur_step 48
trial sdm_reblur "$captures" "${distilled[@]}" --teacher sdm --lambda_reblur 10
trial sharp_frames "$first" "${known[@]}" "${plain[@]}" --no-flips
trial sharp_pyramid "$first" "${known[@]}" --no-spike_gain --train_vth 1 --no-flips
trial sharp_pyramid_gain "$first" "${known[@]}" --no-flips
trial sharp_all "$first" "${known[@]}"
trial second_round "$folder/resim2/GOPRO" "${known[@]}"
