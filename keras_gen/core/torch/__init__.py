"""What makes PyTorch fast, each part with its plain twin."""
