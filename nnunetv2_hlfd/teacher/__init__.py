"""The frozen teacher: where it is found, whether it fits, how it is loaded."""
