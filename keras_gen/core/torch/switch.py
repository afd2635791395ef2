"""The switch of what makes PyTorch fast."""

import os

import keras

from keras_gen.export import keras_gen_export

_enabled = os.environ.get("KERAS_GEN_TORCH_FAST_PATHS", "1") != "0"


@keras_gen_export("keras_gen.config.enable_torch_fast_paths")
def enable_torch_fast_paths() -> None:
    """Enables the code that exists only to be fast on PyTorch, as it is by default.

    That is: traced calls of the image networks, and PyTorch's own kernels for convolutions with channels last, group
    normalization, large products of matrices, nearest codes and nearest neighbors. Results differ by rounding only.
    Enabling it does not guarantee its use: each fast path has conditions of its own. On other backends nothing changes.

    Example:

    >>> keras_gen.config.disable_torch_fast_paths()
    >>> plain = network([x_t, t])
    >>> keras_gen.config.enable_torch_fast_paths()

    Reference: `keras.config.enable_flash_attention`, a switch of the same manner.
    """
    global _enabled
    _enabled = True


@keras_gen_export("keras_gen.config.disable_torch_fast_paths")
def disable_torch_fast_paths() -> None:
    """Disables the code that exists only to be fast on PyTorch, which then runs what the other backends run.

    For debugging, for hardware on which a kernel misbehaves, and for networks whose operations differ from call to
    call. It takes effect at the next call. The environment variable `KERAS_GEN_TORCH_FAST_PATHS=0` does the same
    from the start, if it is set when `keras_gen` is imported.

    Example:

    >>> keras_gen.config.disable_torch_fast_paths()

    Reference: `keras.config.disable_flash_attention`, a switch of the same manner.
    """
    global _enabled
    _enabled = False


@keras_gen_export("keras_gen.config.is_torch_fast_paths_enabled")
def is_torch_fast_paths_enabled() -> bool:
    """Returns whether the code that exists only to be fast on PyTorch is enabled, whatever the backend.

    Returns:
        bool. `True` by default.

    Reference: `keras.config.is_flash_attention_enabled`, a switch of the same manner.
    """
    return _enabled


def takes_fast_paths() -> bool:
    """Returns whether the backend is PyTorch and its fast paths are enabled."""
    return _enabled and keras.backend.backend() == "torch"
