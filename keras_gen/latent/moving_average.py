from typing import Any

import keras
from keras import ops

from keras_gen.core import replicas
from keras_gen.core.checks import check_fraction
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.MovingAverage")
class MovingAverage(keras.layers.Layer):
    """Exponential moving average of *previous* batches: a baseline for `keras_gen.estimators.reinforce`.

        output = total / mass;   then   total <- momentum total + (1 - momentum) mean(values)
                                        mass  <- momentum mass  + (1 - momentum)

    Both start at 0, and the first output is 0. A batch does not affect its own output: the estimate stays unbiased.

    Args:
        momentum: float in (0, 1). Defaults to `0.99`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        values: float tensor.
        training: bool. Whether to update the average with `values`.

    Returns:
        A float32 tensor like `values` under any dtype policy, filled with the average.

    Raises:
        ValueError: if `momentum` is outside (0, 1).

    Example:

    >>> baseline = lambda values: self.moving_average(values, training=training)
    >>> keras_gen.estimators.reinforce(f, logits, baseline, seed=self.seed_generator)

    Reference: Mnih and Gregor 2014, arXiv:1402.0030, section 2.3; Kingma and Ba 2014, arXiv:1412.6980, section 3 (bias
    correction).
    """

    def __init__(self, momentum: float = 0.99, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.momentum = check_fraction("momentum", momentum)
        self.total, self.mass = (
            self.add_weight(name=name, shape=(), initializer="zeros", dtype="float32", trainable=False)
            for name in ("total", "mass")
        )
        self.built = True

    def call(self, values: Any, training: bool = False) -> Any:
        values = ops.cast(values, "float32")
        # Before the update, which on some backends changes the variable's tensor in place.
        average = self.total / ops.maximum(self.mass, 1e-7)
        if training:
            self.total.assign(self.momentum * self.total + (1 - self.momentum) * replicas.mean(values))
            self.mass.assign(self.momentum * self.mass + (1 - self.momentum))
        return ops.broadcast_to(average, ops.shape(values))

    def compute_output_spec(self, values: Any, training: bool = False) -> keras.KerasTensor:
        return keras.KerasTensor(values.shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum}
