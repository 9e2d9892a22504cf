"""Plans of nnU-Net: their check, variants with other settings, CT windows, the identity of a run."""
