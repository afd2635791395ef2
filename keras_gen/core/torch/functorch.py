import keras


def transforming() -> bool:
    """Returns whether PyTorch calls us to transform a function, for `ops.jvp` or `vectorized_map`.

    Not all kernels that PyTorch has for a layer can be transformed.
    """
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch._C._functorch.maybe_current_level() is not None or torch.autograd.forward_ad._current_level >= 0
