"""The operations that PyTorch is set to compute with less precision than float32."""

import operator

OPERATIONS = ("cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv")


def is_rounded(operation: str) -> bool:
    """Returns whether PyTorch is set to round the float32 factors of an operation, one of `OPERATIONS`."""
    import torch

    try:
        return operator.attrgetter(operation)(torch.backends).fp32_precision in ("tf32", "bf16")
    except AttributeError:  # before PyTorch 2.9
        return torch.get_float32_matmul_precision() != "highest"


def rounded_operations() -> tuple[bool, ...]:
    """Returns which operations are rounded: those of a traced graph remain as they were when it was traced."""
    return tuple(map(is_rounded, OPERATIONS))
