import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_gen.core.fixtures import to_numpy
from keras_gen.ops import gradient, nearest_code, rotation_trick


def brute_force(x, codebook):
    x, codebook = np.asarray(x, "float64"), np.asarray(codebook, "float64")
    return ((x[:, None] - codebook[None]) ** 2).sum(-1).argmin(1)


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 10, 100])
def test_is_the_brute_force_in_any_chunks(chunk_size, rng):
    x, codebook = rng.normal(size=(10, 4)).astype("float32"), rng.normal(size=(7, 4)).astype("float32")
    indices = nearest_code(x, codebook, chunk_size)
    assert keras.backend.standardize_dtype(indices.dtype) == "int32"
    np.testing.assert_array_equal(to_numpy(indices), brute_force(x, codebook))


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 9), codes=st.integers(1, 6), dim=st.integers(1, 4), chunk=st.integers(1, 10), seed=st.integers(0)
)
def test_is_the_brute_force_for_any_sizes(n, codes, dim, chunk, seed):
    rng = np.random.default_rng(seed)
    x, codebook = rng.normal(size=(n, dim)).astype("float32"), rng.normal(size=(codes, dim)).astype("float32")
    np.testing.assert_array_equal(to_numpy(nearest_code(x, codebook, chunk)), brute_force(x, codebook))


def test_a_common_offset_costs_no_digits(rng):
    """|x|^2 - 2 x.e + |e|^2 in float32 would be off by 0.1 here."""
    x, codebook = rng.normal(size=(500, 8)), rng.normal(size=(64, 8))
    x, codebook = (1000 + x).astype("float32"), (1000 + codebook).astype("float32")
    np.testing.assert_array_equal(to_numpy(nearest_code(x, codebook)), brute_force(x, codebook))


def test_of_equally_near_codes_the_first_is_taken():
    np.testing.assert_array_equal(to_numpy(nearest_code(np.zeros((2, 1), "float32"), [[1.0], [-1.0], [1.0]])), [0, 0])


class Nearest(keras.layers.Layer):
    def __init__(self, codebook, chunk_size):
        super().__init__()
        self.codebook, self.chunk_size = codebook, chunk_size

    def call(self, x):
        return nearest_code(x, self.codebook, self.chunk_size)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape[:1], "int32")


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_the_batch_size_may_be_unknown_while_compiling(chunk_size, rng):
    x, codebook = rng.normal(size=(11, 4)).astype("float32"), rng.normal(size=(5, 4)).astype("float32")
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Nearest(codebook, chunk_size)(inputs))
    np.testing.assert_array_equal(model.predict(x, batch_size=4, verbose=0), brute_force(x, codebook))


def test_no_gradient_passes(rng):
    x = ops.convert_to_tensor(rng.normal(size=(3, 2)).astype("float32"))
    codebook = rng.normal(size=(4, 2)).astype("float32")
    found = gradient(lambda x: x * ops.expand_dims(ops.cast(nearest_code(x, codebook), "float32"), -1), x)
    expected = np.repeat(to_numpy(nearest_code(x, codebook))[:, None], 2, axis=1)
    np.testing.assert_allclose(to_numpy(found), expected)


@pytest.mark.parametrize(
    ("x", "codebook", "chunk_size", "match"),
    [
        (np.zeros((2, 3)), np.zeros((0, 3)), None, r"`codebook` must have shape \(num_codes >= 1, dim\)"),
        (np.zeros((2, 3)), np.zeros(3), None, r"`codebook` must have shape .* Received: codebook=shape \(3,\)"),
        (np.zeros((2, 3)), np.zeros((4, 2)), None, r"`x` must have shape \(n, 2\) to match the codes. Received"),
        (np.zeros((2, 2, 3)), np.zeros((4, 3)), None, r"`x` must have shape \(n, 3\)"),
        (np.zeros((2, 3)), np.zeros((4, 3)), 0, "`chunk_size` must be an integer >= 1. Received: chunk_size=0"),
    ],
)
def test_bad_input(x, codebook, chunk_size, match):
    with pytest.raises(ValueError, match=match):
        nearest_code(x.astype("float32"), codebook.astype("float32"), chunk_size)


def rotation(u, q):
    """The matrix of the rotation in the plane of u and q that turns u into q."""
    across = q - (q @ u) * u
    sine, cosine = np.linalg.norm(across), q @ u
    v = across / sine
    turn = sine * (np.outer(v, u) - np.outer(u, v)) + (cosine - 1) * (np.outer(u, u) + np.outer(v, v))
    return np.eye(len(u)) + turn


def test_rotation_gradient_is_the_explicit_matrix(rng):
    x, code, weight = (rng.normal(size=(5, 3)).astype("float32") for _ in range(3))
    np.testing.assert_allclose(to_numpy(rotation_trick(code, x)), code, rtol=1e-6)
    found = to_numpy(
        gradient(lambda x: rotation_trick(code, x) * ops.convert_to_tensor(weight), ops.convert_to_tensor(x))
    )
    for one_x, one_code, one_weight, one_found in zip(x, code, weight, found, strict=True):
        length, code_length = np.linalg.norm(one_x), np.linalg.norm(one_code)
        matrix = code_length / length * rotation(one_x / length, one_code / code_length)
        np.testing.assert_allclose(matrix @ one_x, one_code, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one_found, matrix.T @ one_weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rotation_is_finite_at_zero_and_at_opposites(dtype):
    x = ops.cast([[0.0, 0], [1, 0], [0, 0], [1, 0]], dtype)
    code = ops.cast([[1.0, 0], [0, 0], [0, 0], [-1, 0]], dtype)
    out = rotation_trick(code, x)
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    np.testing.assert_array_equal(to_numpy(out), to_numpy(code))
    assert np.isfinite(to_numpy(gradient(lambda x: rotation_trick(code, x), x))).all()


def test_rotation_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"`code` must have the shape of x, \(2, 4\). Received: code=shape \(2, 3\)"):
        rotation_trick(np.zeros((2, 3), "float32"), np.zeros((2, 4), "float32"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_codes_that_are_not_finite_are_refused(value):
    codebook = np.eye(4, dtype="float32")
    codebook[2, 1] = value
    with pytest.raises(ValueError, match="`codebook` must be finite. Received: codebook=1 NaN or infinite .* of 16"):
        nearest_code(np.eye(4, dtype="float32"), codebook)
    with pytest.raises(ValueError, match="`x` must be finite"):
        nearest_code(codebook, np.eye(4, dtype="float32"))


def test_no_vectors():
    assert tuple(nearest_code(ops.zeros((0, 3)), ops.ones((4, 3))).shape) == (0,)


def test_other_default_dtype():
    keras.config.set_floatx("float64")
    try:
        codes = nearest_code(np.eye(3, 2), np.eye(3, 2), chunk_size=2)
    finally:
        keras.config.set_floatx("float32")
    np.testing.assert_array_equal(to_numpy(codes), [0, 1, 2])


def test_in_a_vectorized_map(rng):
    x = ops.convert_to_tensor(rng.normal(size=(3, 10, 4)).astype("float32"))
    codebook = ops.convert_to_tensor(rng.normal(size=(5, 4)).astype("float32"))
    mapped = ops.vectorized_map(lambda rows: nearest_code(rows, codebook, chunk_size=4), x)
    np.testing.assert_array_equal(to_numpy(mapped), [to_numpy(nearest_code(rows, codebook)) for rows in x])
