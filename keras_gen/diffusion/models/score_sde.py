import math
from typing import Any

import keras
import numpy as np

from keras_gen.core.exporting.graph import Graph, Input
from keras_gen.diffusion.models.diffusion_model import DiffusionModel
from keras_gen.diffusion.models.exporting import condition_inputs, known_image_shape, packed_condition
from keras_gen.diffusion.models.likelihood import check_pixels, flow_log_density, flow_log_prob
from keras_gen.diffusion.prediction import Prediction, short_form
from keras_gen.diffusion.samplers.base import DiffusionSampler
from keras_gen.diffusion.samplers.euler import EulerSampler
from keras_gen.diffusion.schedules.continuous import ContinuousSchedule, VPSchedule, check_continuous
from keras_gen.diffusion.schedules.time_samplers import TimeSampler
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.models.ScoreSDE")
class ScoreSDE(DiffusionModel):
    """Diffusion in continuous time, with any schedule: sampling by the SDE or the ODE, exact densities by the ODE.

        x_t = alpha(t) x0 + sigma(t) eps
        loss = mean over dimensions of weight(t) |p x0 + q eps - network([x_t, t])|^2

    Train with `fit(images)` or, for a conditional network, `fit(images, labels)`.

    Args:
        network: a Keras layer or model called as `network([x_t, t])` or `network([x_t, t, condition])`, with `t`
            `(batch,)` float32, by default `schedule.network_time(t)`, and an output like `x_t`. The condition may be a
            dict of tensors.
        schedule: a `ContinuousSchedule`. Defaults to `None`, which is `VPSchedule()`.
        prediction: `"epsilon"`, `"x0"`, `"v"`, `"velocity"`, `"score"` or `"edm"`, or a `Prediction`. Output of the
            network, see `ops.convert_prediction`. Defaults to `"epsilon"`.
        weighting: `"simple"`, `"snr"`, `"min_snr"`, `"edm"` or `"vlb"`. Weighting of the loss over time, see
            `loss_weight`. Defaults to `"simple"`.
        time_sampler: a `TimeSampler`. Defaults to `None`, which is `UniformTime()`.
        condition_dropout: float in [0, 1), the fraction of conditions replaced by the null condition in training, for
            `ClassifierFreeGuidance`. Defaults to `0.0`.
        seed: int or `None`. Seeds all random draws. Defaults to `None`, a seed from Keras's global generator.
        null_condition: array like one condition, or a dict of arrays like its parts, which replaces dropped conditions,
            such as the encoding of an empty text. A part that is `None` is never dropped. Defaults to `None`: the null
            class for labels, and zero for vectors and tokens.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: float images `(batch, ...)`, channels last, scaled to [-1, 1].

    Returns:
        The images unchanged; use `fit` and `sample`.

    Raises:
        ValueError: if an argument has the wrong type or is not one of its choices, the network's output has the wrong
            shape, or the prediction does not determine x0 at every time of the schedule.

    Example:

    >>> model = keras_gen.models.ScoreSDE(keras_gen.models.UNet((8, 8, 1), (16, 32)), keras_gen.schedules.VESchedule(),
    ...     prediction="edm")
    >>> model.compile("adam")
    >>> model.fit(images)                     # float32 (n, 8, 8, 1) in [-1, 1]
    >>> new = model.sample(16, keras_gen.samplers.ReverseSDESampler(200), seed=0)

    Reference: https://kexue.fm/archives/9209, /9228; Song et al. 2020, arXiv:2011.13456.
    """

    schedule: ContinuousSchedule

    def __init__(
        self,
        network: keras.Layer,
        schedule: ContinuousSchedule | None = None,
        prediction: str | Prediction = "epsilon",
        weighting: str = "simple",
        time_sampler: TimeSampler | None = None,
        condition_dropout: float = 0.0,
        seed: int | None = None,
        null_condition: Any = None,
        **kwargs: Any,
    ):
        schedule = VPSchedule() if schedule is None else schedule
        check_continuous(schedule)
        options = {"seed": seed, "null_condition": null_condition, **kwargs}
        super().__init__(network, schedule, prediction, weighting, time_sampler, condition_dropout, **options)

    def default_sampler(self) -> DiffusionSampler:
        return EulerSampler()

    def log_prob(
        self,
        x: Any,
        condition: Any = None,
        trace: str = "exact",
        tolerance: float = 1e-5,
        seed: int | None = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Computes the log-density of `x` under the probability-flow ODE, in nats.

            log p(x_0) = log N(x_T; 0, sigma_T^2 I) + integral of div(dx/dt) dt,   from clean data to t_max

        solved with an adaptive step size. The clean end is the schedule's `t_start`.

        Args:
            x: `(n, *image_shape)`.
            condition: as for `sample`.
            trace: `"exact"`, at the cost of one derivative per dimension, or `"hutchinson"`, an unbiased estimate at
                the cost of one derivative. Defaults to `"exact"`.
            tolerance: float > 0, relative and absolute error of each step. Defaults to `1e-5`.
            seed: int or `None`, seed of Hutchinson's random signs. Defaults to `None`, a seed from the model's own
                generator.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Returns:
            float32 array `(n,)`.

        Raises:
            ValueError: if an argument is incompatible with the model or outside its range.

        Reference: Song et al. 2020, arXiv:2011.13456, section 4.3; https://kexue.fm/archives/9228.
        """
        x = self.prepare_images("x", x)
        condition = self.prepare_condition(condition, len(x))
        options: dict[str, Any] = {"batch_size": batch_size, "verbose": verbose}
        return flow_log_prob(self, x, condition, trace, tolerance, self.draw_seed(seed), **options)

    def method_graphs(self) -> list[Graph]:
        inputs = [Input("x", (None, *known_image_shape(self))), *condition_inputs(self)]
        density = flow_log_density(self)

        def log_prob(x: Any, *parts: Any) -> Any:
            return density(x, packed_condition(self, parts))

        return [Graph("log_prob", log_prob, inputs, "log_prob", [self])]

    def bits_per_dim(self, x: Any, levels: int = 256, **options: Any) -> np.ndarray:
        """Computes the negative log-likelihood of images with `levels` pixel values in [-1, 1], in bits per dimension.

        The images are dequantized first: uniform noise fills the gap between adjacent pixel values.

        Args:
            x: `(n, *image_shape)`, pixel values in [-1, 1].
            levels: int >= 2, number of distinct pixel values. Defaults to `256`.
            **options: as for `log_prob`; `seed` also seeds the noise.

        Returns:
            float32 array `(n,)`; lower is better.

        Raises:
            ValueError: as for `log_prob`, and if pixel values are outside [-1, 1] or `levels` is less than 2.
        """
        x = self.prepare_images("x", x)
        check_pixels(x, levels)
        seed = self.draw_seed(options.pop("seed", None))
        step = 2 / (levels - 1)
        dequantized = x + step * (np.random.default_rng(seed).random(x.shape, dtype="float32") - 0.5)
        nats = self.log_prob(dequantized, seed=seed, **options)
        return (-nats / math.prod(x.shape[1:]) - math.log(step)) / math.log(2)

    def get_config(self) -> dict[str, Any]:
        own = {
            "prediction": short_form(self.prediction),
            "weighting": self.weighting,
            "condition_dropout": self.condition_dropout,
        }
        return {**super().get_config(), **own}
