from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check_fraction
from keras_gen.core.replicas import whole_batch
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.layers.MovingAverage")
class MovingAverage(keras.layers.Layer):
    """Moving average of *previous* batches: a baseline for `keras_gen.estimators.reinforce`.

        output = total / mass;   then   total <- decay total + (1 - decay) mean(values)
                                        mass  <- decay mass  + (1 - decay)

    Both start at 0, and the first output is 0. A batch does not affect its own output: the estimate stays unbiased.

    The average m is a stochastic approximation, `m <- m + a (mean(values) - m)`, of the expectation of the values. With
    `decay` it is an exponential moving average, whose steps tend to a = 1 - decay: it follows values that drift, and
    keeps the share a / (2 - a) of the variance of independent ones. Without `decay`, a = 1/n after n batches, `total`
    is the sum of their means and `mass` their number, and the average converges.

    Args:
        decay: float in (0, 1), or `None`: the mean of all previous batches. Defaults to `0.99`.
        **kwargs: `name`, `dtype`, as for any Keras layer; `momentum`, the earlier name of `decay`.

    Call arguments:
        values: float tensor.
        training: bool. Whether to update the average with `values`.

    Returns:
        A float32 tensor like `values` under any dtype policy, filled with the average.

    Raises:
        ValueError: if `decay` is outside (0, 1).

    Example:

    >>> baseline = lambda values: self.moving_average(values, training=training)
    >>> keras_gen.estimators.reinforce(f, logits, baseline, seed=self.seed_generator)

    Reference: Mnih and Gregor 2014, arXiv:1402.0030, section 2.3; Kingma and Ba 2014, arXiv:1412.6980, section 3 (bias
    correction); Robbins and Monro 1951, A stochastic approximation method.
    """

    def __init__(self, decay: float | None = 0.99, **kwargs: Any):
        decay = kwargs.pop("momentum", decay)  # its name in files of version 0.1
        super().__init__(autocast=False, **kwargs)
        self.decay = None if decay is None else check_fraction("decay", decay)
        self.kept, self.added = (1.0, 1.0) if self.decay is None else (self.decay, 1 - self.decay)
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
            self.total.assign(self.kept * self.total + self.added * whole_batch.mean(values))
            self.mass.assign(self.kept * self.mass + self.added)
        return ops.broadcast_to(average, ops.shape(values))

    def compute_output_spec(self, values: Any, training: bool = False) -> keras.KerasTensor:
        return keras.KerasTensor(values.shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay": self.decay}
