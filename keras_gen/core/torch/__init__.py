"""Fast paths for PyTorch, each with a backend-independent counterpart, behind one switch: `keras_gen.config`."""
