"""`nnUNetv2_hlfd`."""
