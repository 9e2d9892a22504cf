"""`nnUNetv2_hlfd report`: finished model folders of nnU-Net compared, with the statistics that a claim needs."""
