"""Every setting of a training."""
