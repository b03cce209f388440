#!/usr/bin/env bash
# The whole way to the weights in model/ (model/README.md), from photographs on: bash scripts/train_photo.sh [FOLDER]
# Each step goes on where it was interrupted. About 2.5 hours of training on one CPU core with AMX; a GPU is used where there is one.
set -euo pipefail

folder=${1:-demo/photo}
[[ $folder = /* ]] || folder=$PWD/$folder
source "$(dirname "$0")/setup.sh"

# Held out from training, of every kind some: buildings, animals, people, plants, things.
validation=(
    details_image_EilanDonanCastle_background explore_monuments_germany_berlinCathedral
    explore_monuments_india_hawaMahal explore_monuments_wonders_machuPicchu explore_monuments_usa_statueofLiberty
    erase_cheetah erase_kitten erase_spoonbills explore_world_animals_animals_lemur
    explore_farm_animals_animals_chicken explore_world_music_music_mexico
    nature_LadyBird nature_Dune wallpapers_ColorfulCups_2560x1600
)
photos=$folder/photos captures=$folder/captures cache=$folder/cache exp=$folder/exp

[ -f "$photos/sources.json" ] || $python scripts/fetch_photos.py --out "$photos"
render=(scripts/make_demo_data.py --photos "$photos/photos" --cutouts "$photos/cutouts" --size 720x1280
    --test_photos "${validation[@]}")
$python "${render[@]}" --out "$captures" --train 200 --test 4 --motion 5 120 --vth 1 2 4
$python "${render[@]}" --out "$folder/val" --train 0 --test 14 --motion 15 90 --vth 1 2 4
for motion in 10 40 100; do
    $python "${render[@]}" --out "$folder/val$motion" --train 0 --test 7 --motion $motion $motion
done

$python train_bsn.py --config scripts/configs/photo_bsn.yml --base_folder "$captures" --cache "$cache" \
    --save_folder "$exp/BSN" --exp_name photo --max_steps "${BSN_STEPS:-3000}"
$python train_sr.py --config scripts/configs/photo_sr.yml --base_folder "$captures" --cache "$cache" \
    --save_folder "$exp/SR" --exp_name photo --max_steps "${SR_STEPS:-3000}"

# The student, in four rounds: on pictures that the SDM made of the captures, then on its own of the round before.
resimulate() { $python scripts/resimulate.py --base_folder "$captures" --out "$folder/$1" --new_vth 1 2 4 "${@:2}"; }
student() { # name, data, steps, more
    $python scripts/train_student.py --base_folder "$folder/$2/GOPRO" --eval_folder "$folder/val" \
        --cache "$cache" --save_folder "$exp/Deblur" --exp_name "$1" --max_steps "$3" "${@:4}"
}
weights() { echo "$exp/Deblur/$1/ckpts/DeblurNet_last.pth"; }
finer=(--shrink 2 --size 192x320)
resimulate resim1 --count 600 --size 160x256
student round1 resim1 4000
resimulate resim2 "${finer[@]}" --deblur_path "$(weights round1)" --count 1500 --seed 1
student round2 resim2 9000 --init_path "$(weights round1)"
resimulate resim3 "${finer[@]}" --deblur_path "$(weights round2)" --count 2500 --seed 2
student round3 resim3 18000 --init_path "$(weights round2)"
resimulate resim4 "${finer[@]}" --deblur_path "$(weights round3)" --count 3000 --seed 3
resimulate resim4_slow "${finer[@]}" --deblur_path "$(weights round3)" --count 500 --seed 4 --motion 0 10
for kind in "$folder"/resim4_slow/GOPRO/train/*/; do # the slow ones among the others
    for sequence in "$kind"*; do
        ln -sfn "$sequence" "$folder/resim4/GOPRO/train/$(basename "$kind")/slow_$(basename "$sequence")"
    done
done
student photo resim4 "${LDN_STEPS:-20000}" --init_path "$(weights round3)"

for stage in BSN:BSN SR:SR Deblur:DeblurNet; do
    cp "$exp/${stage%:*}/photo/ckpts/${stage#*:}_last.pth" "model/${stage#*:}_photo.pth"
done
table=(scripts/tables.py --cache "$cache" --metrics psnr ssim)
for protocol in centre sequence; do
    $python "${table[@]}" --base_folder "$folder/val" --protocol $protocol --methods blur sdm sdm21 sdm_bsn teacher ldn \
        --spike_gain both --ceilings --out "$folder/results/$protocol"
done
for motion in 10 40 100; do
    $python "${table[@]}" --base_folder "$folder/val$motion" --protocol sequence --methods blur sdm sdm21 ldn \
        --out "$folder/results/motion$motion"
done
