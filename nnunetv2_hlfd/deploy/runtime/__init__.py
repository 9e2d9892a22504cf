"""Prediction without torch and without nnU-Net: NumPy, SimpleITK and ONNX Runtime or OpenVINO.

Imports nothing else of this package: `nnUNetv2_hlfd export -to onnx` puts it beside the network as `predict.pyz`.
"""
