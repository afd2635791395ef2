from typing import Any

from keras import ops

from keras_gen.core.checks import check, check_fraction, check_interval, is_number
from keras_gen.diffusion.models.network_interface import null_condition
from keras_gen.diffusion.samplers.guidance import Evaluate, Guidance
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.samplers.ClassifierFreeGuidance")
class ClassifierFreeGuidance(Guidance):
    """Guides a model by itself: away from what it predicts without the condition.

        prediction = (1 - w) unconditional + w conditional

    `scale=1` is the plain conditional model, as in most programs; Ho and Salimans count from there, their w is
    `scale - 1`. The model has to know the null condition: train it with `condition_dropout` of 0.1 or so.

    Args:
        scale: float, `w`; more than 1 guides.
        rescale: float in [0, 1]. How far the guided prediction gets back the deviation of the conditional one, in each
            image, which keeps high scales from over-exposure. Defaults to `0.0`.
        interval: smallest and largest sigma / alpha at which to guide, or `None`. Elsewhere the network is evaluated
            once. Defaults to `None`, at all.
        batched: bool. Whether both predictions are one batch of twice the size, or two batches, in half the memory.
            Defaults to `True`.

    Raises:
        ValueError: if an argument is outside its range, or the model takes no condition or never saw the null one.

    Example:

    >>> model.sample(16, condition=3, guidance=keras_gen.samplers.ClassifierFreeGuidance(2.0))

    Reference: Ho and Salimans 2022, arXiv:2207.12598; https://kexue.fm/archives/9257; for `rescale` Lin et al. 2023,
    arXiv:2305.08891, section 3.4; for `interval` Kynkaanniemi et al. 2024, arXiv:2404.07724.
    """

    def __init__(
        self,
        scale: float,
        rescale: float = 0.0,
        interval: tuple[float, float] | None = None,
        batched: bool = True,
    ):
        check(is_number(scale), "scale", "be a number", repr(scale))
        check(isinstance(batched, bool), "batched", "be True or False", repr(batched))
        self.scale = float(scale)
        self.rescale = check_fraction("rescale", rescale, closed=True)
        self.interval = check_interval("interval", interval)
        self.batched = batched

    def check_model(self, model: Any) -> None:
        rule = "be used with a model that was trained with `condition_dropout` > 0"
        check(model.condition_dropout > 0, "guidance", rule, f"condition_dropout={model.condition_dropout}")

    def bind(self, model: Any) -> Evaluate:
        def guided(x_t: Any, row: dict[str, Any], condition: Any) -> tuple[Any, Any]:
            conditional, unconditional, share = self._both(model, x_t, row, condition)
            output = unconditional + self.scale * (conditional - unconditional)
            if self.rescale > 0:
                ratio = _deviation(conditional) / ops.maximum(_deviation(output), 1e-12)
                output = output * (1 + self.rescale * (ratio - 1))
            return model.x0_from(output, x_t, row), share

        if self.interval is None:
            return guided
        low, high = self.interval

        def within(x_t: Any, row: dict[str, Any], condition: Any) -> tuple[Any, Any]:
            level = row["sigma"] / row["alpha"]
            plain = lambda: model.denoise(x_t, row, condition)  # noqa: E731
            return ops.cond((low <= level) & (level <= high), lambda: guided(x_t, row, condition), plain)

        return within

    def _both(self, model: Any, x_t: Any, row: dict[str, Any], condition: Any) -> tuple[Any, Any, Any]:
        null = null_condition(model.network, condition)
        if not self.batched:
            conditional, share = model.network_output(x_t, row, condition)
            return conditional, model.network_output(x_t, row, null)[0], share
        twice = ops.concatenate([x_t, x_t]), row, ops.concatenate([condition, null])
        output, share = model.network_output(*twice)
        if hasattr(share, "shape"):
            share = ops.split(share, 2)[0]
        return *ops.split(output, 2), share

    def get_config(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "rescale": self.rescale,
            "interval": self.interval,
            "batched": self.batched,
        }


def _deviation(output: Any) -> Any:
    return ops.std(output, axis=tuple(range(1, len(output.shape))), keepdims=True)
