"""Schedules and averages count updates of the weights, also where an optimizer accumulates gradients."""

import keras
import numpy as np
import pytest
from laws.models import gumbel_vae

from keras_gen.adversarial.optimizers import WeightAverage
from keras_gen.core.fixtures import to_numpy
from keras_gen.core.scheduled import Scheduled, steps_per_update


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 1.0 / (1.0 + keras.ops.cast(step, "float32"))


def test_a_schedule_counts_updates():
    value = Scheduled("temperature", Falling())
    value.steps_per_update = 2
    assert [float(to_numpy(value(training=True))) for _ in range(5)] == pytest.approx([1, 1, 1 / 2, 1 / 2, 1 / 3])


def test_an_average_moves_once_in_an_update():
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    layer.build((None, 1))
    average = WeightAverage([layer], momentum=0.5)
    average.steps_per_update = 2
    layer.kernel.assign([[1.0]])
    values = []
    for _ in range(4):
        average.update([layer])
        values.append(float(to_numpy(average.layers[0].kernel)[0, 0]))
    # Momentum (1 + n) / (10 + n) in update n: 0.1, then 2 / 11.
    assert values == pytest.approx([0.9, 0.9, 1 - 0.1 * 2 / 11, 1 - 0.1 * 2 / 11])


def test_the_number_of_steps_is_the_optimizers():
    accumulating = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    assert steps_per_update(accumulating) == 3
    assert steps_per_update(keras.optimizers.SGD(0.1)) == 1
    assert steps_per_update(None) == 1


def test_fit_hands_it_on():
    model = gumbel_vae()
    model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))
    model.fit(-np.ones((8, 8, 8, 1), "float32"), batch_size=4, verbose=0)
    counting = [layer for layer in model._flatten_layers() if isinstance(layer, Scheduled) and layer.scheduled]
    assert counting
    assert {layer.steps_per_update for layer in counting} == {2}
