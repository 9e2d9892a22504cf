#!/usr/bin/env bash
# Another hospital's model and images without labels: the cross-over of protocol.md on Dataset112_LGGFlair, 2d.
#
#   docs/benchmarks/lgg_crossover.sh RAW_DATASET
#
# RAW_DATASET is the folder of Dataset112_LGGFlair in nnUNet_raw; nnU-Net's three variables are set. Finished runs are
# skipped and interrupted ones continued, so the script can be started again at any time. Dataset212 holds the same
# images with the segmentations of the teacher that has not seen them; its validation compares with the true labels.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=1 nnUNet_n_proc_DA=1
true=$nnUNet_preprocessed/Dataset112_LGGFlair hard=$nnUNet_preprocessed/Dataset212_LGGHard

plan() { nnUNetv2_hlfd plan -d "$1" -name "$2" -num_iterations_per_epoch 100 -num_val_iterations_per_epoch 2 -batch_size 8 -seed 1 "${@:3}"; }
train() {  # data set, trainer, plans, fold
  local fold more=""
  fold=$(echo "$nnUNet_results"/Dataset"$1"_*)/$2__nnUNetPlans_$3__2d/fold_$4
  [ -f "$fold/validation/summary.json" ] && return
  [ -f "$fold/checkpoint_latest.pth" ] && more=--c
  [ -f "$fold/checkpoint_final.pth" ] && more=--val
  nnUNetv2_hlfd train "$1" 2d "$4" -tr "$2" -p "nnUNetPlans_$3" -device cpu $more
}

if [ ! -d "$true" ]; then
  nnUNetv2_plan_and_preprocess -d 112 -c 2d -np 1 -npfp 1
  cp "$here/lgg_crossover/splits_final.json" "$true"
fi
plan 112 halfteacher -student unet_w2 -num_epochs 30 -save_every 2
for half in 0 1; do
  mkdir -p "$nnUNet_results/Dataset112_LGGFlair"
  train 112 nnUNetTrainerStudent halfteacher $half
done
teacher=$nnUNet_results/Dataset112_LGGFlair/nnUNetTrainerStudent__nnUNetPlans_halfteacher__2d

if [ ! -d "$hard" ]; then
  mkdir -p "$nnUNet_raw/Dataset212_LGGHard/labelsTr" "$hard" "$nnUNet_results/Dataset212_LGGHard"
  ln -sfn "$(realpath "$1")/imagesTr" "$nnUNet_raw/Dataset212_LGGHard/imagesTr"
  cp "$1/dataset.json" "$nnUNet_raw/Dataset212_LGGHard"
  cp "$teacher"/fold_[01]/validation/*.nii.gz "$nnUNet_raw/Dataset212_LGGHard/labelsTr"
  nnUNetv2_extract_fingerprint -d 212 -np 1
  cp "$1/dataset.json" "$hard"
  nnUNetv2_move_plans_between_datasets -s 112 -t 212 -sp nnUNetPlans -tp nnUNetPlans
  nnUNetv2_preprocess -d 212 -c 2d -np 1 -plans_name nnUNetPlans
  cp "$1"/labelsTr/*.nii.gz "$hard/gt_segmentations"
  cp "$true/splits_final.json" "$hard"
fi

for d in 112 212; do plan $d w8.s1 -student resnet18_w8 -num_epochs 20 -save_every 5; done
for half in 0 1; do
  plan 212 soft.s1.t$half -student resnet18_w8 -num_epochs 20 -save_every 5 -teacher_maps stored -teacher_fold $half
done
for quarter in 2 3 4 5; do
  half=$((quarter < 4)) # quarters 2 and 3 are those that teacher 1 has not seen
  train 112 nnUNetTrainerStudent w8.s1 $quarter
  train 212 nnUNetTrainerStudent w8.s1 $quarter
  train 112 nnUNetTrainerStudent w8.s1 $((quarter + 4)) # 6 labels
  export nnUNet_hlfd_teacher=$teacher
  nnUNetv2_hlfd teach 212 2d $quarter -p nnUNetPlans_soft.s1.t$half -device cpu --needs_of nnUNetTrainerHLFD_balanced
  train 212 nnUNetTrainerSoftLabel soft.s1.t$half $quarter
  train 212 nnUNetTrainerHLFD_balanced soft.s1.t$half $quarter
  unset nnUNet_hlfd_teacher
done
python "$here/crossover.py" "$nnUNet_results" "$here/lgg_crossover"
