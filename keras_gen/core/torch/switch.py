"""What makes PyTorch fast, and when; each part has its plain twin.

On by default, on a CPU and on CUDA: PyTorch's own kernels (`kernels.py`) and steps of Adam and AdamW over all weights
at once (`optimizer.py`), from the first call on; and traced calls of image networks, of flows, of steps of ancestral
sampling and of the logits of `CodeTransformer` (`trace.py`), from the eighth call with the same signature. That call
takes as long as some fifty plain ones. On CUDA, a traced call without gradients is captured as a CUDA graph at its
eighth, in about the time of three; at most four graphs are kept, each with the memory of a call (`cuda_graph.py`).

With `compile(..., jit_compile=True)` these graphs also go through Inductor (`inductor.py`), in training too, at the
second call with the same signature. That takes from 10 seconds to minutes for each signature and, in training, as
much again at the first gradient, and it needs a C++ compiler, on CUDA Triton. Everything else in a model's step is
called as usual. Compiled results differ by rounding, under mixed dtypes by that of half precision.

If a tool or a private name of PyTorch is missing, there is a warning, and the slower path is taken.
"""

import os
import pkgutil
import warnings

import keras

from keras_gen.export import keras_gen_export

_enabled = os.environ.get("KERAS_GEN_TORCH_FAST_PATHS", "1") != "0"

PRIVATE_NAMES = (
    "torch._C._autograd._top_saved_tensors_default_hooks",
    "torch._C._functorch.maybe_current_level",
    "torch.autograd.forward_ad._current_level",
    "torch.autograd.function.BackwardCFunction",
)
_has_private_names: bool | None = None  # not known before the first call


@keras_gen_export("keras_gen.config.enable_torch_fast_paths")
def enable_torch_fast_paths() -> None:
    """Enables the fast paths for PyTorch, which is the default.

    These are traced calls of networks and of flows, which `compile(jit_compile=True)` compiles; PyTorch's own kernels
    for channels-last convolutions, group normalization, large matrix products, sums of segments, nearest codes and
    nearest neighbors; and, in `fit`, steps of Keras's Adam and AdamW that update, clip and average all weights at once.
    Results differ by rounding only.
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
    return _enabled and keras.backend.backend() == "torch" and _finds_private_names()


def _finds_private_names() -> bool:
    global _has_private_names
    if _has_private_names is None:
        missing = [name for name in PRIVATE_NAMES if not _exists(name)]
        if missing:
            warnings.warn(f"the fast paths are off: this PyTorch lacks {', '.join(missing)}", stacklevel=3)
        _has_private_names = not missing
    return _has_private_names


def _exists(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True
