"""Hierarchical layer-selective feedback distillation (HLFD) for nnU-Net v2."""

__version__ = "0.1.0"
