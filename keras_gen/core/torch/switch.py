"""Switch for the PyTorch fast paths."""

import os

import keras

from keras_gen.export import keras_gen_export

_enabled = os.environ.get("KERAS_GEN_TORCH_FAST_PATHS", "1") != "0"


@keras_gen_export("keras_gen.config.enable_torch_fast_paths")
def enable_torch_fast_paths() -> None:
    """Enables the fast paths for PyTorch, which is the default.

    These are traced calls of the image networks and of flows, PyTorch's own kernels for channels-last convolutions,
    group normalization, large matrix products, sums of segments, nearest codes and nearest neighbors, and, in `fit`,
    steps of Keras's Adam and AdamW that update, clip and average all weights at once. Results differ by rounding only.
    Enabling them does not guarantee their use: each fast path has further conditions. Other backends are not affected.

    Example:

    >>> keras_gen.config.disable_torch_fast_paths()
    >>> plain = network([x_t, t])
    >>> keras_gen.config.enable_torch_fast_paths()

    Reference: `keras.config.enable_flash_attention`, a similar switch.
    """
    global _enabled
    _enabled = True


@keras_gen_export("keras_gen.config.disable_torch_fast_paths")
def disable_torch_fast_paths() -> None:
    """Disables the fast paths for PyTorch, which then runs the same code as the other backends.

    For debugging, for hardware on which a kernel misbehaves, and for networks whose operations differ from call to
    call. It takes effect at the next call. Setting the environment variable `KERAS_GEN_TORCH_FAST_PATHS=0` before
    `keras_gen` is imported has the same effect.

    Example:

    >>> keras_gen.config.disable_torch_fast_paths()

    Reference: `keras.config.disable_flash_attention`, a similar switch.
    """
    global _enabled
    _enabled = False


@keras_gen_export("keras_gen.config.is_torch_fast_paths_enabled")
def is_torch_fast_paths_enabled() -> bool:
    """Returns whether the fast paths for PyTorch are enabled, regardless of the backend.

    Returns:
        bool. `True` by default.

    Reference: `keras.config.is_flash_attention_enabled`, a similar switch.
    """
    return _enabled


def takes_fast_paths() -> bool:
    """Returns whether the backend is PyTorch and its fast paths are enabled."""
    return _enabled and keras.backend.backend() == "torch"
