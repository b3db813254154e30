"""FOMM's generator on ONNX Runtime: graphs without weights, weights from the safetensors file. Does not need torch."""
