"""The temperature of a relaxation: a positive number, or a schedule that falls in training."""

from typing import Any

from keras_gen.core.checks import check, is_number
from keras_gen.core.scheduled import Scheduled

LOWEST = 1e-3  # where a schedule stops: below it, float32 softmax of large logits loses its gradient


def check_temperature(temperature: Any) -> float:
    """Refuses a temperature that is not a number > 0; returns it as a Python float."""
    check(is_number(temperature) and temperature > 0, "temperature", "be > 0", repr(temperature))
    return float(temperature)


def scheduled_temperature(temperature: Any) -> Scheduled:
    """Returns the layer that gives the temperature of the current training step."""
    return Scheduled("temperature", temperature, LOWEST, positive=True)
