"""A number of a model that changes with the number of its training steps."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, is_number


class Scheduled(keras.layers.Layer):
    """Gives `schedule(step)`, where `step` counts the calls with `training=True`; or a constant.

    The layer counts by a weight of its own, so that the count advances inside a compiled `fit` on every backend (where
    a callback for each batch does nothing on JAX) and is in the model's file.

    Args:
        name: str. What the argument is called, for errors.
        schedule: float, or a `keras.optimizers.schedules.LearningRateSchedule`.
        lowest: float. The value is kept >= this.
        positive: bool. Whether a constant or the schedule's start may not be 0.
    """

    def __init__(self, name: str, schedule: Any, lowest: float = 0.0, positive: bool = False):
        super().__init__(name=name)
        self.scheduled = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        start = float(schedule(0)) if self.scheduled else schedule
        valid = is_number(start) and (start > 0 if positive else start >= 0)
        check(valid, name, "be > 0" if positive else "be >= 0", repr(start))
        self.schedule = schedule if self.scheduled else float(schedule)
        self.lowest = lowest
        if self.scheduled:
            state = {"initializer": "zeros", "dtype": "int32", "trainable": False, "autocast": False}
            self.step = self.add_weight(name="step", shape=(), **state)
        self.built = True

    def call(self, training: bool = False) -> Any:
        if not self.scheduled:
            return ops.convert_to_tensor(self.schedule, "float32")
        value = ops.maximum(ops.cast(self.schedule(ops.convert_to_tensor(self.step)), "float32"), self.lowest)
        if training:  # not before: on torch and TensorFlow, the tensor is the weight itself, and would change too
            self.step.assign_add(1)
        return value

    def serialized(self) -> Any:
        """Returns the schedule as a part of a configuration."""
        return keras.saving.serialize_keras_object(self.schedule)
