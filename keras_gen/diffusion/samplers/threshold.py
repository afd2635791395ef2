from typing import Any

from keras import ops

from keras_gen.core.arrays import broadcastable
from keras_gen.core.checks import check_fraction
from keras_gen.core.configured import Configured
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.DynamicThreshold")
class DynamicThreshold(Configured):
    """Dynamic thresholding: clips x0 to a percentile of its absolute values per image, and rescales it to [-1, 1].

        s = max(1, percentile of |x0|),   x0 -> clip(x0, -s, s) / s

    Pass it to a sampler as `clip_x0`. It prevents saturated pixels at high guidance scales.

    Args:
        percentile: float in (0, 1). Defaults to `0.995`.

    Raises:
        ValueError: if `percentile` is outside its range.

    Reference: Saharia et al. 2022, arXiv:2205.11487, section 2.3.
    """

    def __init__(self, percentile: float = 0.995):
        self.percentile = check_fraction("percentile", percentile)

    def __call__(self, x0: Any) -> Any:
        pixels = ops.reshape(ops.abs(x0), (ops.shape(x0)[0], -1))
        s = broadcastable(ops.maximum(ops.quantile(pixels, self.percentile, axis=1), 1.0), x0)
        return ops.clip(x0 / s, -1.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"percentile": self.percentile}
