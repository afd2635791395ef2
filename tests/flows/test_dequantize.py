import keras
import numpy as np
import pytest
from bijecting import levels_of, randomized, run

from keras_gen.layers import (
    AffineCoupling,
    Chain,
    Dequantize,
    MultiScale,
    Scale,
)

Dense = keras.layers.Dense


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (
            levels_of([[0, 17]], 17),
            r"`x` must be images in \[-1, 1\] of 17 levels. Received: x=values from -1 to 1.125",
        ),
        (levels_of([[0, 3.5]], 17), "`x` must be images .* Received: x=values between the levels"),
        (np.array([[0.0, 255.0]]), r"`x` must be images in \[-1, 1\]"),
    ],
)
def test_data_off_the_levels_are_refused(data, match):
    Dequantize(17).check_data("x", levels_of([[0, 5, 16]], 17))
    for bijector in (Dequantize(17), Chain([Dequantize(17), Scale()]), MultiScale([Dequantize(17)])):
        with pytest.raises(ValueError, match=match):
            bijector.check_data("x", data)


@pytest.mark.parametrize("levels", [2, 17, 256, 2**20])
def test_uniform_dequantization_spreads_within_the_level(levels, rng):
    k = rng.integers(0, levels, (50, 6))
    layer = Dequantize(levels, seed=0)
    x = levels_of(k, levels)
    y, log_det = run(layer, x)
    np.testing.assert_allclose(log_det, np.full(50, -6 * np.log(levels)), rtol=1e-6)
    u = y.astype("float64") * levels - k
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size) + levels * 1e-7
    back, inverse_log_det = run(layer, y, inverse=True)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_array_equal(np.round((back + 1) / 2 * (levels - 1)), k)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-6)
    assert np.abs(run(layer, x)[0] - y).max() > 0.1 / levels  # drawn anew


@pytest.mark.parametrize(("levels", "tolerance"), [(17, 1e-4), (256, 2e-2)])
def test_learned_dequantization_comes_back(levels, tolerance, rng):
    k = rng.integers(0, levels, (8, 4, 4, 1))
    x = levels_of(k, levels)
    layer = randomized(Dequantize(levels, AffineCoupling(units=[4], split="checkerboard"), seed=0), x)
    y, log_det = run(layer, x)
    back, inverse_log_det = run(layer, y, inverse=True)
    np.testing.assert_array_equal(np.round((back + 1) / 2 * (levels - 1)), k)
    np.testing.assert_allclose(back, x, atol=1e-6)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=tolerance, atol=tolerance)
    assert np.std(log_det) > 0.1


def test_learned_dequantization_is_a_density_of_the_noise():
    """The inverse's log_det is that density on the cell of a level: it integrates to 1."""
    layer = randomized(Dequantize(17, AffineCoupling(units=[4]), seed=0), levels_of([[7, 7]], 17), 0.5)
    u = (np.arange(500) + 0.5) / 500
    y = (7 + np.stack(np.meshgrid(u, u), -1).reshape(-1, 2)) / 17
    density = np.exp(run(layer, y.astype("float32"), inverse=True)[1].astype("float64"))
    assert density.std() > 0.1 * density.mean()
    assert density.mean() / 17**2 == pytest.approx(1, abs=2e-3)
