#!/usr/bin/env bash
# Another hospital's model and images without labels: the cross-over of protocol.md.
#
#   docs/benchmarks/crossover.sh lgg RAW/Dataset112_LGGFlair
#   docs/benchmarks/crossover.sh hippocampus RAW/Dataset004_Hippocampus
#
# RAW is nnU-Net's nnUNet_raw; nnU-Net's three variables are set. Finished runs are skipped and interrupted ones
# continued, so the script can be started again at any time. A second data set holds the same images with the
# segmentations of the teacher that has not seen them; its validation compares with the true labels.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS=1 nnUNet_n_proc_DA=1
case $1 in
  lgg)
    true_id=112 true_name=Dataset112_LGGFlair hard_id=212 hard_name=Dataset212_LGGHard
    configuration=2d batch_size=8 teacher_epochs=30 student_epochs=20
    taught="nnUNetTrainerSoftLabel nnUNetTrainerHLFD_balanced"
    ;;
  hippocampus)
    true_id=4 true_name=Dataset004_Hippocampus hard_id=204 hard_name=Dataset204_HippocampusHard
    configuration=3d_fullres batch_size=2 teacher_epochs=8 student_epochs=6
    taught=nnUNetTrainerSoftLabel
    ;;
  *)
    echo "Expected lgg or hippocampus, got $1." >&2
    exit 2
    ;;
esac
raw=$2 true=$nnUNet_preprocessed/$true_name hard=$nnUNet_preprocessed/$hard_name

plan() {  # data set, name, epochs, further options; an epoch has 100 steps
  nnUNetv2_hlfd plan -d "$1" -name "$2" -num_epochs "$3" -num_iterations_per_epoch 100 -num_val_iterations_per_epoch 2 \
    -batch_size $batch_size -seed 1 "${@:4}"
}
train() {  # data set, trainer, plans, fold
  local fold more=""
  fold=$nnUNet_results/$1/$2__nnUNetPlans_$3__$configuration/fold_$4
  [ -f "$fold/validation/summary.json" ] && return
  [ -f "$fold/checkpoint_latest.pth" ] && more=--c
  [ -f "$fold/checkpoint_final.pth" ] && more=--val
  nnUNetv2_hlfd train "$1" $configuration "$4" -tr "$2" -p "nnUNetPlans_$3" -device cpu $more
}

if [ ! -f "$true/splits_final.json" ]; then # copied last
  nnUNetv2_plan_and_preprocess -d $true_id -c $configuration -np 1 -npfp 1
  cp "$here/$1_crossover/splits_final.json" "$true"
fi
plan $true_id halfteacher $teacher_epochs -student unet_w2 -save_every 2
for half in 0 1; do train $true_name nnUNetTrainerStudent halfteacher $half; done
teacher=$nnUNet_results/$true_name/nnUNetTrainerStudent__nnUNetPlans_halfteacher__$configuration

if [ ! -f "$hard/splits_final.json" ]; then
  mkdir -p "$nnUNet_raw/$hard_name/labelsTr" "$hard"
  ln -sfn "$(realpath "$raw")/imagesTr" "$nnUNet_raw/$hard_name/imagesTr"
  cp "$raw/dataset.json" "$nnUNet_raw/$hard_name"
  cp "$teacher"/fold_[01]/validation/*.nii.gz "$nnUNet_raw/$hard_name/labelsTr"
  nnUNetv2_extract_fingerprint -d $hard_id -np 1
  cp "$raw/dataset.json" "$hard"
  nnUNetv2_move_plans_between_datasets -s $true_id -t $hard_id -sp nnUNetPlans -tp nnUNetPlans
  nnUNetv2_preprocess -d $hard_id -c $configuration -np 1 -plans_name nnUNetPlans
  cp "$raw"/labelsTr/*.nii.gz "$hard/gt_segmentations"
  cp "$true/splits_final.json" "$hard"
fi

for id in $true_id $hard_id; do plan $id w8.s1 $student_epochs -student resnet18_w8 -save_every 5; done
for half in 0 1; do
  plan $hard_id soft.s1.t$half $student_epochs -student resnet18_w8 -save_every 5 -teacher_maps stored -teacher_fold $half
done
for quarter in 2 3 4 5; do
  half=$((quarter < 4)) # quarters 2 and 3 are those that teacher 1 has not seen
  train $true_name nnUNetTrainerStudent w8.s1 $quarter
  train $hard_name nnUNetTrainerStudent w8.s1 $quarter
  train $true_name nnUNetTrainerStudent w8.s1 $((quarter + 4)) # 6 labels
  export nnUNet_hlfd_teacher=$teacher
  nnUNetv2_hlfd teach $hard_id $configuration $quarter -p nnUNetPlans_soft.s1.t$half -device cpu \
    --needs_of "${taught##* }"
  for trainer in $taught; do train $hard_name "$trainer" soft.s1.t$half $quarter; done
  unset nnUNet_hlfd_teacher
done
python "$here/crossover.py" "$1" "$nnUNet_results"
