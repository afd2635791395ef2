from typing import Any

import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.per_sample import per_sample
from keras_gen.export import keras_gen_export
from keras_gen.latent.likelihood import Likelihood


@keras_gen_export("keras_gen.losses.CategoricalLikelihood")
class CategoricalLikelihood(Likelihood):
    """Whole numbers, such as the tokens of a text, of probabilities `softmax(output)`: the cross entropy, summed.

        -log p(x | output) = -sum log softmax(output)[x]

    The decoder's output has an axis of classes after those of the data.

    Args:
        num_classes: int >= 2. Data are integers 0 .. num_classes - 1.

    Raises:
        ValueError: if `num_classes` is less than 2, or data are not integers in the range.

    Reference: https://kexue.fm/archives/5332.
    """

    dtype = "int32"

    def __init__(self, num_classes: int):
        self.num_classes = check_integer("num_classes", num_classes, at_least=2)

    def nll(self, x: Any, output: Any) -> Any:
        log_p = ops.log_softmax(ops.cast(output, "float32"), axis=-1)
        chosen = ops.take_along_axis(log_p, ops.expand_dims(ops.cast(x, "int32"), -1), axis=-1)
        return -per_sample(ops.squeeze(chosen, axis=-1))

    def mean(self, output: Any) -> Any:
        return ops.cast(ops.argmax(output, axis=-1), "int32")

    def check(self, name: str, x: np.ndarray) -> None:
        check(x.dtype.kind in "iu", name, "be integers", f"dtype {x.dtype}")
        inside = x.min() >= 0 and x.max() < self.num_classes
        check(inside, name, f"be in 0 .. {self.num_classes - 1}", f"values in [{x.min()}, {x.max()}]")

    def output_shape(self, data_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*data_shape, self.num_classes)

    def get_config(self) -> dict[str, Any]:
        return {"num_classes": self.num_classes}
