"""A trained model and images, without labels, to a small model with its proof."""
