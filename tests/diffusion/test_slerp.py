import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_gen.core.fixtures import to_numpy
from keras_gen.ops import gradient, slerp

quick = settings(derandomize=True, deadline=None, max_examples=40)


def samples(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def lengths(x):
    return np.sqrt((x.astype("float64").reshape(len(x), -1) ** 2).sum(-1))


def both(a, b, w):
    """The result for arrays, after a check that tensors give the same."""
    array = slerp(a, b, w)
    tensor = slerp(ops.convert_to_tensor(a), ops.convert_to_tensor(b), w)
    assert isinstance(array, np.ndarray)
    assert ops.is_tensor(tensor)
    assert array.dtype == np.dtype("float32")
    assert keras.backend.standardize_dtype(tensor.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(tensor), array, rtol=1e-4, atol=2e-5)
    return array


@quick
@given(seed=st.integers(0, 1000), w=st.floats(0, 1), shape=st.sampled_from([(2,), (5,), (3, 2, 1)]))
def test_stays_on_the_sphere_and_moves_evenly(seed, w, shape):
    a, b = samples(np.random.default_rng(seed), 2, 4, *shape)
    a, b = (x / lengths(x).reshape(-1, *[1] * len(shape)) for x in (a, b))
    x = both(a, b, w)
    np.testing.assert_allclose(lengths(x), 1, rtol=1e-4)
    angle, part = (np.arccos(np.clip((a * y).reshape(4, -1).sum(-1), -1, 1)) for y in (b, x))
    np.testing.assert_allclose(part, w * angle, atol=2e-3)


@quick
@given(seed=st.integers(0, 1000), w=st.floats(-0.5, 1.5))
def test_the_way_back_is_the_same(seed, w):
    a, b = samples(np.random.default_rng(seed), 2, 3, 4)
    np.testing.assert_allclose(both(a, b, w), both(b, a, 1 - w), rtol=1e-4, atol=1e-4)


def test_a_quarter_of_a_circle():
    a, b = np.array([[2.0, 0.0]], "float32"), np.array([[0.0, 1.0]], "float32")
    for w in (0, 0.25, 0.5, 1, 2):
        expected = [[2 * np.cos(w * np.pi / 2), np.sin(w * np.pi / 2)]]
        np.testing.assert_allclose(both(a, b, w), expected, atol=1e-6)


def test_each_sample_has_its_own_angle_and_weight(rng):
    a, b, w = samples(rng, 5, 3, 2), samples(rng, 5, 3, 2), np.linspace(0, 1, 5)
    x = both(a, b, w)
    for i in range(5):
        np.testing.assert_allclose(x[i], slerp(a[i : i + 1], b[i : i + 1], w[i])[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x[[0, -1]], [a[0], b[-1]], rtol=1e-5, atol=1e-6)


def test_between_draws_of_noise_the_length_is_that_of_noise(rng):
    a, b = samples(rng, 8, 32, 32), samples(rng, 8, 32, 32)
    np.testing.assert_allclose(lengths(both(a, b, 0.5)), 32, rtol=0.1)
    assert (lengths((a + b) / 2) < 25).all()


@pytest.mark.parametrize("angle", [0, 1e-6, 1e-4, 0.9e-3, 1.1e-3, 1e-2])
def test_small_angles_are_a_line(angle):
    a = np.array([[1.0, 0.0]], "float32")
    b = 3 * np.array([[np.cos(angle), np.sin(angle)]], "float32")
    np.testing.assert_allclose(both(a, b, 0.3), 0.7 * a + 0.3 * b, rtol=1e-4, atol=1e-6)


def test_zeros_and_opposite_points_are_joined_by_a_line(rng):
    a = samples(rng, 3, 4)
    for b in (-a, 0 * a, 2 * a, -2 * a):
        np.testing.assert_allclose(both(a, b, 0.25), 0.75 * a + 0.25 * b, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(both(b, a, 0.25), 0.75 * b + 0.25 * a, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(both(0 * a, 0 * a, 0.5), 0)


def test_gradients_are_finite(rng):
    a = samples(rng, 4, 3)
    b = np.stack([a[0], -a[1], 0 * a[2], a[0]])
    for first, second in ((a, b), (b, a)):
        first, second = ops.convert_to_tensor(first), ops.convert_to_tensor(second)
        assert np.isfinite(to_numpy(gradient(lambda x, y=second: slerp(x, y, 0.3), first))).all()
        assert np.isfinite(to_numpy(gradient(lambda y, x=first: slerp(x, y, 0.3), second))).all()


def test_arrays_and_tensors_mix(rng):
    a, b = samples(rng, 3, 2), samples(rng, 3, 2)
    for pair in ((a, ops.convert_to_tensor(b)), (ops.convert_to_tensor(a), b)):
        mixed = slerp(*pair, ops.convert_to_tensor(0.5))
        assert ops.is_tensor(mixed)
        np.testing.assert_allclose(to_numpy(mixed), slerp(a, b, 0.5), rtol=1e-5, atol=1e-6)
    halves = slerp(a.astype("float16"), b.astype("float16"), 0.5)
    np.testing.assert_allclose(halves, slerp(a, b, 0.5), atol=1e-2)


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        (((2, 3), (3, 3), ()), r"`b` must have the shape \(n, ...\) of a, \(2, 3\). Received: b=\(3, 3\)"),
        (((), (), ()), r"`b` must have the shape"),
        (((2, 3), (2, 3), (3,)), r"`w` must be a number or have shape \(2,\). Received: w=shape \(3,\)"),
        (((2, 3), (2, 3), (2, 1)), r"`w` must be a number or have shape \(2,\)"),
    ],
)
def test_bad_input(shapes, match):
    a, b, w = (np.ones(shape, "float32") for shape in shapes)
    with pytest.raises(ValueError, match=match):
        slerp(a, b, w)
    with pytest.raises(ValueError, match=match):
        slerp(ops.convert_to_tensor(a), ops.convert_to_tensor(b), w)
