from typing import Any

import keras

from keras_gen.core.checks import check
from keras_gen.diffusion.models.score_sde import ScoreSDE
from keras_gen.diffusion.samplers.base import DiffusionSampler
from keras_gen.diffusion.samplers.heun import HeunSampler
from keras_gen.diffusion.schedules.continuous import EDMSchedule
from keras_gen.diffusion.schedules.time_samplers import LogNormalSigma, TimeSampler
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.models.EDM")
class EDM(ScoreSDE):
    """EDM: diffusion with network inputs, targets and loss of unit variance at every noise level.

        x_t = x0 + sigma eps,   x0_hat = c_skip x_t + c_out network([c_in x_t, log(sigma) / 4])
        c_skip = sigma_data^2 / r^2,   c_out = sigma sigma_data / r,   c_in = 1 / r,   r^2 = sigma^2 + sigma_data^2
        loss = mean over dimensions of |x0_hat - x0|^2 / c_out^2,   log(sigma) ~ N(-1.2, 1.2^2)

    Args:
        network: as for `ScoreSDE`.
        schedule: an `EDMSchedule`. Defaults to `None`, which is `EDMSchedule()`.
        sigma_data: float > 0, standard deviation of the data. Defaults to `0.5`.
        time_sampler: a `TimeSampler`. Defaults to `None`, which is `LogNormalSigma()`.
        condition_dropout: as for `ScoreSDE`. Defaults to `0.0`.
        seed: int or `None`. Seeds all random draws. Defaults to `None`, a seed from Keras's global generator.
        null_condition: as for `ScoreSDE`. Defaults to `None`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: float images `(batch, ...)`, channels last, scaled to [-1, 1].

    Returns:
        The images unchanged; use `fit` and `sample`.

    Raises:
        ValueError: as for `ScoreSDE`.

    Example:

    >>> model = keras_gen.models.EDM(keras_gen.models.UNet((8, 8, 1), (16, 32)))
    >>> model.compile("adam")
    >>> model.fit(images)                     # float32 (n, 8, 8, 1) in [-1, 1]
    >>> new = model.sample(16, keras_gen.samplers.HeunSampler(18), seed=0)

    Reference: Karras et al. 2022, arXiv:2206.00364.
    """

    def __init__(
        self,
        network: keras.Layer,
        schedule: EDMSchedule | None = None,
        sigma_data: float = 0.5,
        time_sampler: TimeSampler | None = None,
        condition_dropout: float = 0.0,
        seed: int | None = None,
        null_condition: Any = None,
        **kwargs: Any,
    ):
        schedule = EDMSchedule() if schedule is None else schedule
        check(isinstance(schedule, EDMSchedule), "schedule", "be an EDMSchedule", schedule)
        super().__init__(
            network,
            schedule,
            "edm",
            "edm",
            LogNormalSigma() if time_sampler is None else time_sampler,
            condition_dropout,
            seed,
            null_condition,
            sigma_data=sigma_data,
            **kwargs,
        )

    def default_sampler(self) -> DiffusionSampler:
        return HeunSampler()

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {name: value for name, value in config.items() if name not in ("prediction", "weighting")}
