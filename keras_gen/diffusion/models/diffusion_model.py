import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.arrays import broadcastable, mean_square
from keras_gen.core.checks import (
    as_images,
    batch_of,
    check,
    check_choice,
    check_given,
    check_images_dtype,
    check_integer,
    check_layer,
    check_positive,
    check_rate,
    is_array,
    known_shape,
    real_array,
)
from keras_gen.core.conditions import check_parts, map_parts, parts_of
from keras_gen.core.configured import check_configured
from keras_gen.core.generative_model import GenerativeModel
from keras_gen.core.random import starting_noise
from keras_gen.diffusion.loss_weight import WEIGHTINGS, loss_weight
from keras_gen.diffusion.models import editing, exporting
from keras_gen.diffusion.prediction import (
    SIGMA_DATA,
    Prediction,
    as_prediction,
    check_prediction,
    coefficients,
    takes_real_times,
)
from keras_gen.diffusion.samplers.base import (
    DiffusionSampler,
    check_sampler,
    frame_steps,
    prepared_condition,
    reverse_process,
)
from keras_gen.diffusion.samplers.ddpm import DDPMSampler
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule
from keras_gen.diffusion.schedules.time_samplers import Stratified, TimeSampler, UniformTime
from keras_gen.networks.backbones.image_network import (
    check_network,
    condition_of,
    fits,
    flat_condition,
    inputs_of,
    meet_condition,
    prepare_condition,
)
from keras_gen.networks.backbones.null_condition import NullCondition


class DiffusionModel(GenerativeModel):
    """Base class of diffusion models: a network, a schedule, a prediction, and a training objective.

        x_t = alpha_t x0 + sigma_t eps,   loss = mean over dimensions of weight_t |p x0 + q eps - prediction|^2

    Subclasses pass these to `super().__init__`, and return their own arguments from `get_config`. The interface of the
    network is documented in `networks/backbones/image_network.py`, that of predictions in `prediction.py`.
    """

    def __init__(
        self,
        network: keras.Layer,
        schedule: NoiseSchedule,
        prediction: str | Prediction,
        weighting: str = "simple",
        time_sampler: TimeSampler | None = None,
        condition_dropout: float = 0.0,
        sigma_data: float = SIGMA_DATA,
        outputs_per_channel: int = 1,
        seed: int | None = None,
        null_condition: Any = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        check_layer("network", network)
        check_choice("weighting", weighting, WEIGHTINGS)
        time_sampler = UniformTime() if time_sampler is None else time_sampler
        check(isinstance(time_sampler, TimeSampler), "time_sampler", "be a TimeSampler or None", time_sampler)
        check_positive("sigma_data", sigma_data)
        prediction = as_prediction(prediction, sigma_data)
        check_prediction(prediction, schedule)
        parts = {"schedule": schedule, "prediction": prediction, "time_sampler": time_sampler}
        for name, part in parts.items():
            check_configured(name, part)
        self.condition_dropout = check_rate("condition_dropout", condition_dropout)
        self.null_condition = NullCondition(network, null_condition)
        rule = "be 0 for a network without a null condition (`num_classes` for labels, or conditions that are vectors)"
        is_known = condition_dropout == 0 or self.null_condition.is_known()
        check(is_known, "condition_dropout", f"{rule}, unless `null_condition` is given", condition_dropout)
        self.network = network
        self.schedule = schedule
        self.prediction = prediction
        self.weighting = weighting
        self.time_sampler = time_sampler
        self.sigma_data = float(getattr(prediction, "sigma_data", sigma_data))
        rule = f"be that of the prediction, {self.sigma_data}, or be left out"
        check(sigma_data in (SIGMA_DATA, self.sigma_data), "sigma_data", rule, sigma_data)
        self.takes_unit_images = self.sigma_data == SIGMA_DATA  # any other value is that of data with another scale
        self.outputs_per_channel = outputs_per_channel
        self.real_times = takes_real_times(prediction, schedule)
        self.image_shape: tuple[int | None, ...] | None = None
        if isinstance(schedule, DiscreteSchedule):
            supported = getattr(network, "num_steps", schedule.num_steps)
            rule = f"support {schedule.num_steps} times"
            check(supported >= schedule.num_steps, "network", rule, f"num_steps={supported}")
        inputs = inputs_of(network)
        if inputs and None not in inputs[0].shape[1:]:
            self.build(inputs[0].shape)

    def build(self, input_shape: Any) -> None:
        image_shape = tuple(input_shape[1:])
        check(len(image_shape) > 0, "x", "have shape (batch, ...)", tuple(input_shape))
        check_network(self.network, image_shape, self.outputs_per_channel, self.real_times)
        self.null_condition.check()
        self.image_shape = image_shape

    def check_data(self, x: Any, y: Any) -> None:
        if not is_array(x):
            return  # a dataset or generator: its shapes are checked when Keras builds the model on its first batch
        self.meet(x, y)
        self.prepare_images("x", x)
        self.prepare_condition(y, len(x), "y")

    def meet(self, x: Any, y: Any) -> None:
        """Builds a network that is not functional, and not built yet, for these images and conditions."""
        meet_condition(self.network, as_images("x", x), y, self.real_times)

    def check_batch(self, x: Any, y: Any) -> None:
        """Checks a batch while it is traced: floating-point images, with the condition that the network takes."""
        check_images_dtype("x", x)
        taken = condition_of(self.network)
        check(taken is not None or y is None, "y", "be None: the network takes no condition", "a value")
        check(taken is None or y is not None, "y", "be given: the network takes a condition", None)
        if y is not None:
            check_parts("y", y, taken)
            self.null_condition.check_like("y", flat_condition(self.network, y))

    def prepare_condition(self, condition: Any, n: int, name: str = "condition") -> Any:
        """Returns the condition of `n` images: an array, a dict of arrays, or `None` for an unconditional network."""
        condition = prepare_condition(self.network, condition, n, name)
        if condition is not None:
            self.null_condition.check_like(name, condition)
        return condition

    def prepare_images(self, name: str, images: Any) -> np.ndarray:
        """Returns images as a float32 array, after checking dtype, shape and values."""
        images = as_images(name, images)
        if not self.built:
            self.build((None, *images.shape[1:]))
        built_shape = self.built_shape()
        expected = inputs_of(self.network)[0].shape[1:] if inputs_of(self.network) else built_shape
        shape = batch_of(expected)
        check(fits(expected, images.shape[1:]), name, f"have shape {shape}", f"shape {images.shape}")
        if None in built_shape:
            self.image_shape = images.shape[1:]
        return images

    def built_shape(self) -> tuple[int | None, ...]:
        """Returns the shape of one image of a built model."""
        return check_given("model", self.image_shape, "be built: call `fit` or `build` first")

    def coefficients(self, t: Any) -> dict[str, Any]:
        """Returns the model's coefficients at the times `t`, NumPy or tensor; see `prediction.py`."""
        return coefficients(self.prediction, self.schedule, t)

    def times_like(self, x_t: Any, row: dict[str, Any]) -> Any:
        """Returns the network's time input at the time of `row`, `(batch,)`."""
        time = ops.cast(row["time"], "float32" if self.real_times else "int32")
        return ops.broadcast_to(ops.reshape(time, (-1,)), (ops.shape(x_t)[0],))

    def network_output(self, x_t: Any, row: dict[str, Any], condition: Any, training: bool = False) -> tuple[Any, Any]:
        """Returns the raw prediction in float32, and the weight of the large log-variance against the small one."""
        x = row["c_in"] * x_t if "c_in" in row else x_t
        inputs = [x, self.times_like(x_t, row)]
        if condition is not None:
            inputs.append(condition)
        return ops.cast(self.network(inputs, training=training), "float32"), 0.0

    def x0_from(self, output: Any, x_t: Any, row: dict[str, Any]) -> Any:
        """Computes x0 from the network's prediction."""
        return row["c_skip"] * x_t + row["c_out"] * output

    def denoise(self, x_t: Any, row: dict[str, Any], condition: Any = None) -> tuple[Any, Any]:
        """Returns the predicted x0 at the time of `row`, and the weight of the large log-variance."""
        output, variance_weight = self.network_output(x_t, row, condition)
        return self.x0_from(output, x_t, row), variance_weight

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        x0, eps = self.draw_pair(x)
        seed = self.seed_generator if training else Stratified(self.seed_generator)
        t = self.time_sampler.draw(ops.shape(x0)[0], self.schedule, seed)
        y = y if y is None else flat_condition(self.network, y)
        if y is not None and training and self.condition_dropout > 0:
            y = self._drop(y)
        return self.loss_at(x0, eps, t, y, training)

    def draw_pair(self, x: Any) -> tuple[Any, Any]:
        """Returns the data, and one noise draw for each sample."""
        x0 = ops.cast(x, "float32")
        return x0, keras.random.normal(ops.shape(x0), dtype="float32", seed=self.seed_generator)

    def loss_at(self, x0: Any, eps: Any, t: Any, y: Any, training: bool) -> Any:
        """Returns the loss of each sample at the times `t`, as `(batch,)`."""
        row = self.columns(self.coefficients(t), x0)
        alpha, sigma, p, q = (row[name] for name in ("alpha", "sigma", "p", "q"))
        x_t = alpha * x0 + sigma * eps
        prediction, _ = self.network_output(x_t, row, y, training)
        return self.weight(t) * mean_square(p * x0 + q * eps - prediction)

    def weight(self, t: Any) -> Any:
        """Returns the weight of the prediction error at the times `t`."""
        return loss_weight(self.weighting, self.prediction, self.schedule, t, self.sigma_data)

    def columns(self, row: dict[str, Any], x0: Any) -> dict[str, Any]:
        """Reshapes coefficients `(batch,)` to broadcast to the images."""
        return {name: broadcastable(value, x0) for name, value in row.items()}

    def default_sampler(self) -> DiffusionSampler:
        """Returns the default sampler."""
        return DDPMSampler()

    def resolve(self, sampler: DiffusionSampler | None) -> DiffusionSampler:
        """Returns `sampler`, or the default sampler for `None`, after checking that it supports this model."""
        check_sampler(sampler)
        sampler = self.default_sampler() if sampler is None else sampler
        sampler.check_model(self, sampler.times(self.schedule))
        return sampler

    def check_sampling(
        self,
        n: int,
        sampler: DiffusionSampler | None = None,
        condition: Any = None,
        guidance: Guidance | None = None,
        **options: Any,
    ) -> None:
        self.resolve(sampler)
        prepared_condition(self, guidance, condition, n)

    def sample(
        self,
        n: int,
        sampler: DiffusionSampler | None = None,
        condition: Any = None,
        guidance: Guidance | None = None,
        seed: int | Sequence[int] | None = None,
        noise: Any = None,
        step_noise: Any = None,
        batch_size: int = 64,
        verbose: str | int = "auto",
    ) -> np.ndarray:
        """Generates `n` images.

        Args:
            n: int >= 1. Number of images.
            sampler: a `DiffusionSampler`. Defaults to `None`, the model's default: `DDPMSampler()` in discrete time.
                For images, samplers with `clip_x0=1.0` are more stable.
            condition: for a conditional network, an int, the label of all images, an array `(n, ...)`, or a dict of
                arrays, if that is what the network takes. Defaults to `None`.
            guidance: a `Guidance`, such as `ClassifierFreeGuidance(2.0)`. Defaults to `None`.
            seed: int, `n` integers or `None`. The starting noise of image k depends only on `seed` and k, on any
                backend and for any `batch_size`. With one seed for each image, image k is that of
                `sample(1, seed=seed[k])`. Defaults to `None`, a seed from the model's own generator.
            noise: `(n, *image_shape)`, starting noise to use instead of a standard normal draw. It is multiplied by the
                sigma of the first time if that is above 1. Defaults to `None`.
            step_noise: `(steps, n, *image_shape)`, noise to use at each step instead of draws; for a sampler with
                several draws per step `(steps, draws, n, *image_shape)`. Defaults to `None`.
            batch_size: int >= 1. Number of images processed at a time. Defaults to `64`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: if an argument is incompatible with the model, or the sampler has more steps than the schedule.
        """
        options = {
            "condition": condition,
            "guidance": guidance,
            "step_noise": step_noise,
            "batch_size": batch_size,
            "verbose": verbose,
        }
        _, path = self._generate(n, sampler, noise, seed, **options)
        return path[-1]

    def export_sampler(
        self, path: str | pathlib.Path, sampler: DiffusionSampler, guidance: Guidance | None = None
    ) -> None:
        """Writes `sample` with one sampler as a graph, to be run where neither this library nor Keras is installed.

        The graph holds the weights and all steps. Its inputs are `noise`, standard normal, `(n, *image_shape)`;
        `condition`, `(n, ...)`, of a conditional model, or for a dict one input for each part, such as
        `condition_tokens`; and, if the sampler draws, `step_noise`, as for `sample`. It returns the images that
        `sample` returns for the same noise, for any `n`.

        Args:
            path: str or path. A name without a suffix is the folder of a SavedModel (on TensorFlow, and on JAX with
                TensorFlow installed), whose function is `sample`; ".stablehlo" is a file for
                `jax.export.deserialize` (JAX); ".onnx" one for any ONNX runtime (PyTorch, where the loop is unrolled
                and may have 50 steps; TensorFlow, where it is a loop), with `pip install 'keras_gen[onnx]'`.
            sampler: the `DiffusionSampler`.
            guidance: a `Guidance`, part of the graph. Defaults to `None`.

        Raises:
            ValueError: if the backend cannot write such a file, or the sampler does not fit the model or the format.

        Example:

        >>> model.export_sampler("ddim.onnx", keras_gen.samplers.DDIMSampler(10))
        >>> onnxruntime.InferenceSession("ddim.onnx").run(None, {"noise": noise})
        """
        exporting.export_sampler(self, path, self.resolve(sampler), guidance)

    def denoising_path(
        self,
        n: int,
        frames: int = 8,
        sampler: DiffusionSampler | None = None,
        noise: Any = None,
        of: str = "x_t",
        **options: Any,
    ) -> np.ndarray:
        """Generates `n` images and returns their trajectories from noise, at `frames` evenly spaced steps.

        Args:
            n: int >= 1. Number of images.
            frames: int >= 1. Number of states after the noise, the last being the generated image. Defaults to `8`.
            sampler: as for `sample`.
            noise: as for `sample`.
            of: `"x_t"`, the states themselves, or `"x0"`, the images that the network predicts from them, as
                `predict_x0` does. Defaults to `"x_t"`.
            **options: `condition`, `guidance`, `seed`, `step_noise`, `batch_size`, `verbose`, as for `sample`.

        Returns:
            float32 array `(frames + 1, n, *image_shape)`; the first entry is that of the starting noise, the last one
            the generated images.

        Raises:
            ValueError: as for `sample`, and if there are more frames than steps.
        """
        check_integer("frames", frames)
        check_choice("of", of, ("x_t", "x0"))
        x_T, path = self._generate(n, sampler, noise, options.pop("seed", None), frames=frames, **options)
        path = np.concatenate([x_T[None], path])
        if of == "x0":
            shared = {name: options[name] for name in ("condition", "guidance", "batch_size") if name in options}
            times = self.resolve(sampler).times(self.schedule)
            stops = frame_steps(len(times) - 1, frames)
            for k, step in enumerate([0, *stops[:-1]]):
                path[k] = self.predict_x0(path[k], times[step], **shared)
        return path

    def predict_x0(
        self,
        x_t: Any,
        t: Any,
        condition: Any = None,
        guidance: Guidance | None = None,
        batch_size: int = 64,
        verbose: str | int = 0,
    ) -> np.ndarray:
        """Predicts clean images from noised ones, by one network evaluation.

            x0_hat = c_skip x_t + c_out F(c_in x_t, t),   the mean of x0 given x_t for a perfectly trained network F

        Args:
            x_t: `(n, *image_shape)`, images noised to the times `t`, as `add_noise` makes them.
            t: a time of the schedule, as for `denoise_from`, or an array of `n` times.
            condition: as for `sample`.
            guidance: as for `sample`.
            batch_size: int >= 1. Number of images processed at a time. Defaults to `64`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: if an argument is incompatible with the model, or `t` holds other values than times of the
                schedule.

        Reference: https://kexue.fm/archives/9164.
        """
        return editing.predict_x0(self, x_t, t, condition, guidance, batch_size, verbose)

    def denoise_from(self, x_t: Any, t: Any, sampler: DiffusionSampler | None = None, **options: Any) -> np.ndarray:
        """Runs the reverse process from time `t` on: first to the sampler's next time below `t`, then along its times.

        Args:
            x_t: `(n, *image_shape)`, images noised to time `t`.
            t: a time of the schedule: an int in 0 .. T - 1, or in continuous time a number from t_min to t_max.
            sampler: as for `sample`.
            **options: `condition`, `guidance`, `seed`, `step_noise` (for the remaining steps), `batch_size`, `verbose`,
                as for `sample`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: as for `sample`, and if `t` is not a time of the schedule or `x_t` is not a batch of images.
        """
        self.schedule.check_time("t", t)
        sampler = self.resolve(sampler)
        seed = self.draw_seed(options.pop("seed", None))
        x_t = self.prepare_images("x_t", x_t)
        times = sampler.times(self.schedule)
        return reverse_process(self, sampler, x_t, np.append(t, times[times < t]), seed=seed, **options)[-1]

    def add_noise(self, x0: Any, t: Any, noise: Any = None, seed: int | None = None) -> np.ndarray:
        """Adds noise to images: returns `x_t = alpha_t x0 + sigma_t eps`.

        Args:
            x0: `(n, *image_shape)`, images.
            t: a time of the schedule, as for `denoise_from`, or an array of `n` times.
            noise: `(n, *image_shape)`, eps. Defaults to `None`, a draw.
            seed: as for `sample`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: if `t` holds values other than times of the schedule, or `x0` is not a batch of images.
        """
        return editing.add_noise(self, x0, t, noise, seed)

    def interpolate(
        self, x_a: Any, x_b: Any, t0: Any, points: int = 9, noise: Any = None, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """Interpolates by noising and denoising: mixes two images, adds the noise of time `t0`, and denoises.

            x_t0 = alpha_t0 ((1 - w) x_a + w x_b) + sigma_t0 eps,   with the same eps for all w of a pair

        Args:
            x_a: `(n, *image_shape)`, images at `w = 0`.
            x_b: `(n, *image_shape)`, images at `w = 1`.
            t0: a time of the schedule; noisier times give freer results. The post uses 500 of 1000.
            points: int >= 2. Number of weights, from 0 to 1. Defaults to `9`.
            noise: `(n, *image_shape)`, eps. Defaults to `None`, a draw.
            seed: as for `sample`.
            **options: `sampler`, `condition` (one label, or `(n * points, ...)`), `guidance`, `step_noise`,
                `batch_size`, `verbose`, as for `denoise_from`.

        Returns:
            float32 array `(n, points, *image_shape)`.

        Raises:
            ValueError: as for `denoise_from`, and if `x_a` and `x_b` differ in shape or `points` is less than 2.

        Reference: https://kexue.fm/archives/9119; Ho et al. 2020, arXiv:2006.11239, section 4.3.
        """
        return editing.interpolate(self, x_a, x_b, t0, points, noise, seed, **options)

    def image_to_image(
        self,
        x: Any,
        strength: float = 0.5,
        sampler: DiffusionSampler | None = None,
        noise: Any = None,
        seed: int | None = None,
        **options: Any,
    ) -> np.ndarray:
        """Generates variations of images (SDEdit): adds noise, and removes it by the last steps of the sampler.

        Args:
            x: `(n, *image_shape)`, images.
            strength: float in (0, 1], the fraction of the sampler's steps that is used. Defaults to `0.5`.
            sampler: as for `sample`.
            noise: as for `add_noise`.
            seed: as for `sample`.
            **options: `condition`, `guidance`, `step_noise`, `batch_size`, `verbose`, as for `denoise_from`.

        Returns:
            float32 array `(n, *image_shape)`.

        Raises:
            ValueError: as for `denoise_from`, and if `strength` is outside (0, 1].

        Reference: Meng et al. 2021, arXiv:2108.01073.
        """
        return editing.image_to_image(self, x, strength, sampler, noise, seed, **options)

    def inpaint(
        self, x: Any, mask: Any, sampler: DiffusionSampler | None = None, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """Inpaints unknown pixels of images: in each step, known pixels of x0 are replaced by those of the image.

        Args:
            x: `(n, *image_shape)`, images; values of unknown pixels are ignored.
            mask: bool array that broadcasts to `x`: true for known pixels.
            sampler: as for `sample`.
            seed: as for `sample`.
            **options: `condition`, `guidance`, `step_noise`, `batch_size`, `verbose`, as for `sample`.

        Returns:
            float32 array `(n, *image_shape)`, equal to `x` at known pixels.

        Raises:
            ValueError: as for `sample`, and if `mask` does not broadcast to `x`.

        Reference: Song et al. 2020, arXiv:2011.13456, appendix I.2; Lugmayr et al. 2022, arXiv:2201.09865.
        """
        return editing.inpaint(self, x, mask, sampler, seed, **options)

    def invert(
        self, x: Any, sampler: DiffusionSampler, iterations: int = 3, seed: int | None = None, **options: Any
    ) -> np.ndarray:
        """Finds the noise from which a deterministic sampler generates the given images (DDIM inversion).

        Each step of the sampler is inverted by fixed-point iteration, so that `sample(n, sampler, noise=noise)`
        reconstructs the images up to the error of the iteration: more steps help more than more iterations. A step from
        almost zero signal, such as the first one of "trailing", amplifies errors: "leading" omits it.

        Args:
            x: `(n, *image_shape)`, images.
            sampler: a `DDIMSampler` with `eta=0`, or an `EulerSampler`.
            iterations: int >= 1, network evaluations for each step. Defaults to `3`.
            seed: unused, since nothing is drawn. Defaults to `None`.
            **options: `condition`, `guidance`, `batch_size`, `verbose`, as for `sample`.

        Returns:
            float32 array `(n, *image_shape)`, the `noise` for `sample`.

        Raises:
            ValueError: if the sampler is not supported, or an argument is incompatible with the model.

        Reference: Song et al. 2020, arXiv:2010.02502, section 4.3; https://kexue.fm/archives/9181.
        """
        return editing.invert(self, x, sampler, iterations, seed, **options)

    def _generate(
        self, n: int, sampler: DiffusionSampler | None, noise: Any, seed: Any, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        check_integer("n", n)
        sampler = self.resolve(sampler)
        seed = self.draw_seeds(seed, n)
        times = sampler.times(self.schedule)
        x_T = self.prepare_noise(n, noise, seed) * np.float32(sampler.noise_scale(self.schedule, times))
        return x_T, reverse_process(self, sampler, x_T, times, seed=seed, **options)

    def prepare_noise(self, n: int, noise: Any, seed: int | tuple[int, ...]) -> np.ndarray:
        """Returns the starting noise of `n` images, given or drawn."""
        if noise is not None:
            noise = real_array("noise", noise).astype("float32")
            check(noise.shape[:1] == (n,), "noise", f"hold {n} draws", f"shape {noise.shape}")
            return self.prepare_images("noise", noise)
        rule = "be given until the image shape is known, from `fit` or `build`"
        return starting_noise(n, known_shape(self.image_shape, "noise", rule, noise), seed)

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        own = {
            "network": serialize(self.network),
            "schedule": serialize(self.schedule),
            "time_sampler": serialize(self.time_sampler),
            "sigma_data": self.sigma_data,
            "null_condition": serialize(self.null_condition.given),
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "DiffusionModel":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

    def _drop(self, condition: Any) -> Any:
        """Replaces a fraction of the conditions by the null condition, each with all its parts."""
        rows = ops.shape(parts_of(condition)[0])[0]
        dropped = keras.random.uniform((rows,), dtype="float32", seed=self.seed_generator) < self.condition_dropout

        def replaced(part: Any, null: Any) -> Any:
            return ops.where(broadcastable(dropped, part), null, part)

        return map_parts(replaced, condition, self.null_condition.like(condition))
