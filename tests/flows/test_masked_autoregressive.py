import keras
import numpy as np
import pytest
from bijecting import randomized, run, vectors
from keras import ops

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.layers import (
    MaskedAutoregressive,
    MaskedDense,
)

Dense = keras.layers.Dense


def jacobian(bijector, x):
    """Rows: outputs. Of the first sample."""
    columns = []
    for i in range(x.shape[1]):
        direction = np.zeros_like(x)
        direction[:, i] = 1
        x_tensor, direction = ops.convert_to_tensor(x), ops.convert_to_tensor(direction)
        columns.append(to_numpy(ops.jvp(lambda x: bijector(x)[0], (x_tensor,), (direction,))[1])[0])
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("units", [[3], [8, 8], [2, 16]])
def test_maf_is_triangular(units):
    x = vectors(1, 5)
    maf = randomized(MaskedAutoregressive(units, "tanh"), x, 1.0)
    slopes = jacobian(maf, x)
    np.testing.assert_array_equal(np.triu(slopes, 1), 0)
    assert (np.diag(slopes) > 0).all()
    if len(units) == 2 and min(units) >= 8:
        assert (np.abs(slopes[np.tril_indices(5)]) > 1e-6).all()  # each sees all before it


def test_maf_needs_no_more_passes_than_features():
    """The inverse of the last feature is right only after all the others."""
    x = vectors(3, 6)
    maf = randomized(MaskedAutoregressive([16, 16]), x, 1.0)
    y, _ = run(maf, x)
    np.testing.assert_allclose(run(maf, y, inverse=True)[0], x, rtol=1e-3, atol=1e-3)


def test_a_single_feature_is_scaled_and_shifted_by_functions_of_the_condition():
    x, condition = np.linspace(-2, 2, 8, dtype="float32")[:, None], np.repeat(vectors(2, 3), 4, axis=0)
    maf = MaskedAutoregressive([8])
    maf(x, condition)
    randomize_weights(maf, scale=1.0)
    y, log_det = run(maf, x, condition=condition)
    slopes = np.diff(y.reshape(2, 4)) / np.diff(x.reshape(2, 4))
    np.testing.assert_allclose(slopes, np.exp(log_det.reshape(2, 4)[:, 1:]), rtol=1e-4)
    np.testing.assert_allclose(np.diff(slopes), 0, atol=1e-4)
    assert abs(slopes[0, 0] - slopes[1, 0]) > 1e-3


@pytest.mark.parametrize("strict", [False, True])
def test_masks_are_those_of_made(strict, rng):
    inputs, outputs = rng.integers(1, 5, 6), rng.integers(1, 5, 7)
    layer = MaskedDense(inputs, outputs, strict=strict)
    kernel = run_layer(layer, np.eye(6, dtype="float32"))
    full = to_numpy(layer.kernel)
    for i in range(6):
        for j in range(7):
            seen = outputs[j] > inputs[i] if strict else outputs[j] >= inputs[i]
            assert kernel[i, j] == (full[i, j] if seen else 0)


def run_layer(layer, x):
    return to_numpy(layer(ops.convert_to_tensor(x)))
