import math
from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, is_number
from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.latent.likelihood import Likelihood


@keras_gen_export("keras_gen.losses.GaussianLikelihood")
class GaussianLikelihood(Likelihood):
    """Real data, normal around the output: half the squared error over the variance, with the constants.

        -log p(x | output) = sum (|x - output|^2 / variance + log(2 pi variance)) / 2

    It is a density, so its logarithm may be positive and a loss negative.

    Args:
        variance: float > 0. Defaults to `1.0`.

    Raises:
        ValueError: if `variance` is not positive.

    Reference: https://kexue.fm/archives/5253; Kingma and Welling 2013, arXiv:1312.6114, appendix C.2.
    """

    def __init__(self, variance: float = 1.0):
        check(is_number(variance) and variance > 0, "variance", "be > 0", repr(variance))
        self.variance = float(variance)

    def nll(self, x: Any, output: Any) -> Any:
        error = ops.square(ops.cast(x, "float32") - ops.cast(output, "float32"))
        return 0.5 * per_sample(error / self.variance + math.log(2 * math.pi * self.variance))

    def mean(self, output: Any) -> Any:
        return ops.cast(output, "float32")

    def check(self, name: str, x: np.ndarray) -> None:
        """Any finite data will do."""

    def get_config(self) -> dict[str, Any]:
        return {"variance": self.variance}
