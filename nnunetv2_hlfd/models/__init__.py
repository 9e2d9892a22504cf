"""Trained model folders of nnU-Net: checkpoints and the networks in them."""
