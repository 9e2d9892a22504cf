"""The trainers, on nnU-Net's."""
