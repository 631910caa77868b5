"""Export of trained models for other programs: ONNX, torch.export, or a folder with a card."""
