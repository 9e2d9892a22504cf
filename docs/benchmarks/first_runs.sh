#!/usr/bin/env bash
# Short first runs: teacher, student alone and HLFD on Dataset112_LGGFlair (2d) and Dataset004_Hippocampus (2d, 3d), and
# HLFD on LGG with its pixel maps compared on the student's grid (tap) and on the image's.
# Needs nnU-Net's three folders in the environment and both data sets in nnUNet_raw. Finished runs are skipped and
# interrupted ones continued, so the script can be started again at any time. STOCK_PYTHON is a Python that has
# nnunetv2 but not this package: it predicts the held-out cases from their raw images.
set -euo pipefail
. "$(dirname "$0")/runs.sh"

[ -d "$nnUNet_preprocessed/Dataset112_LGGFlair/nnUNetPlans_2d" ] ||
  nnUNetv2_plan_and_preprocess -d 4 112 -c 2d 3d_fullres -np 2 --verify_dataset_integrity
plan 112 short -num_epochs 30 -num_iterations_per_epoch 40 -batch_size 8 -student resnet18_w4
plan 4 short2d -num_epochs 20 -num_iterations_per_epoch 25 -batch_size 16
plan 4 short3d -num_epochs 20 -num_iterations_per_epoch 10 -batch_size 2
plan 4 long -p nnUNetPlans_short3d -num_epochs 25 -num_iterations_per_epoch 20 -batch_size 2
for grid in tap image; do
  plan 112 $grid -p nnUNetPlans_short -num_epochs 30 -num_iterations_per_epoch 40 -batch_size 8 -student resnet18_w4 \
    -pixel_grid $grid
done
predict() {  # data set, configuration, name, trainers...
  local raw trainer images
  raw=$(echo "$nnUNet_raw"/Dataset"$(printf %03d "$1")"_*)
  images="$nnUNet_results/held_out/$(basename "$raw")"
  mkdir -p "$images"
  "$STOCK_PYTHON" - "$nnUNet_preprocessed/$(basename "$raw")/splits_final.json" "$raw/imagesTr" "$images" <<< '
import json, pathlib, sys
splits, source, target = map(pathlib.Path, sys.argv[1:])
for case in json.loads(splits.read_text())[0]["val"]:
    link = target / f"{case}_0000.nii.gz"
    link.exists() or link.symlink_to(source / link.name)'
  for trainer in "${@:4}"; do
    local output="$nnUNet_results/predicted/$(basename "$raw")_$2_$3_$trainer" start=$SECONDS
    [ -f "$output/summary.json" ] && continue
    env -u nnUNet_extTrainer -u PYTHONPATH "$STOCK_PYTHON" -c '
import importlib.util
assert importlib.util.find_spec("nnunetv2_hlfd") is None
from nnunetv2.inference.predict_from_raw_data import predict_entry_point
predict_entry_point()' -d "$1" -c "$2" -f 0 -tr "$trainer" -p "nnUNetPlans_$3" -i "$images" -o "$output" \
      -device "$device" --disable_tta -npp 1 -nps 1
    echo "first_runs: predict $1 $2 $trainer took $((SECONDS - start)) s"
    nnUNetv2_evaluate_folder "$raw/labelsTr" "$output" -djfile "$output/dataset.json" -pfile "$output/plans.json" -np 2 --chill
  done
}

models="nnUNetTrainerTeacher nnUNetTrainerStudent nnUNetTrainerHLFD"
students="nnUNetTrainerStudent nnUNetTrainerHLFD"
compare 112 2d short $models
compare 4 2d short2d $models
compare 4 3d_fullres short3d $models
compare 4 3d_fullres short3d_long $students
for grid in tap image; do compare 112 2d short_$grid nnUNetTrainerHLFD; done
predict 112 2d short $models
predict 4 2d short2d $models
predict 4 3d_fullres short3d $models
predict 4 3d_fullres short3d_long $students
