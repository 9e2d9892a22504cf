# What first_runs.sh is made of. Device: first argument of the script, default cpu.
export nnUNet_n_proc_DA=0 nnUNet_compile=f  # single-process augmentation: reproducible
device=${1:-cpu}

plan() {  # data set, name, settings...
  nnUNetv2_hlfd plan -d "$1" -name "$2" -seed 1 -save_every 5 -num_val_iterations_per_epoch 10 "${@:3}"
}
train() {  # data set, configuration, name, trainer; finished runs are skipped, interrupted ones continued
  local model fold how="" start=$SECONDS
  model=$(echo "$nnUNet_results"/Dataset"$(printf %03d "$1")"_*)/$4__nnUNetPlans_$3__$2
  fold=$model/fold_0
  [ -f "$fold/validation/summary.json" ] && return
  if [ -f "$fold/checkpoint_final.pth" ]; then how=--val; elif ls "$fold"/checkpoint_*.pth > /dev/null 2>&1; then how=--c; fi
  python -c '
import pathlib, resource, subprocess, sys
subprocess.run(sys.argv[2:], check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
file = pathlib.Path(sys.argv[1]) / "peak_memory_KiB.txt"
file.write_text(f"{peak}\n")' "$fold" nnUNetv2_hlfd train "$1" "$2" 0 -tr "$4" -p "nnUNetPlans_$3" -device "$device" $how
  echo "benchmarks: $1 $2 $3 $4 $how took $((SECONDS - start)) s"
}
compare() {  # data set, configuration, name, trainers...
  local trainer
  for trainer in "${@:4}"; do train "$1" "$2" "$3" "$trainer"; done
}
