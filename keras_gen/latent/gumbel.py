"""Gumbel-softmax: differentiable categorical samples."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import (
    check,
    check_flag,
    check_floats,
    check_positive_values,
    check_scalar,
    is_integer,
    real_tensor,
    same_shape,
)
from keras_gen.core.random import check_seed, draw_seed, seed_generator
from keras_gen.core.scheduled import Scheduled
from keras_gen.export import keras_gen_export
from keras_gen.latent.straight_through import straight_through

RULED_OUT = -1e9  # stands for a logit of -inf: as improbable in float32, and without the NaN of 0 * inf
SMALLEST, LARGEST = 1.1754944e-38, 0.99999994  # the float32 numbers next to 0 and 1


def uniform_noise(shape: Any, seed: Any) -> Any:
    """Draws from U(0, 1) in float32; never 0 or 1, which `keras.random.uniform` may return, often in half precision."""
    return ops.clip(keras.random.uniform(shape, dtype="float32", seed=draw_seed(seed)), SMALLEST, LARGEST)


def gumbel_noise(shape: Any, seed: Any) -> Any:
    """Draws `g = -log(-log u)`, `u ~ U(0, 1)`, in float32. Always finite, in [-4.5, 16.7]."""
    return -ops.log(-ops.log(uniform_noise(shape, seed)))


LOWEST = 1e-3  # lower bound of schedules: below it, the float32 softmax of large logits loses its gradient


def check_temperature(temperature: Any) -> None:
    """Checks that the temperature is a finite number > 0, or a scalar tensor, whose value is not read."""
    check_positive_values("temperature", temperature)
    check_scalar("temperature", temperature)


def scheduled_temperature(temperature: Any) -> Scheduled:
    """Returns a layer that outputs the temperature of the current training step."""
    return Scheduled("temperature", temperature, LOWEST, positive=True)


@keras_gen_export("keras_gen.ops.gumbel_softmax")
def gumbel_softmax(
    logits: Any, temperature: Any = 1.0, hard: bool = False, axis: int = -1, noise: Any = None, seed: Any = None
) -> Any:
    """Samples a relaxed one-hot vector, `y = softmax((logits + g) / temperature)` with Gumbel noise g.

    `argmax(logits + g)` is an exact sample from `softmax(logits)` (the Gumbel-max trick); y tends to its one-hot vector
    as the temperature tends to 0. Computed in float32, and finite for temperatures >= 1e-3 and logits within +-1e4.

    Args:
        logits: float tensor with at least 2 classes along `axis`. Need not be normalized.
        temperature: float > 0, or a scalar tensor. Defaults to `1.0`.
        hard: bool. Whether to return the one-hot argmax of y with the gradient of y (straight-through). Defaults to
            `False`.
        axis: int. The class axis. Defaults to `-1`.
        noise: tensor like `logits`, used as g instead of a draw.
        seed: int or `keras.random.SeedGenerator`. An int gives the same draw in each call; inside a compiled function
            pass a generator that belongs to a layer or model. Defaults to `None`, Keras's global generator.

    Returns:
        A tensor like `logits`, with sum 1 along `axis`.

    Raises:
        ValueError: if the temperature is not positive, `logits` are integers or have only one class, or `noise` has a
            different shape.

    Example:

    >>> keras_gen.ops.gumbel_softmax(np.log([[0.7, 0.3]]), temperature=0.1, seed=0)   # nearly one-hot

    Reference: https://kexue.fm/archives/6705; Jang et al. 2016, arXiv:1611.01144; Maddison et al. 2016,
    arXiv:1611.00712.
    """
    check_temperature(temperature)
    check_flag("hard", hard)
    seed = draw_seed(seed)
    logits = real_tensor("logits", logits)
    dtype = keras.backend.standardize_dtype(logits.dtype)
    check_floats("logits", logits)
    is_axis = is_integer(axis) and -len(logits.shape) <= axis < len(logits.shape)
    check(is_axis, "axis", f"be an axis of logits, of shape {tuple(logits.shape)}", repr(axis))
    check(logits.shape[axis] != 1, "logits", "have at least 2 classes", f"shape {tuple(logits.shape)}")
    check(0 not in logits.shape, "logits", "hold at least one number", f"shape {tuple(logits.shape)}")
    if noise is None:
        g = gumbel_noise(ops.shape(logits), seed)
    else:
        g = real_tensor("noise", noise, "float32")
        check(
            same_shape(g.shape, logits.shape), "noise", f"have shape {tuple(logits.shape)}", f"shape {tuple(g.shape)}"
        )
    # Subtracting the maximum first keeps differences of large logits exact before they are divided; after that, the
    # softmax need not subtract it again.
    scores = ops.cast(logits, "float32") + g
    scores = scores - ops.stop_gradient(ops.max(scores, axis=axis, keepdims=True))
    y = ops.exp(scores / ops.cast(temperature, "float32"))
    y = y / ops.sum(y, axis=axis, keepdims=True)
    if hard:
        classes = logits.shape[axis]
        y = straight_through(ops.one_hot(ops.argmax(scores, axis=axis), classes, axis=axis, dtype="float32"), y)
    return ops.cast(y, dtype)


@keras_gen_export("keras_gen.layers.GumbelSoftmax")
class GumbelSoftmax(keras.layers.Layer):
    """Differentiable sampling from categorical distributions: `softmax((logits + g) / temperature)`.

    Samples in both training and inference, since sampling is its purpose.

    Args:
        temperature: float > 0, or a `keras.optimizers.schedules.LearningRateSchedule` of the training step. The step
            counter is a weight of the layer, so that the temperature decreases inside a compiled `fit` on every backend
            (where a per-batch callback has no effect on JAX), and is saved with it. Scheduled values are kept >= 0.001.
            Defaults to `1.0`.
        hard: bool. Whether outputs are one-hot, with the gradient of the relaxed samples (straight-through). Defaults
            to `False`.
        seed: int or `None`. Defaults to `None`, a seed from Keras's global generator.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        logits: `(batch, ..., classes)`, at least 2 classes.
        training: bool. Whether this call counts as a training step.

    Returns:
        A tensor like `logits`.

    Raises:
        ValueError: if the temperature is not positive, or there is only one class.

    Example:

    >>> schedule = keras.optimizers.schedules.ExponentialDecay(1.0, decay_steps=1000, decay_rate=0.5)
    >>> y = keras_gen.layers.GumbelSoftmax(schedule, hard=True)(logits)

    Reference: https://kexue.fm/archives/6705; Jang et al. 2016, arXiv:1611.01144.
    """

    def __init__(self, temperature: Any = 1.0, hard: bool = False, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.temperature = scheduled_temperature(temperature)
        self.hard = check_flag("hard", hard)
        self.seed = check_seed(seed)
        self.seed_generator = seed_generator(self.seed)

    def build(self, logits_shape: tuple[int | None, ...]) -> None:
        check(logits_shape[-1] != 1, "logits", "have at least 2 classes", f"shape {tuple(logits_shape)}")

    def call(self, logits: Any, training: bool = False) -> Any:
        return gumbel_softmax(logits, self.temperature(training=training), self.hard, seed=self.seed_generator)

    def compute_output_spec(self, logits: Any, training: bool = False) -> keras.KerasTensor:
        return keras.KerasTensor(logits.shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"temperature": self.temperature.serialized(), "hard": self.hard, "seed": self.seed}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GumbelSoftmax":
        return cls(**keras.saving.deserialize_keras_object(config))
