from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.latent.likelihood import Likelihood


@keras_gen_export("keras_gen.losses.BernoulliLikelihood")
class BernoulliLikelihood(Likelihood):
    """Black-and-white pixels, each white with probability `sigmoid(output)`: the binary cross entropy, summed.

        -log p(x | output) = sum softplus(output) - b output,   b = (x + 1) / 2

    Data are scaled to [-1, 1], -1 black and 1 white. For gray pixels the value is the mean over images in which each is
    drawn black or white with its gray as the probability; a bound made of it is a true bound on the mean log-likelihood
    of those.

    Raises:
        ValueError: if data are outside [-1, 1].

    Reference: https://kexue.fm/archives/5253; Kingma and Welling 2013, arXiv:1312.6114, appendix C.1.
    """

    def nll(self, x: Any, output: Any) -> Any:
        output = ops.cast(output, "float32")
        b = (ops.cast(x, "float32") + 1) / 2
        return per_sample(ops.softplus(output) - b * output)

    def mean(self, output: Any) -> Any:
        return 2 * ops.sigmoid(ops.cast(output, "float32")) - 1

    def check(self, name: str, x: np.ndarray) -> None:
        inside = bool(np.abs(x).max() <= 1 + 1e-6)
        check(inside, name, "be in [-1, 1], black and white", f"values in [{x.min():.4g}, {x.max():.4g}]")
