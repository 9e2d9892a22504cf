"""`nnUNetv2_hlfd demo`."""
