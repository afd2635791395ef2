"""Functions of tensors as graphs in files, to be run where neither this library nor Keras is installed."""
