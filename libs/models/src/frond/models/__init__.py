"""Model folders, registry, preprocessing, ONNX sessions and decoders."""
