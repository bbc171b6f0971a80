"""Engines: PyTorch, ONNX Runtime and OpenVINO behind one small interface."""
