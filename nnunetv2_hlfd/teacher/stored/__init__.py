"""The teacher's final maps, computed once and stored: no teacher network runs in training."""
