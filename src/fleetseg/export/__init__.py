"""A trained model in forms that other programs run: ONNX, torch.export, a folder with its card."""
