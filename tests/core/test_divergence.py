import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.calculus.divergence import exact_divergence, hutchinson_divergence, random_signs
from keras_gen.core.fixtures import to_numpy


def field(x, scale, condition):
    """f_k = scale x_k^3 + x_{k+1}, whose divergence is 3 scale sum_k x_k^2."""
    assert condition is None or condition.shape[0] == x.shape[0]
    scale = ops.reshape(scale, (-1, *[1] * (len(x.shape) - 1)))
    y = scale * x**3 + ops.roll(x, 1, axis=-1)
    return y if condition is None else y + condition


@pytest.mark.parametrize("with_condition", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, 2, 3)])
def test_of_a_cubic_field(shape, with_condition, rng):
    x, scale = rng.normal(size=(4, *shape)).astype("float32"), np.arange(4, dtype="float32")
    condition = rng.normal(size=(4, *shape)).astype("float32") if with_condition else None
    x, scale, condition = (None if v is None else ops.convert_to_tensor(v) for v in (x, scale, condition))
    values, divergence = (to_numpy(part) for part in exact_divergence(field, x, scale, condition))
    np.testing.assert_allclose(values, to_numpy(field(x, scale, condition)), rtol=1e-5, atol=1e-6)
    expected = 3 * to_numpy(scale) * (to_numpy(x).reshape(4, -1) ** 2).sum(-1)
    np.testing.assert_allclose(divergence, expected, rtol=1e-5, atol=1e-5)
    assert hutchinson_divergence(field, x, random_signs(x, 0), scale, condition)[1].shape == (4,)


def test_the_estimate_is_right_on_average(rng):
    matrix = ops.convert_to_tensor(rng.normal(size=(3, 3)).astype("float32"))
    x = ops.zeros((4000, 3))
    signs = random_signs(x, keras.random.SeedGenerator(0))
    assert set(np.unique(to_numpy(signs))) == {-1.0, 1.0}
    estimates = to_numpy(hutchinson_divergence(lambda x: ops.matmul(x, matrix), x, signs)[1])
    assert np.abs(estimates.mean() - np.trace(to_numpy(matrix))) < 5 * estimates.std() / np.sqrt(4000)
