#!/usr/bin/env bash
# Short runs of all methods on Dataset112_LGGFlair (2d), after first_runs.sh, with its teacher. The script can be started
# again at any time.
set -euo pipefail
. "$(dirname "$0")/runs.sh"

plan 112 methods -p nnUNetPlans_short -num_epochs 20 -num_iterations_per_epoch 40 -batch_size 8 -student resnet18_w4
for method in Student HLFD KD AT FitNet CWD SKD EMKD EMKD_region IMF DSKD; do
  train 112 2d short_methods nnUNetTrainer$method
done
