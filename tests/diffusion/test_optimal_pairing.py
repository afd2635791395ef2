import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from scipy.optimize import linear_sum_assignment

from keras_gen.core.compiled import compiled
from keras_gen.core.fixtures import to_numpy
from keras_gen.diffusion import transport as module
from keras_gen.ops import gradient, optimal_pairing

PROGRAM = compiled(None, optimal_pairing)


def pairing_of(cost, program=PROGRAM):
    pairing = to_numpy(program(ops.convert_to_tensor(np.asarray(cost, "float32"))))
    assert pairing.dtype == np.dtype("int32")
    np.testing.assert_array_equal(np.sort(pairing), np.arange(len(cost)))
    return pairing


def excess(cost, pairing):
    """How far a pairing is above the best one, as a share of the best total of `cost - min(cost)`."""
    cost = np.asarray(cost, "float64")
    cost = cost - cost.min()
    best = cost[linear_sum_assignment(cost)].sum()
    return (cost[np.arange(len(cost)), pairing].sum() - best) / max(best, 1e-3)


def squared_distances(a, b):
    return ((a[:, None] - b[None]) ** 2).sum(-1)


def gaussian(n, dim, rng):
    return squared_distances(rng.normal(size=(n, dim)), rng.normal(size=(n, dim)))


@pytest.mark.parametrize("dim", [2, 64])
@pytest.mark.parametrize("n", [5, 16, 40, 128])
def test_gaussian_points(n, dim, rng):
    cost = gaussian(n, dim, rng)
    assert excess(cost, pairing_of(cost)) < 0.01


def make(name, n, rng):
    match name:
        case "uniform":
            return rng.uniform(size=(n, n))
        case "negative":
            return -gaussian(n, 2, rng)
        case "offset":
            return 1e4 + gaussian(n, 2, rng)
        case "concentrated":
            return squared_distances(rng.normal(size=(n, 2)), 1 + 0.1 * rng.normal(size=(n, 2)))
        case "heavy tails":
            return np.abs(rng.standard_t(1, size=(n, n)))
        case "ties":
            return rng.integers(0, 4, (n, n))
        case "duplicates":
            a, b = (rng.normal(size=(n // 4, 2)) for _ in range(2))
            return squared_distances(np.repeat(a, 4, axis=0), np.repeat(b, 4, axis=0))
        case "the same points":
            x = rng.normal(size=(n, 4))
            return squared_distances(x, x[rng.permutation(n)])
        case "constant":
            return np.full((n, n), 3.0)
        case "zero":
            return np.zeros((n, n))
        case "rows and columns alone":
            return np.add.outer(rng.normal(size=n), rng.normal(size=n))


CASES = (
    *("uniform", "negative", "offset", "concentrated", "heavy tails", "ties", "duplicates", "the same points"),
    *("constant", "zero", "rows and columns alone"),
)


@pytest.mark.parametrize("name", CASES)
def test_other_costs(name, rng):
    cost = make(name, 40, rng)
    assert excess(cost, pairing_of(cost)) < 0.01


def test_few_rows():
    np.testing.assert_array_equal(pairing_of([[2.0]]), [0])
    np.testing.assert_array_equal(pairing_of([[1.0, 2.0], [1.0, 3.0]]), [1, 0])
    np.testing.assert_array_equal(pairing_of([[1.0, 3.0], [1.0, 2.0]]), [0, 1])
    # The cheapest entry, 0, would cost 0 + 10 + 4.
    np.testing.assert_array_equal(pairing_of([[0.0, 1.0, 9.0], [2.0, 10.0, 9.0], [9.0, 9.0, 4.0]]), [1, 0, 2])


def test_where_noise_and_data_are_the_same_points_each_finds_itself(rng):
    x, order = rng.normal(size=(40, 3)), rng.permutation(40)
    np.testing.assert_array_equal(order[pairing_of(squared_distances(x, x[order]))], np.arange(40))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(n=st.sampled_from([1, 2, 3, 7]), integers=st.booleans(), scale=st.integers(-6, 6), seed=st.integers(0, 10**6))
def test_any_small_matrix(n, integers, scale, seed):
    rng = np.random.default_rng(seed)
    cost = rng.integers(-3, 4, (n, n)).astype("float64") if integers else rng.normal(size=(n, n))
    assert excess(cost, pairing_of(cost * 10.0**scale)) < 0.01


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_paired_all_the_same(value, rng):
    """In a tensor, which may be one of a training step; an array is refused."""
    cost = rng.normal(size=(5, 5)).astype("float32")
    cost[1, 2] = value
    for costs in (cost, np.full((5, 5), value, "float32")):
        assert sorted(to_numpy(optimal_pairing(ops.convert_to_tensor(costs)))) == list(range(5))
        with pytest.raises(ValueError, match="`cost` must be finite. Received: cost=.* NaN or infinite values of 25"):
            optimal_pairing(costs)


def test_an_auction_that_is_broken_off_gives_a_permutation(rng, monkeypatch):
    monkeypatch.setattr(module, "ROUNDS", 1)
    cost = gaussian(40, 2, rng)
    assert excess(cost, pairing_of(cost, compiled(None, optimal_pairing))) < excess(cost, np.arange(40))


def test_no_gradient_passes(rng):
    cost = ops.convert_to_tensor(rng.normal(size=(4, 4)).astype("float32"))
    slope = gradient(lambda cost: ops.cast(optimal_pairing(cost), "float32") + 0 * cost, cost)
    np.testing.assert_array_equal(to_numpy(slope), 0)


class Paired(keras.Model):
    """Learns the constant between data and the noise paired with them."""

    def __init__(self):
        super().__init__()
        self.shift = self.add_weight(shape=(2,), initializer="zeros")

    def call(self, x):
        return ops.add(x[0], self.shift)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        noise, data = x
        cost = ops.sum(ops.square(noise[:, None] - data[None]), axis=-1)
        return ops.mean(ops.square(ops.take(data, optimal_pairing(cost), axis=0) - y_pred))


@pytest.mark.parametrize("jit_compile", [False, "auto"] if keras.backend.backend() == "tensorflow" else ["auto"])
def test_in_a_training_step_of_any_batch_size(jit_compile, rng):
    noise, data = rng.normal(size=(50, 2)).astype("float32"), rng.normal(size=(50, 2)).astype("float32") + 3
    model = Paired()
    model.compile(keras.optimizers.SGD(0.25), jit_compile=jit_compile)
    model.fit((noise, data), batch_size=20, epochs=4, shuffle=False, verbose=0)  # the last batch has 10
    np.testing.assert_allclose(to_numpy(model.shift), 3, atol=0.7)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 0), (2, 2, 2)])
def test_bad_input(shape):
    with pytest.raises(ValueError, match=r"`cost` must be a square matrix \(n, n\), n >= 1. Received: cost=shape"):
        optimal_pairing(np.zeros(shape, "float32"))
