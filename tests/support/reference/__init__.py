"""NumPy reference of losses and methods, written from their equations; no torch, no package code.

Slow and explicit on purpose: loops over samples and voxels, one formula per line. Arrays are (B, C, *spatial),
float64; `regions` means one Bernoulli variable per channel instead of a softmax over the channels. A stage is an index
into a network's encoder maps, highest resolution first; which stages are compared is told by the caller. Several
teacher networks are a list. `ignored` is (B, 1, *image) where voxels are left out, else None.
"""
