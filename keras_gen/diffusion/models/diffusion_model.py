from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import as_images, batch_of, check, check_choice, check_images_dtype, is_number
from keras_gen.diffusion.loss_weight import WEIGHTINGS, loss_weight
from keras_gen.diffusion.models.editing import ImageEditing
from keras_gen.diffusion.prediction import check_prediction, coefficients, takes_real_times
from keras_gen.diffusion.schedules.base import NoiseSchedule
from keras_gen.diffusion.schedules.discrete import DiscreteSchedule
from keras_gen.diffusion.schedules.time_samplers import TimeSampler, UniformTime
from keras_gen.networks.backbones.image_network import (
    check_network,
    fits,
    inputs_of,
    knows_null,
    null_condition,
    prepare_condition,
    takes_condition,
)


class DiffusionModel(ImageEditing):
    """Base class of diffusion models: a network, a schedule, what the network predicts, and how it is trained.

        x_t = alpha_t x0 + sigma_t eps,   loss = mean over dimensions of weight_t |p x0 + q eps - prediction|^2

    To write another: pass these choices to `super().__init__`, and list the arguments of its own in `get_config`.
    What it asks of the network is said in `denoising_network.py`, all predictions are one in `preconditioning.py`.
    """

    def __init__(
        self,
        network: keras.Layer,
        schedule: NoiseSchedule,
        prediction: str,
        weighting: str = "simple",
        time_sampler: TimeSampler | None = None,
        condition_dropout: float = 0.0,
        sigma_data: float = 0.5,
        outputs_per_channel: int = 1,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed=seed, **kwargs)
        check(isinstance(network, keras.Layer), "network", "be a keras.Layer or keras.Model", network)
        check_prediction(prediction, schedule)
        check_choice("weighting", weighting, WEIGHTINGS)
        time_sampler = UniformTime() if time_sampler is None else time_sampler
        check(isinstance(time_sampler, TimeSampler), "time_sampler", "be a TimeSampler or None", time_sampler)
        check(is_number(sigma_data) and sigma_data > 0, "sigma_data", "be > 0", repr(sigma_data))
        share = is_number(condition_dropout) and 0 <= condition_dropout < 1
        check(share, "condition_dropout", "be in [0, 1)", repr(condition_dropout))
        rule = "be 0 for a network without a null condition: one with `num_classes`, or of vectors"
        check(condition_dropout == 0 or knows_null(network), "condition_dropout", rule, condition_dropout)
        self.network = network
        self.schedule = schedule
        self.prediction = prediction
        self.weighting = weighting
        self.time_sampler = time_sampler
        self.condition_dropout = float(condition_dropout)
        self.sigma_data = float(sigma_data)
        self.outputs_per_channel = outputs_per_channel
        self.real_times = takes_real_times(prediction, schedule)
        self.image_shape: tuple[int | None, ...] | None = None
        if isinstance(schedule, DiscreteSchedule):
            known = getattr(network, "num_steps", schedule.num_steps)
            check(known >= schedule.num_steps, "network", f"know {schedule.num_steps} times", f"num_steps={known}")
        inputs = inputs_of(network)
        if inputs and None not in inputs[0].shape[1:]:
            self.build(inputs[0].shape)

    def build(self, input_shape: Any) -> None:
        image_shape = tuple(input_shape[1:])
        check(len(image_shape) > 0, "x", "have shape (batch, ...)", tuple(input_shape))
        check_network(self.network, image_shape, self.outputs_per_channel, self.real_times)
        self.image_shape = image_shape

    def call(self, x: Any) -> Any:
        # Training and sampling are the model's work; Keras calls this before `compute_loss`, so it costs nothing.
        return x

    def check_data(self, x: Any, y: Any) -> None:
        if not hasattr(x, "shape") or not hasattr(x, "dtype"):
            return  # a dataset or generator: its shapes are checked when Keras builds the model on its first batch
        self.prepare_images("x", x)
        self.prepare_condition(y, len(x), "y")

    def check_batch(self, x: Any, y: Any) -> None:
        """Refuses what can be seen of a batch while it is traced: dtypes, and whether there are labels."""
        check_images_dtype("x", x)
        takes = takes_condition(self.network)
        check(takes or y is None, "y", "be None: the network takes no condition", "a value")
        check(not takes or y is not None, "y", "be given: the network takes a condition", None)

    def prepare_condition(self, condition: Any, n: int, name: str = "condition") -> np.ndarray | None:
        """Returns the condition of `n` images as an array, or `None` for a network that takes none."""
        return prepare_condition(self.network, condition, n, name)

    def prepare_images(self, name: str, images: Any) -> np.ndarray:
        """Returns images as a float32 array, after a check of their dtype, shape and values."""
        images = as_images(name, images)
        if not self.built:
            self.build((None, *images.shape[1:]))
        expected = inputs_of(self.network)[0].shape[1:] if inputs_of(self.network) else self.image_shape
        shape = batch_of(expected)
        check(fits(expected, images.shape[1:]), name, f"have shape {shape}", f"shape {images.shape}")
        if None in self.image_shape:
            self.image_shape = images.shape[1:]
        return images

    def coefficients(self, t: Any) -> dict[str, Any]:
        """Returns what a step needs to know of the times `t`, NumPy or tensor; see `preconditioning.py`."""
        return coefficients(self.prediction, self.schedule, t, self.sigma_data)

    def times_like(self, x_t: Any, row: dict[str, Any]) -> Any:
        """Returns what the network is told of the time of a row, once for each image."""
        time = ops.cast(row["time"], "float32" if self.real_times else "int32")
        return ops.broadcast_to(ops.reshape(time, (-1,)), (ops.shape(x_t)[0],))

    def network_output(self, x_t: Any, row: dict[str, Any], condition: Any, training: bool = False) -> tuple[Any, Any]:
        """Returns the network's prediction at the time of `row` in float32, and its share of the large variance."""
        x = row["scale"] * x_t if self.prediction == "edm" else x_t
        inputs = [x, self.times_like(x_t, row)]
        if condition is not None:
            inputs.append(condition)
        return ops.cast(self.network(inputs, training=training), "float32"), 0.0

    def x0_from(self, output: Any, x_t: Any, row: dict[str, Any]) -> Any:
        """Returns x0 from the network's prediction."""
        return row["skip"] * x_t + row["out"] * output

    def denoise(self, x_t: Any, row: dict[str, Any], condition: Any = None) -> tuple[Any, Any]:
        """Returns the network's x0 at the time of `row`, and its share of the large variance."""
        output, share = self.network_output(x_t, row, condition)
        return self.x0_from(output, x_t, row), share

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        # Before the network is called, so that it is the same on every backend: JAX does not collect what a layer adds
        # by `add_loss` here.
        weight_penalty = sum(self.losses)
        self.check_batch(x, y)
        x0, eps = self.draw_pair(x)
        t = self.time_sampler.draw(ops.shape(x0)[0], self.schedule, self.seed_generator)
        if y is not None and training and self.condition_dropout > 0:
            y = self._drop(y)
        loss = self.loss_at(x0, eps, t, y, training)
        if sample_weight is not None:
            loss = loss * ops.reshape(ops.cast(sample_weight, "float32"), (-1,))
        return ops.mean(loss) + weight_penalty

    def draw_pair(self, x: Any) -> tuple[Any, Any]:
        """Returns data and the noise that each of them is mixed with."""
        x0 = ops.cast(x, "float32")
        return x0, keras.random.normal(ops.shape(x0), dtype="float32", seed=self.seed_generator)

    def loss_at(self, x0: Any, eps: Any, t: Any, y: Any, training: bool) -> Any:
        """Returns the loss of each sample at the times `t`, as `(batch,)`."""
        row = self.columns(self.coefficients(t), x0)
        x_t = row["alpha"] * x0 + row["sigma"] * eps
        output, _ = self.network_output(x_t, row, y, training)
        return self.error(x0, eps, t, row, output)

    def error(self, x0: Any, eps: Any, t: Any, row: dict[str, Any], output: Any) -> Any:
        """Returns the weighted mean square of what is missing from the target, as `(batch,)`."""
        weight = loss_weight(self.weighting, self.prediction, self.schedule, t, self.sigma_data)
        target = row["p"] * x0 + row["q"] * eps
        return weight * ops.mean(ops.square(target - output), axis=tuple(range(1, len(x0.shape))))

    def columns(self, row: dict[str, Any], x0: Any) -> dict[str, Any]:
        """Returns coefficients `(batch,)` in a shape that broadcasts to the images."""
        shape = (-1, *[1] * (len(x0.shape) - 1))
        return {name: ops.reshape(value, shape) for name, value in row.items()}

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        own = {
            "network": serialize(self.network),
            "schedule": serialize(self.schedule),
            "time_sampler": serialize(self.time_sampler),
            "sigma_data": self.sigma_data,
        }
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "DiffusionModel":
        return cls(**keras.saving.deserialize_keras_object(config, custom_objects=custom_objects))

    def _drop(self, condition: Any) -> Any:
        """Replaces a share of the conditions by the null condition."""
        drawn = keras.random.uniform((ops.shape(condition)[0],), dtype="float32", seed=self.seed_generator)
        dropped = ops.reshape(drawn < self.condition_dropout, (-1, *[1] * (len(condition.shape) - 1)))
        return ops.where(dropped, null_condition(self.network, condition), condition)
