"""`nnUNetv2_hlfd study`: a grid of ordinary nnU-Net trainings, and the report of what came out."""
