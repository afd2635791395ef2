from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core import jax_weights
from keras_gen.core.arrays import array_module, mean_square
from keras_gen.core.checks import check, check_choice
from keras_gen.diffusion.models.diffusion_model import DiffusionModel
from keras_gen.diffusion.models.likelihood import bound_term, noise_power, variational_bound
from keras_gen.diffusion.prediction import Prediction, short_form
from keras_gen.diffusion.samplers.base import DiffusionSampler, check_sampler
from keras_gen.diffusion.samplers.ddpm import DDPMSampler
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule, LinearSchedule
from keras_gen.export import keras_gen_export

VARIANCE_WEIGHTS = {"fixed_small": 0.0, "fixed_large": 1.0, "learned_range": None}
BOUND_WEIGHT = 0.001  # lambda of arXiv:2102.09672: the bound trains the variance and must not affect the mean


@keras_gen_export("keras_gen.models.DDPM")
class DDPM(DiffusionModel):
    """Denoising diffusion probabilistic model (DDPM): learns to reverse a noising process, step by step.

        x_t = alpha_t x0 + sigma_t eps,   t ~ U{0 .. T - 1},   eps ~ N(0, I)
        loss = mean over pixels of weight_t |target - network([x_t, t])|^2

    The target is eps, x0, `v = alpha_t eps - sigma_t x0` or another prediction. Train with `fit(images)` or, for a
    conditional network, `fit(images, labels)`; no `loss` is given to `compile`. With `use_ema=True` in the optimizer,
    `fit` ends with the averaged weights, which sampling then uses.

    Args:
        network: a Keras layer or model called as `network([x_t, t])` or `network([x_t, t, condition])`, with `t`
            `(batch,)` int32 (float32 for `"edm"`), and an output like `x_t` (twice its channels for `"learned_range"`).
            The condition may be a dict of tensors. The loss includes the network's weight regularizers and the
            `add_loss` terms of its layers.
        schedule: a `DiscreteSchedule`. Defaults to `None`, which is `LinearSchedule()`.
        prediction: `"epsilon"`, `"x0"`, `"v"`, `"score"` or `"edm"`, or a `Prediction`. Output of the network, see
            `ops.convert_prediction`. Defaults to `"epsilon"`.
        variance: `"fixed_small"` (the posterior's), `"fixed_large"` (the forward step's) or `"learned_range"` (the
            second half of the network's output channels interpolates between the two, trained by the variational
            bound). Defaults to `"fixed_small"`.
        weighting: `"simple"`, `"snr"`, `"min_snr"`, `"edm"` or `"vlb"`. Weighting of the loss over time, see
            `loss_weight`. Defaults to `"simple"`.
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
            shape, the network supports fewer times than the schedule, or the prediction does not determine x0 because
            the schedule ends at zero signal.

    Example:

    >>> network = keras_gen.models.UNet(image_shape=(8, 8, 1), widths=(16, 32))
    >>> model = keras_gen.models.DDPM(network)
    >>> model.compile(keras.optimizers.Adam(1e-3, use_ema=True))
    >>> model.fit(images)                     # float32 (n, 8, 8, 1) in [-1, 1]
    >>> new = model.sample(16, seed=0)        # float32 (16, 8, 8, 1)

    Reference: https://kexue.fm/archives/9119, /9152, /9164; Ho et al. 2020, arXiv:2006.11239.
    """

    schedule: DiscreteSchedule

    def __init__(
        self,
        network: keras.Layer,
        schedule: DiscreteSchedule | None = None,
        prediction: str | Prediction = "epsilon",
        variance: str = "fixed_small",
        weighting: str = "simple",
        condition_dropout: float = 0.0,
        seed: int | None = None,
        null_condition: Any = None,
        **kwargs: Any,
    ):
        schedule = LinearSchedule() if schedule is None else schedule
        check(isinstance(schedule, DiscreteSchedule), "schedule", "be a DiscreteSchedule", schedule)
        check_choice("variance", variance, VARIANCE_WEIGHTS)
        super().__init__(
            network,
            schedule,
            prediction,
            weighting,
            condition_dropout=condition_dropout,
            outputs_per_channel=2 if variance == "learned_range" else 1,
            seed=seed,
            null_condition=null_condition,
            **kwargs,
        )
        self.variance = variance
        every_step = DDPMSampler()
        rows = every_step.rows(schedule, every_step.times(schedule))
        # One table (T,) for each coefficient of a step, indexed by t.
        self.tables = {name: column[::-1].astype("float32") for name, column in rows.items() if name != "t"}

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if hasattr(self, "noise_power"):
            return
        # Gamma_t, estimated by `adapt_variance`; -1 until then.
        options = {"initializer": keras.initializers.Constant(-1.0), "trainable": False, "autocast": False}
        shape = (self.schedule.num_steps,)
        self.noise_power = self.add_weight(name="noise_power", shape=shape, dtype="float32", **options)

    def coefficients(self, t: Any) -> dict[str, Any]:
        row = super().coefficients(t)
        if array_module(t) is np:  # for the table of a sampler
            jax_weights.fetch(self)
            row["noise_power"] = ops.convert_to_numpy(self.noise_power)[t]
        return row

    def network_output(self, x_t: Any, row: dict[str, Any], condition: Any, training: bool = False) -> tuple[Any, Any]:
        output, _ = super().network_output(x_t, row, condition, training)
        if self.variance != "learned_range":
            return output, VARIANCE_WEIGHTS[self.variance]
        output, v = ops.split(output, 2, axis=-1)
        variance_weight = (v + 1) / 2
        # Not clipped in training, to keep a gradient outside of the range.
        return output, variance_weight if training else ops.clip(variance_weight, 0.0, 1.0)

    def loss_at(self, x0: Any, eps: Any, t: Any, y: Any, training: bool) -> Any:
        row = self.columns(self.coefficients(t), x0)
        alpha, sigma, p, q = (row[name] for name in ("alpha", "sigma", "p", "q"))
        x_t = alpha * x0 + sigma * eps
        prediction, variance_weight = self.network_output(x_t, row, y, training)
        target = p * x0 + q * eps  # eps itself for "epsilon"
        loss = self.weight(t) * mean_square(target - prediction)
        if self.variance == "learned_range":
            x0_hat = ops.stop_gradient(self.x0_from(prediction, x_t, row))
            step = self.columns({name: ops.take(table, t) for name, table in self.tables.items()}, x0)
            bound = bound_term(x0, x0_hat, variance_weight, step)
            loss = loss + BOUND_WEIGHT * self.schedule.num_steps * bound
        return loss

    def adapt_variance(
        self,
        x: Any,
        y: Any = None,
        sampler: DiffusionSampler | None = None,
        seed: int | None = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> None:
        """Estimates Gamma_t, the fraction of noise variance that the network explains, for `AnalyticDPMSampler`.

            Gamma_t = 1 - E |eps - eps_hat(x_t)|^2 / dimensions

        Each image takes one network evaluation per time. The estimate is a weight, `noise_power`, and saved in files;
        repeat after further training.

        Args:
            x: `(n, *image_shape)`, a few hundred images of the training set.
            y: conditions of the images, for a conditional network. Defaults to `None`.
            sampler: restricts the estimate to the times of this sampler, and resets all others. Defaults to `None`, all
                times.
            seed: as for `sample`.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Raises:
            ValueError: if an argument is incompatible with the model.

        Reference: Bao et al. 2022, arXiv:2201.06503, equation 8; for a network that is not optimal, arXiv:2206.07309.
        """
        check_sampler(sampler)
        x = self.prepare_images("x", x)
        condition = self.prepare_condition(y, len(x), "y")
        times = np.arange(self.schedule.num_steps) if sampler is None else sampler.times(self.schedule)[-2::-1]
        power = np.full(self.schedule.num_steps, -1.0, "float32")
        power[times] = noise_power(self, times, x, condition, self.draw_seed(seed), batch_size, verbose)
        # The variance of x0 given x_t is at most that of the data: without this bound, a small error of Gamma_t becomes
        # a large variance where little signal is left.
        snr = np.exp(self.schedule.log_snr(times))
        power[times] = np.clip(power[times], 1 - snr * x.var(axis=0).mean(), 1)
        self.noise_power.assign(power)

    def elbo(
        self,
        x: Any,
        condition: Any = None,
        levels: int = 256,
        clip_x0: float | None = 1.0,
        seed: int | None = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Estimates the variational bound on the negative log-likelihood of images, in bits per dimension.

            L = KL(q(x_T | x0) || p(x_T)) + sum_t KL(q(x_s | x_t, x0) || p(x_s | x_t)) - log p(x0 | x_0)

        All terms are evaluated, each with one noise draw: `T` network evaluations per image.

        Args:
            x: `(n, *image_shape)`, pixel values in [-1, 1].
            condition: as for `sample`.
            levels: int >= 2, number of distinct pixel values, for the last term. Defaults to `256`.
            clip_x0: float > 0 or `None`. Bounds each prediction of x0, as in `DDPMSampler`: if the schedule ends in
                noise, unclipped predictions make the variational bound loose. Defaults to `1.0`.
            seed: as for `sample`.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Returns:
            float32 array `(n,)`. Papers report the mean over a test set; lower is better.

        Raises:
            ValueError: if an argument is incompatible with the model, or pixel values are outside [-1, 1].

        Reference: Ho et al. 2020, arXiv:2006.11239, equation 5.
        """
        return variational_bound(
            self,
            self.prepare_images("x", x),
            condition=condition,
            levels=levels,
            clip_x0=clip_x0,
            seed=self.draw_seed(seed),
            batch_size=batch_size,
            verbose=verbose,
        )

    def bits_per_dim(self, x: Any, **options: Any) -> np.ndarray:
        """Estimates an upper bound of `-log p(x) / (D log 2)`, for images of D dimensions: the same as `elbo`.

        Args:
            x: `(n, *image_shape)`, pixel values in [-1, 1].
            **options: as for `elbo`.

        Returns:
            float32 array `(n,)`; lower is better.

        Raises:
            ValueError: if an argument is incompatible with the model, or pixel values are outside [-1, 1].
        """
        return self.elbo(x, **options)

    def get_config(self) -> dict[str, Any]:
        own = {
            "prediction": short_form(self.prediction),
            "variance": self.variance,
            "weighting": self.weighting,
            "condition_dropout": self.condition_dropout,
        }
        return {**super().get_config(), **own}
