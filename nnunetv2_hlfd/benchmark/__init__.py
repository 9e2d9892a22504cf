"""What a training step and a prediction cost."""
