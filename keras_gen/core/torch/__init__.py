"""What makes PyTorch fast, each part with its plain twin, behind one switch: `keras_gen.config`."""
