"""The base class of models of binary arrays."""

from typing import Any

import numpy as np
from keras import ops

from keras_gen.autoregressive.autoregressive_model import AutoregressiveModel
from keras_gen.core.checks import check


class BinaryModel(AutoregressiveModel):
    """A distribution over binary arrays, flattened.

    log p(x) = sum_i x_i l_i - log(1 + exp(l_i)),   l_i = logit of p(x_i = 1 | those before it)
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(2, seed=seed, **kwargs)

    def check_values(self, name: str, x: np.ndarray) -> None:
        check(x.dtype.kind in "biuf", name, "be numbers", f"dtype {x.dtype}")
        binary = (x == 0) | (x == 1)
        check(bool(binary.all()), name, "be binary, 0 or 1", f"values such as {x[~binary].flat[:1].tolist()}")

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["num_codes"]
        return config


def bernoulli_log_prob(x: Any, logits: Any) -> Any:
    """Returns the log-probability `(batch,)` of independent binary numbers `(batch, length)`, given their logits."""
    return ops.sum(x * logits - ops.softplus(logits), axis=1)


def two_logits(logit: Any) -> Any:
    """Returns the logits `(batch, 2)` of 0 and 1 from that of 1, `(batch,)`."""
    logit = ops.cast(logit, "float32")
    return ops.stack([ops.zeros_like(logit), logit], axis=1)
