#!/usr/bin/env bash
# Short first runs: teacher, student alone and HLFD on Dataset112_LGGFlair (2d) and Dataset004_Hippocampus (2d, 3d).
# Needs nnU-Net's three folders in the environment and both data sets in nnUNet_raw. Finished runs are skipped and
# interrupted ones continued, so the script can be started again at any time.
set -euo pipefail
export nnUNet_n_proc_DA=0 nnUNet_compile=f  # single-process augmentation: reproducible
device=${1:-cpu}

plan() {  # data set, name, settings...
  nnUNetv2_hlfd plan -d "$1" -name "$2" -seed 1 -save_every 5 -num_val_iterations_per_epoch 10 "${@:3}"
}
train() {  # data set, configuration, name, trainer
  local fold how="" start=$SECONDS
  fold=$(echo "$nnUNet_results"/Dataset"$(printf %03d "$1")"_*/"$4__nnUNetPlans_$3__$2"/fold_0)
  [ -f "$fold/validation/summary.json" ] && return
  if [ -f "$fold/checkpoint_final.pth" ]; then how=--val; elif ls "$fold"/checkpoint_*.pth > /dev/null 2>&1; then how=--c; fi
  nnUNetv2_hlfd train "$1" "$2" 0 -tr "$4" -p "nnUNetPlans_$3" -device "$device" $how
  echo "first_runs: $1 $2 $4 $how took $((SECONDS - start)) s"
}
compare() {  # data set, configuration, name
  for trainer in nnUNetTrainerTeacher nnUNetTrainerStudent nnUNetTrainerHLFD; do train "$1" "$2" "$3" $trainer; done
}

[ -d "$nnUNet_preprocessed/Dataset112_LGGFlair/nnUNetPlans_2d" ] ||
  nnUNetv2_plan_and_preprocess -d 4 112 -c 2d 3d_fullres -np 2 --verify_dataset_integrity
plan 112 short -num_epochs 30 -num_iterations_per_epoch 40 -batch_size 8 -student resnet18_w4
plan 4 short2d -num_epochs 20 -num_iterations_per_epoch 25 -batch_size 16
plan 4 short3d -num_epochs 20 -num_iterations_per_epoch 10 -batch_size 2
compare 112 2d short
compare 4 2d short2d
compare 4 3d_fullres short3d
