"""Guidance of samplers: classifier-free, and by a classifier."""

import abc
from collections.abc import Callable
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_gen.core.calculus.gradient import gradient
from keras_gen.core.checks import as_labels, check, check_flag, check_fraction, check_interval, is_number
from keras_gen.core.conditions import map_parts, names_of, packed, parts_of
from keras_gen.core.configured import Configured
from keras_gen.export import keras_gen_export
from keras_gen.networks.backbones.image_network import condition_of, inputs_of, takes_condition

Evaluate = Callable[[Any, dict[str, Any], Any], tuple[Any, Any]]


@keras_gen_export("keras_gen.samplers.Guidance")
class Guidance(abc.ABC):
    """Base class of guidance: modifies the predictions of a model, so that samples match a condition more closely.

    Subclasses define `bind(model)`, which returns a function like `model.denoise`; `check_model`, which rejects
    unsupported models; and `get_config`. `layers` lists the layers that are called besides the model, `scalars` the
    attributes that are arguments of the compiled program, tensors in what `bind` returns: no branches depend on them.

    Reference: https://kexue.fm/archives/9257.
    """

    layers: tuple[keras.Layer, ...] = ()
    scalars: tuple[str, ...] = ()

    @abc.abstractmethod
    def bind(self, model: Any) -> Evaluate:
        """Returns a function of `(x_t, row, condition)`: the guided x0, and the weight of the large log-variance."""

    @abc.abstractmethod
    def check_model(self, model: Any) -> None:
        """Raises `ValueError` for a model that cannot be guided."""

    def condition(self, model: Any, condition: Any, n: int) -> Any:
        """Returns the condition of `n` images as an array or a dict of arrays, in the format of the model."""
        return model.prepare_condition(condition, n)

    @abc.abstractmethod
    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**keras.saving.deserialize_keras_object(config))


@keras_gen_export("keras_gen.samplers.ClassifierFreeGuidance")
class ClassifierFreeGuidance(Configured, Guidance):
    """Classifier-free guidance: extrapolates from the unconditional to the conditional prediction of a model.

        prediction = (1 - w) unconditional + w conditional

    `scale=1` is the conditional model without guidance, as in most implementations; the w of Ho and Salimans is
    `scale - 1`. The model must be trained with the null condition: set `condition_dropout` to about 0.1.

    Args:
        scale: float, `w`; guidance is stronger for larger values, and off at 1.
        rescale: float in [0, 1]. Degree to which the guided prediction is rescaled to the standard deviation of the
            conditional one, per image, which prevents over-exposure at high scales. Defaults to `0.0`.
        interval: smallest and largest sigma / alpha with guidance, or `None`, all. Elsewhere the network is evaluated
            only once. Defaults to `None`.
        batched: bool. Whether to compute both predictions in one batch of twice the size, or in two batches with half
            the memory. Defaults to `True`.

    Raises:
        ValueError: if an argument is outside its range, or the model was trained without conditions or without the null
            condition.

    Example:

    >>> model.sample(16, condition=3, guidance=keras_gen.samplers.ClassifierFreeGuidance(2.0))

    Reference: Ho and Salimans 2022, arXiv:2207.12598; https://kexue.fm/archives/9257; for `rescale` Lin et al. 2023,
    arXiv:2305.08891, section 3.4; for `interval` Kynkaanniemi et al. 2024, arXiv:2404.07724.
    """

    scalars = ("scale",)

    def __init__(
        self,
        scale: float,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        batched: bool = True,
    ):
        check(is_number(scale), "scale", "be a number", repr(scale))
        self.scale = float(scale)
        self.rescale = check_fraction("rescale", rescale, closed=True)
        self.interval = check_interval("interval", interval)
        self.batched = check_flag("batched", batched)

    def check_model(self, model: Any) -> None:
        rule = "be used with a model that was trained with `condition_dropout` > 0"
        check(model.condition_dropout > 0, "guidance", rule, f"condition_dropout={model.condition_dropout}")

    def bind(self, model: Any) -> Evaluate:
        def guided(x_t: Any, row: dict[str, Any], condition: Any) -> tuple[Any, Any]:
            conditional, unconditional, variance_weight = self._both_outputs(model, x_t, row, condition)
            output = unconditional + self.scale * (conditional - unconditional)
            if self.rescale > 0:
                ratio = _std(conditional) / ops.maximum(_std(output), 1e-12)
                output = output * (1 + self.rescale * (ratio - 1))
            return model.x0_from(output, x_t, row), variance_weight

        if self.interval is None:
            return guided
        low, high = self.interval

        def guided_in_interval(x_t: Any, row: dict[str, Any], condition: Any) -> tuple[Any, Any]:
            level = row["sigma"] / row["alpha"]
            unguided = lambda: model.denoise(x_t, row, self.pair(model, condition)[0])  # noqa: E731
            return ops.cond((low <= level) & (level <= high), lambda: guided(x_t, row, condition), unguided)

        return guided_in_interval

    def pair(self, model: Any, condition: Any) -> tuple[Any, Any]:
        """Returns the conditions of the conditional and of the unconditional prediction."""
        return condition, model.null_condition.like(condition)

    def _both_outputs(self, model: Any, x_t: Any, row: dict[str, Any], condition: Any) -> tuple[Any, Any, Any]:
        condition, null = self.pair(model, condition)
        if not self.batched:
            conditional, variance_weight = model.network_output(x_t, row, condition)
            return conditional, model.network_output(x_t, row, null)[0], variance_weight
        conditions = map_parts(lambda *parts: ops.concatenate(parts), condition, null)
        output, variance_weight = model.network_output(ops.concatenate([x_t, x_t]), row, conditions)
        if hasattr(variance_weight, "shape"):
            variance_weight = ops.split(variance_weight, 2)[0]
        return *ops.split(output, 2), variance_weight

    def get_config(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "rescale": self.rescale,
            "interval": self.interval,
            "batched": self.batched,
        }


class NegativeGuidance(ClassifierFreeGuidance):
    """Classifier-free guidance away from a condition of each image instead of the null condition.

        prediction = (1 - w) prediction given the negative condition + w prediction given the condition

    The condition of the images is a pair of both. The model needs no null condition.
    """

    sides = "condition", "negative"

    def check_model(self, model: Any) -> None:
        """Accepts all models."""

    def condition(self, model: Any, condition: Any, n: int) -> dict[str, np.ndarray]:
        """Returns the parts of both conditions in one dict."""
        parts: dict[str, np.ndarray] = {}
        for side, given in zip(self.sides, condition, strict=True):
            given = model.prepare_condition(given, n, side)
            parts |= dict(zip(parts_of(names_of(side, given)), parts_of(given), strict=True))
        return parts

    def pair(self, model: Any, condition: Any) -> tuple[Any, Any]:
        taken = condition_of(model.network)
        names = (parts_of(names_of(side, taken)) for side in self.sides)
        given, negative = (packed(taken, [condition[name] for name in own]) for own in names)
        return given, negative


def _std(output: Any) -> Any:
    return ops.std(output, axis=tuple(range(1, len(output.shape))), keepdims=True)


@keras_gen_export("keras_gen.samplers.ClassifierGuidance")
class ClassifierGuidance(Guidance):
    """Classifier guidance: adds the gradient of the log-probability that a classifier gives to the condition.

        eps = eps_hat - w sigma_t d/dx_t log p(y | x_t),   which is   x0 = x0_hat + w (sigma_t^2 / alpha_t) d/dx_t log p

    Args:
        classifier: a Keras model that returns logits `(batch, classes)`, called as `classifier([x_t, t])`, or
            `classifier(x_t)` if it has one input. Train it on noised images, see `DiffusionModel.add_noise`.
        scale: float, `w`. Defaults to `1.0`.

    Raises:
        ValueError: if an argument has the wrong type, or the schedule ends at zero signal.

    Example:

    >>> model.sample(16, condition=3, guidance=keras_gen.samplers.ClassifierGuidance(classifier, 2.0))

    Reference: https://kexue.fm/archives/9257; Dhariwal and Nichol 2021, arXiv:2105.05233, algorithm 2.
    """

    scalars = ("scale",)

    def __init__(self, classifier: keras.Model, scale: float = 1.0):
        check(isinstance(classifier, keras.Layer), "classifier", "be a keras.Model", repr(classifier))
        check(is_number(scale), "scale", "be a number", repr(scale))
        self.classifier, self.scale = classifier, float(scale)
        self.layers = (classifier,)

    def check_model(self, model: Any) -> None:
        check(model.schedule.alpha(model.schedule.t_max) > 0, "schedule", "keep some signal", model.schedule)

    def condition(self, model: Any, condition: Any, n: int) -> np.ndarray:
        """Returns the labels of `n` images; the network may be unconditional."""
        if takes_condition(model.network):
            condition = super().condition(model, condition, n)
        check(condition is not None, "condition", "be given: the classifier's class", None)
        classes = self.classifier.output_shape[-1] if inputs_of(self.classifier) else None
        return as_labels("condition", condition, n, classes)

    def bind(self, model: Any) -> Evaluate:
        takes_time = len(inputs_of(self.classifier)) != 1
        conditional = takes_condition(model.network)

        def guided(x_t: Any, row: dict[str, Any], condition: Any) -> tuple[Any, Any]:
            time = model.times_like(x_t, row)

            def log_likelihood(x: Any) -> Any:
                logits = self.classifier([x, time] if takes_time else x, training=False)
                log_p = ops.log_softmax(ops.cast(logits, "float32"))
                return ops.sum(log_p * ops.one_hot(condition, log_p.shape[-1]), axis=-1)

            x0, variance_weight = model.denoise(x_t, row, condition if conditional else None)
            factor = self.scale * row["sigma"] ** 2 / row["alpha"]
            return x0 + factor * gradient(log_likelihood, x_t), variance_weight

        return guided

    def get_config(self) -> dict[str, Any]:
        return {"classifier": keras.saving.serialize_keras_object(self.classifier), "scale": self.scale}
