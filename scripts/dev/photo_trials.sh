#!/usr/bin/env bash
# What each choice of the students' recipe is worth (README, "Results"): bash scripts/dev/photo_trials.sh [FOLDER]
# Short runs of equal length on the data of scripts/train_photo.sh, whose first two rounds must be there.
set -euo pipefail

folder=${1:-demo/photo}
[[ $folder = /* ]] || folder=$PWD/$folder
source "$(dirname "$0")/setup.sh"
steps=${STEPS:-1000}

trial() { # name, data set, options
    local run=$folder/trials/$1
    $python train_deblur.py --base_folder "$2" --eval_folder "$folder/val" --cache "$folder/cache" --save_folder "$folder/trials" \
        --exp_name "$1" --max_steps "$steps" --train_split train --tea_loss l1 --no-clip_output --bs 8 --roi_size 128 \
        --lr 2e-3 --lr_schedule onecycle --grad_clip 1 --eval_every 0 --save_every 100000 --precision bf16 --workers 1 \
        --eval_samples 1 "${@:3}"
    for vth in 1 4; do
        $python scripts/tables.py --base_folder "$folder/val" --vth $vth --protocol sequence --cache "$folder/cache" --eval_images 0 \
            --methods ldn --deblur_path "$run" --no-shipped --metrics psnr ssim --precision bf16 --out "$run/vth$vth" | grep "| Student"
    done
}
captures=$folder/captures first=$folder/resim1/GOPRO
sharp=(--teacher sharp --lambda_reblur 0 --instants 2)
wide=(--student_spikes pyramid --spike_gain auto --train_vth 1 2 4)

plain=(--teacher sdm --lambda_reblur 0)
official=(--teacher cascade --lambda_reblur 0 --instants 2 --bsn_path "$folder/exp/BSN/photo/ckpts/BSN_last.pth")

trial sharp_frames "$first" "${sharp[@]}"
trial sharp_pyramid "$first" "${sharp[@]}" --student_spikes pyramid
trial sharp_pyramid_gain "$first" "${sharp[@]}" "${wide[@]}"
trial sharp_all "$first" "${sharp[@]}" "${wide[@]}" --flips
trial sdm "$captures" --teacher sdm --lambda_reblur 0 --instants 2
trial sdm_reblur "$captures" --teacher sdm --lambda_reblur 10
trial sharp_reblur "$first" "${wide[@]}" --flips --teacher sharp --lambda_reblur 10 --instants 7
trial second_round "$folder/resim2/GOPRO" "${sharp[@]}" "${wide[@]}" --flips
trial cascade "$captures" "${official[@]}" --sr_path "$folder/exp/SR/photo/ckpts/SR_last.pth"
$python train_sr.py --config scripts/configs/photo_sr.yml --base_folder "$first" --learn_from both --max_steps "$steps" \
    --bsn_path "$folder/exp/BSN/photo/ckpts/BSN_last.pth" --init_path "$folder/exp/SR/photo/ckpts/SR_last.pth" \
    --save_folder "$folder/trials" --exp_name sr_both --workers 1
trial cascade_both "$captures" "${official[@]}" --sr_path "$folder/trials/sr_both/ckpts/SR_last.pth"
trial sdm_fixed "$captures" "${plain[@]}" --blur_step 48
trial sdm_random "$captures" "${plain[@]}" --instants 3
trial sdm_reblur_random "$captures" --teacher sdm --lambda_reblur 10 --instants 5
trial sharp_ema "$first" "${sharp[@]}" --ema 0.99
trial sdm_spikes "$captures" "${plain[@]}" --instants 2 --lambda_spike 1
