"""Scalar hyperparameters scheduled by the training step."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.averages import optimizers_in
from keras_gen.core.checks import check, is_number


class Scheduled(keras.layers.Layer):
    """Scheduled scalar: `schedule(step)`, where `step` counts the updates of the weights; or a constant.

    An update takes `steps_per_update` calls with `training=True`, a number that a model sets where its optimizer
    accumulates gradients.

    The step counter is a non-trainable weight of the layer: it advances inside a compiled `fit` on every backend (a
    per-batch callback has no effect on JAX) and is saved with the model.

    Args:
        name: str. Name of the argument in error messages.
        schedule: float, or a `keras.optimizers.schedules.LearningRateSchedule`.
        lowest: float. Lower bound of the value.
        positive: bool. Whether the constant, or the schedule's initial value, must be > 0.
    """

    def __init__(self, name: str, schedule: Any, lowest: float = 0.0, positive: bool = False):
        super().__init__(name=name)
        self.scheduled = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        start = float(schedule(0)) if self.scheduled else schedule
        is_inside = is_number(start) and (start > 0 if positive else start >= 0)
        check(is_inside, name, "be > 0" if positive else "be >= 0", repr(start))
        self.schedule = schedule if self.scheduled else float(schedule)
        self.lowest = lowest
        self.steps_per_update = 1
        if self.scheduled:
            state = {"initializer": "zeros", "dtype": "int32", "trainable": False, "autocast": False}
            self.step = self.add_weight(name="step", shape=(), **state)
        self.built = True

    def call(self, training: bool = False) -> Any:
        if isinstance(self.schedule, float):
            return ops.convert_to_tensor(self.schedule, "float32")
        update = ops.convert_to_tensor(self.step) // self.steps_per_update
        value = ops.maximum(ops.cast(self.schedule(update), "float32"), self.lowest)
        if training:  # not earlier: on torch and TensorFlow, `update` is computed from the weight itself
            self.step.assign_add(1)
        return value

    def serialized(self) -> Any:
        """Returns the serialized schedule, for `get_config`."""
        return keras.saving.serialize_keras_object(self.schedule)


def steps_per_update(optimizer: Any) -> int:
    """Returns the number of training steps over which an optimizer, or one of its parts, accumulates gradients."""
    return max(getattr(part, "gradient_accumulation_steps", None) or 1 for part in optimizers_in(optimizer))
