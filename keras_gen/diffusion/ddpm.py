from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_choice
from keras_gen.diffusion.convert_prediction import PREDICTIONS, convert_prediction
from keras_gen.diffusion.ddpm_sampler import DDPMSampler
from keras_gen.diffusion.diffusion_model import DiffusionModel
from keras_gen.diffusion.discrete_schedule import DiscreteSchedule
from keras_gen.diffusion.linear_schedule import LinearSchedule
from keras_gen.diffusion.loss_weight import loss_weight
from keras_gen.diffusion.variational_bound import bound_term, variational_bound
from keras_gen.export import keras_gen_export

VARIANCE_SHARES = {"fixed_small": 0.0, "fixed_large": 1.0, "learned_range": None}
BOUND_WEIGHT = 0.001  # lambda of arXiv:2102.09672: the bound trains the variance and must not disturb the mean


@keras_gen_export("keras_gen.models.DDPM")
class DDPM(DiffusionModel):
    """Denoising diffusion: learns to undo one small step of noise, and generates by undoing all of them.

        x_t = alpha_t x0 + sigma_t eps,   t ~ U{0 .. T - 1},   eps ~ N(0, I)
        loss = mean over pixels of weight_t |target - network([x_t, t])|^2

    The target is eps, x0 or `v = alpha_t eps - sigma_t x0`. Train with `fit(images)` or, for a network that takes a
    condition, `fit(images, labels)`; no `loss` is given to `compile`. With `use_ema=True` in the optimizer, `fit` ends
    on the averaged weights, and sampling uses them.

    Args:
        network: a Keras layer or model called as `network([x_t, t])` or `network([x_t, t, condition])`, with `t`
            `(batch,)` int32, that gives an output like `x_t` (twice its channels for `"learned_range"`). To take a
            condition it must be a functional model. Its weight regularizers count, what its layers add by `add_loss`
            does not.
        schedule: a `DiscreteSchedule`. Defaults to `None`, which is `LinearSchedule()`.
        prediction: `"epsilon"`, `"x0"` or `"v"`. What the network predicts. Defaults to `"epsilon"`.
        variance: `"fixed_small"` (the posterior's), `"fixed_large"` (the forward step's) or `"learned_range"` (the
            network's second half of channels mixes the two, trained by the variational bound). Defaults to
            `"fixed_small"`.
        weighting: `"simple"`, `"snr"` or `"min_snr"`. The weight of each time, see `loss_weight`. Defaults to
            `"simple"`.
        seed: int or `None`. Seeds all draws of the model. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: float images `(batch, ...)`, channels last, scaled to [-1, 1].

    Returns:
        The images unchanged: the work is in `fit` and `sample`.

    Raises:
        ValueError: if an argument is of the wrong type or not one of its choices, the network's output does not fit or
            it knows fewer times than the schedule, or the data cannot be found from the noise because the schedule ends
            at zero signal.

    Example:

    >>> network = keras_gen.models.UNet(image_shape=(8, 8, 1), widths=(16, 32))
    >>> model = keras_gen.models.DDPM(network)
    >>> model.compile(keras.optimizers.Adam(1e-3, use_ema=True))
    >>> model.fit(images)                     # float32 (n, 8, 8, 1) in [-1, 1]
    >>> new = model.sample(16, seed=0)        # float32 (16, 8, 8, 1)

    Reference: https://kexue.fm/archives/9119, /9152, /9164; Ho et al. 2020, arXiv:2006.11239.
    """

    def __init__(
        self,
        network: keras.Layer,
        schedule: DiscreteSchedule | None = None,
        prediction: str = "epsilon",
        variance: str = "fixed_small",
        weighting: str = "simple",
        seed: int | None = None,
        **kwargs: Any,
    ):
        schedule = LinearSchedule() if schedule is None else schedule
        check_choice("prediction", prediction, PREDICTIONS)
        check_choice("variance", variance, VARIANCE_SHARES)
        outputs = 2 if variance == "learned_range" else 1
        super().__init__(network, schedule, outputs_per_channel=outputs, seed=seed, **kwargs)
        ends_in_noise = schedule.alphas_cumprod[-1] == 0
        check(
            prediction != "epsilon" or not ends_in_noise,
            "prediction",
            "be 'v' or 'x0' with a schedule that ends at zero signal-to-noise ratio",
            prediction,
        )
        self.prediction = prediction
        self.variance = variance
        self.weighting = weighting
        every_step = DDPMSampler()
        rows = every_step.rows(schedule, every_step.times(schedule))
        rows["weight"] = loss_weight(weighting, prediction, schedule)[::-1]
        # One table (T,) for each coefficient of a step, indexed by t.
        self.tables = {name: column[::-1].astype("float32") for name, column in rows.items() if name != "t"}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        self.check_batch(x, y)
        # Before the network is called, so that it is the same on every backend: JAX does not collect what a layer adds
        # by `add_loss` here.
        weight_penalty = sum(self.losses)
        x0 = ops.cast(x, "float32")
        batch = ops.shape(x0)[0]
        t = keras.random.randint((batch,), 0, self.schedule.num_steps, seed=self.seed_generator)
        eps = keras.random.normal(ops.shape(x0), dtype="float32", seed=self.seed_generator)
        row = {
            name: ops.reshape(ops.take(table, t), (-1, *[1] * (len(x0.shape) - 1)))
            for name, table in self.tables.items()
        }
        x_t = row["alpha"] * x0 + row["sigma"] * eps
        output, w = self._predict(x_t, t, y, training)
        target = {"epsilon": eps, "x0": x0, "v": row["alpha"] * eps - row["sigma"] * x0}[self.prediction]
        loss = ops.mean(row["weight"] * ops.square(target - output), axis=tuple(range(1, len(x0.shape))))
        if self.variance == "learned_range":
            x0_hat = convert_prediction(output, self.prediction, "x0", x_t, row["alpha"], row["sigma"])
            bound = bound_term(x0, ops.stop_gradient(x0_hat), w, row)
            loss = loss + BOUND_WEIGHT * self.schedule.num_steps * bound
        if sample_weight is not None:
            loss = loss * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        return ops.mean(loss) + weight_penalty

    def denoise(self, x_t: Any, row: dict[str, Any], condition: Any = None) -> tuple[Any, Any]:
        t = ops.broadcast_to(row["t"], (ops.shape(x_t)[0],))
        output, w = self._predict(x_t, t, condition, training=False)
        if self.variance == "learned_range":
            # The range is the model; only training leaves it, to keep a gradient outside.
            w = ops.clip(w, 0.0, 1.0)
        return convert_prediction(output, self.prediction, "x0", x_t, row["alpha"], row["sigma"]), w

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
        """Estimates the variational bound on minus the log-likelihood of images, in bits per dimension.

            L = KL(q(x_T | x0) || p(x_T)) + sum_t KL(q(x_s | x_t, x0) || p(x_s | x_t)) - log p(x0 | x_0)

        Every term is evaluated, each at one draw of noise: `T` network evaluations for each image.

        Args:
            x: `(n, *image_shape)`, pixel values in [-1, 1].
            condition: as for `sample`.
            levels: int >= 2, number of distinct pixel values, for the last term. Defaults to `256`.
            clip_x0: float > 0 or `None`. Bounds each prediction of x0, as in `DDPMSampler`: where the schedule ends
                in noise, the bound of an unclipped one is large. Defaults to `1.0`.
            seed: as for `sample`.
            batch_size: as for `sample`.
            verbose: as for `sample`.

        Returns:
            float32 array `(n,)`. Papers report the mean over a test set; lower is better.

        Raises:
            ValueError: if an argument does not fit the model, or pixel values are outside [-1, 1].

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

    def get_config(self) -> dict[str, Any]:
        own = {"prediction": self.prediction, "variance": self.variance, "weighting": self.weighting}
        return {**super().get_config(), **own}

    def _predict(self, x_t: Any, t: Any, condition: Any, training: bool) -> tuple[Any, Any]:
        inputs = [x_t, t] if condition is None else [x_t, t, condition]
        output = ops.cast(self.network(inputs, training=training), "float32")
        if self.variance != "learned_range":
            return output, VARIANCE_SHARES[self.variance]
        output, v = ops.split(output, 2, axis=-1)
        return output, (v + 1) / 2
