"""The laws must also be able to fail: each check is given something that breaks it."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.testing import check_bijector, check_config, check_layer

X = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")


@keras.saving.register_keras_serializable("keras_gen_tests")
class Affine(keras.layers.Layer):
    """y = exp(a) x + b."""

    def build(self, shape):
        self.a = self.add_weight(name="a", shape=(shape[-1],))
        self.b = self.add_weight(name="b", shape=(shape[-1],))

    def log_det(self, x):
        return ops.broadcast_to(ops.sum(self.a), (x.shape[0],))

    def call(self, x, condition=None, inverse=False):
        if inverse:
            return (x - self.b) * ops.exp(-self.a), -self.log_det(x)
        return ops.exp(self.a) * x + self.b, self.log_det(x)


@keras.saving.register_keras_serializable("keras_gen_tests")
class WrongLogDet(Affine):
    def log_det(self, x):
        return super().log_det(x) + 0.1


@keras.saving.register_keras_serializable("keras_gen_tests")
class WrongInverse(Affine):
    def call(self, x, condition=None, inverse=False):
        y, log_det = super().call(x, condition, inverse)
        return (y + 0.1, log_det) if inverse else (y, log_det)


def test_check_bijector():
    check_bijector(Affine, X)
    with pytest.raises(AssertionError, match="log_det must be that of the Jacobian"):
        check_bijector(WrongLogDet, X)
    with pytest.raises(AssertionError, match="must be x"):
        check_bijector(WrongInverse, X)


@keras.saving.register_keras_serializable("keras_gen_tests")
class Noise(keras.layers.Layer):
    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), dtype=x.dtype, seed=self.seed_generator)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("keras_gen_tests")
class Forgetful(keras.layers.Layer):
    def __init__(self, units=1, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"name": self.name}


@keras.saving.register_keras_serializable("keras_gen_tests")
class Deaf(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))

    def call(self, x):
        return x * ops.stop_gradient(self.scale) + ops.sum(x * self.scale) * 0


def test_check_layer():
    check_layer(Noise, X, random=True)
    with pytest.raises(AssertionError, match="training=False must be deterministic"):
        check_layer(Noise, X)
    with pytest.raises(AssertionError, match="the same seed must give the same draw"):
        check_layer(lambda: Noise(None), X, random=True)
    with pytest.raises(AssertionError, match="a gradient must reach"):
        check_layer(Deaf, X)
    with pytest.raises((AssertionError, ValueError)):
        check_layer(lambda: Forgetful(2), X)  # its units do not survive the file


def test_check_config():
    class Changing(Noise):
        def get_config(self):
            return {**super().get_config(), "seed": self.seed + 1}

    with (
        keras.saving.custom_object_scope({"Changing": Changing}),
        pytest.raises(AssertionError, match="the configuration must survive"),
    ):
        check_config(Changing)
