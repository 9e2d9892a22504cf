"""Pure tensor mathematics of the distillation losses; nothing here knows nnU-Net's trainers."""
