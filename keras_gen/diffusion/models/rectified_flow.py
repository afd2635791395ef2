from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import mean_square
from keras_gen.core.checks import check, check_choice, check_integer
from keras_gen.core.devices.products import precise_product
from keras_gen.core.replicas import sharing
from keras_gen.diffusion.models.score_sde import ScoreSDE
from keras_gen.diffusion.samplers.base import DiffusionSampler
from keras_gen.diffusion.samplers.euler import EulerSampler
from keras_gen.diffusion.schedules.continuous import ContinuousSchedule, RectifiedFlowSchedule
from keras_gen.diffusion.schedules.time_samplers import TimeSampler
from keras_gen.diffusion.transport import optimal_pairing
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.models.RectifiedFlow")
class RectifiedFlow(ScoreSDE):
    """Rectified flow, or flow matching: learns the velocity along straight lines from data to noise.

        x_t = (1 - t) x0 + t eps,   loss = mean over dimensions of |(eps - x0) - network([x_t, t])|^2

    `sample` follows the learned velocity from noise to data. `reflow` continues training on the model's own pairs of
    noise and sample, which straightens the trajectories, so that few steps, or one, suffice.

    Args:
        network: as for `ScoreSDE`, with `t` from 0 to 1000.
        schedule: a `RectifiedFlowSchedule`, or one `Shifted`. Defaults to `None`, which is `RectifiedFlowSchedule()`.
        time_sampler: a `TimeSampler`, such as `LogitNormalTime()`. Defaults to `None`, which is `UniformTime()`.
        pairing: `"random"`, or `"optimal"`: noise and data of each batch are paired by minibatch optimal transport.
            Conditions stay with their data. Defaults to `"random"`.
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

    >>> model = keras_gen.models.RectifiedFlow(keras_gen.models.UNet((8, 8, 1), (16, 32)))
    >>> model.compile("adam")
    >>> model.fit(images)                     # float32 (n, 8, 8, 1) in [-1, 1]
    >>> model.reflow(10_000, epochs=5)
    >>> new = model.sample(16, keras_gen.samplers.EulerSampler(1), seed=0)

    Reference: https://kexue.fm/archives/9497; Liu et al. 2022, arXiv:2209.03003; Lipman et al. 2022, arXiv:2210.02747;
    for `pairing` Tong et al. 2023, arXiv:2302.00482.
    """

    nested_data = (list, tuple)  # pairs of images and noise, of one shape: `reflow` trains on them

    def __init__(
        self,
        network: keras.Layer,
        schedule: ContinuousSchedule | None = None,
        time_sampler: TimeSampler | None = None,
        pairing: str = "random",
        condition_dropout: float = 0.0,
        seed: int | None = None,
        null_condition: Any = None,
        **kwargs: Any,
    ):
        schedule = RectifiedFlowSchedule() if schedule is None else schedule
        inner = getattr(schedule, "schedule", schedule)
        check(isinstance(inner, RectifiedFlowSchedule), "schedule", "be a RectifiedFlowSchedule", schedule)
        check_choice("pairing", pairing, ("random", "optimal"))
        options = {"seed": seed, "null_condition": null_condition, **kwargs}
        super().__init__(network, schedule, "velocity", "simple", time_sampler, condition_dropout, **options)
        self.pairing = pairing

    def build(self, input_shape: Any) -> None:
        super().build(input_shape[0] if isinstance(input_shape[0], self.nested_data) else input_shape)

    def check_batch(self, x: Any, y: Any) -> None:
        for part in x if isinstance(x, self.nested_data) else (x,):
            super().check_batch(part, y)

    def loss_at(self, x0: Any, eps: Any, t: Any, y: Any, training: bool) -> Any:
        row = self.columns(self.coefficients(t), x0)
        alpha, sigma, p, q = (row[name] for name in ("alpha", "sigma", "p", "q"))
        x_t = alpha * x0 + sigma * eps  # (1 - t) x0 + t eps
        velocity = p * x0 + q * eps  # eps - x0
        prediction, _ = self.network_output(x_t, row, y, training)
        return mean_square(velocity - prediction)

    def draw_pair(self, x: Any) -> tuple[Any, Any]:
        if isinstance(x, self.nested_data):
            return tuple(ops.cast(part, "float32") for part in x)
        x0, eps = super().draw_pair(x)
        if self.pairing == "random":
            return x0, eps
        rows = [ops.reshape(value, (ops.shape(value)[0], -1)) for value in (x0, eps)]
        # |x0 - eps|^2 without the squared norms, which are the same for every pairing
        pairing = optimal_pairing(-precise_product(rows[0], ops.transpose(rows[1])))
        return x0, ops.take(eps, pairing, axis=0)

    def reflow(
        self,
        n: int = 10_000,
        condition: Any = None,
        sampler: DiffusionSampler | None = None,
        sampling_seed: int | None = None,
        sampling_batch_size: int = 256,
        **fit: Any,
    ) -> keras.callbacks.History:
        """Continues training on the model's own pairs of noise and sample, which straightens the trajectories.

        Args:
            n: int >= 1. Number of pairs. Defaults to `10_000`.
            condition: as for `sample`, the conditions of the samples. Defaults to `None`.
            sampler: sampler that generates the samples. Defaults to `None`, which is `EulerSampler(100)`.
            sampling_seed: int or `None`. Seed of the noise. Defaults to `None`, a seed from the model's own generator.
            sampling_batch_size: int >= 1. Number of samples generated at a time. Defaults to `256`.
            **fit: `epochs`, `batch_size`, `callbacks`, ..., as for `fit`; `verbose` also applies to the sampling.

        Returns:
            The `History` of `fit`.

        Raises:
            ValueError: as for `sample`.

        Reference: Liu et al. 2022, arXiv:2209.03003, algorithm 1.
        """
        seed = self.draw_seed(sampling_seed)
        self.check_built()
        eps = self.prepare_noise(check_integer("n", n), None, seed)
        options = {"condition": condition, "batch_size": sampling_batch_size, "verbose": fit.get("verbose", "auto")}
        sampler = EulerSampler(100) if sampler is None else sampler
        x0 = self.sample(n, sampler, noise=eps, seed=seed, **options)
        condition = self.prepare_condition(condition, n)
        y = None if condition is None else sharing.own_rows(condition)
        return self.fit(sharing.own_rows((x0, eps)), y, **fit)

    def check_data(self, x: Any, y: Any) -> None:
        for part in x if isinstance(x, list | tuple) else (x,):
            super().check_data(part, y)

    def straightness(
        self,
        n: int = 1000,
        condition: Any = None,
        steps: int = 100,
        seed: int | None = None,
        batch_size: int = 256,
        verbose: str | int = "auto",
    ) -> float:
        """Measures how much the sampling trajectories deviate from straight lines.

            S = integral of E |(eps - z_0) - velocity(z_t, t)|^2 / dimensions dt,   z_0 the sample generated from eps

        Args:
            n: int >= 1. Number of samples. Defaults to `1000`.
            condition: as for `sample`.
            steps: int >= 1. Number of Euler steps. Defaults to `100`.
            seed: as for `sample`.
            batch_size: as for `sample`. Defaults to `256`.
            verbose: as for `sample`.

        Returns:
            float >= 0; 0 if all trajectories are straight, so that one step is as good as many.

        Raises:
            ValueError: as for `sample`.

        Reference: Liu et al. 2022, arXiv:2209.03003, equation 6.
        """
        check_integer("steps", steps)
        options = {"condition": condition, "seed": seed, "batch_size": batch_size, "verbose": verbose}
        path = self.denoising_path(n, steps, EulerSampler(steps, "trailing"), **options)
        displacement = path[0] - path[-1]
        alpha = self.schedule.alpha(EulerSampler(steps, "trailing").times(self.schedule))
        lengths = np.diff(alpha).reshape(-1, *[1] * displacement.ndim)
        velocities = (path[:-1] - path[1:]) / lengths
        squares = np.mean((displacement - velocities) ** 2, axis=tuple(range(1, path.ndim)))
        return float(np.sum(squares * lengths.ravel()))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config = {name: value for name, value in config.items() if name not in ("prediction", "weighting")}
        return {**config, "pairing": self.pairing}
