"""Data sets: where nnU-Net keeps them, public ones in nnU-Net's format, and a phantom that comes with the package."""
