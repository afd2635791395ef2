"""Imports Keras, with a clear message where the backend that it is set to is not installed."""

BACKENDS = ("tensorflow", "jax", "torch")

try:
    import keras as keras
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in BACKENDS:
        raise
    raise ModuleNotFoundError(
        f"Keras is set to {missing}, which is not installed: install it, or set KERAS_BACKEND (or the backend in "
        f"~/.keras/keras.json) to one of {', '.join(BACKENDS)} before Keras is imported",
        name=missing,
    ) from error
