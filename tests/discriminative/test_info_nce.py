import keras
import numpy as np
import pytest
from keras import ops
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import to_numpy
from keras_gen.losses import InfoNCE
from keras_gen.ops import gradient

N, TEMPERATURE = 7, 0.7
A, B = np.random.default_rng(0).normal(size=(2, N, 3)).astype("float32")
IDENTITY = np.array([0, 1, 2, 1, 3, 0, 1], "int32")
PRESENT = np.array([True, True, False, True, True, True, False])


def dense(a, b, identity, present):
    """The definition, with the whole matrix, in float64."""
    s = a.astype("float64") @ b.T / TEMPERATURE
    same = (identity[:, None] == identity) & ~np.eye(N, dtype="bool")
    s = np.where(same | ~(present[:, None] & present), -np.inf, s)[np.ix_(present, present)]
    log_sums = [np.log(np.exp(s).sum(axis)) for axis in (0, 1)]
    return np.mean(np.mean(log_sums, axis=0) - np.diag(s))


def slope(function, x, step=1e-5):
    """Central differences, in float64."""
    x, result = x.astype("float64"), np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += step
        down[place] -= step
        result[place] = (function(up) - function(down)) / (2 * step)
    return result


def loss_and_slopes(loss, *masks):
    def evaluate(a, b):
        slopes = gradient(lambda a: loss(a, b, *masks), a), gradient(lambda b: loss(a, b, *masks), b)
        return loss(a, b, *masks), *slopes

    return evaluate


@pytest.mark.parametrize("chunk_size", [None, 3, 1])
@pytest.mark.parametrize("masks", [(np.arange(N), np.ones(N, "bool")), (IDENTITY, PRESENT)], ids=["", "masks"])
def test_the_definition_and_its_gradient(chunk_size, masks):
    given = () if masks[1].all() else masks
    evaluate = loss_and_slopes(InfoNCE(TEMPERATURE, chunk_size), *given)
    value, *slopes = (to_numpy(x) for x in one_program(None, evaluate)(*map(ops.convert_to_tensor, (A, B))))
    assert value.shape == ()
    np.testing.assert_allclose(value, dense(A, B, *masks), rtol=1e-6)
    np.testing.assert_allclose(slopes[0], slope(lambda a: dense(a, B, *masks), A), atol=1e-6)
    np.testing.assert_allclose(slopes[1], slope(lambda b: dense(A, b, *masks), B), atol=1e-6)


def test_edges_have_the_values_and_slopes_of_their_limits():
    """(a, b, identity, present) -> the loss; the slopes are 0 in the first four, and finite in the last."""
    zeros, ones = np.zeros((N, 3), "float32"), np.ones((N, 3), "float32")
    everyone, nobody = np.ones(N, "bool"), np.zeros(N, "bool")
    cases = {
        "equal scores": (zeros, zeros, np.arange(N, dtype="int32"), everyone, np.log(N)),
        "all of one identity": (A, B, np.zeros(N, "int32"), everyone, 0),
        "no pair is there": (A, B, IDENTITY, nobody, 0),
        "one pair is there": (A, B, IDENTITY, np.arange(N) == 2, 0),
        "scores of 3e6": (1e3 * ones, 1e3 * ones, np.arange(N, dtype="int32"), everyone, np.log(N)),
    }
    loss = InfoNCE(1.0)
    evaluate = one_program(None, lambda a, b, identity, present: loss_and_slopes(loss, identity, present)(a, b))
    for name, (*arrays, expected) in cases.items():
        value, *slopes = (to_numpy(x) for x in evaluate(*map(ops.convert_to_tensor, arrays)))
        assert abs(value - expected) < (0.5 if "3e6" in name else 1e-6), name  # 3e6 has a rounding error of 0.25
        assert np.isfinite(slopes).all(), name
        assert "3e6" in name or np.abs(slopes).max() < 1e-6, name


def test_identities_of_64_bits_are_told_apart():
    """By all of their bits, of which JAX keeps half; as hashes and numbers of pictures have them."""
    loss, hashes = InfoNCE(TEMPERATURE), IDENTITY.astype("int64") * 2**32 + 5
    kinds = hashes, hashes.astype("uint64"), hashes.tolist()
    losses = one_program(None, lambda a, b: ops.stack([loss(a, b, kind, PRESENT) for kind in kinds]))
    expected = dense(A, B, IDENTITY, PRESENT)
    np.testing.assert_allclose(to_numpy(losses(*map(ops.convert_to_tensor, (A, B)))), expected, rtol=1e-6)


def test_it_bounds_the_mutual_information_of_a_gaussian_pair():
    """By the best scores, log p(y | x) / p(y), which are an inner product of (x^2, x, 1) and (1, y, y^2)."""
    rho, batch = 0.8, 256
    information = -np.log(1 - rho**2) / 2  # 0.51 nats
    rng = np.random.default_rng(0)
    loss, found = one_program(None, InfoNCE(1.0)), []
    for _ in range(20):
        x, noise = rng.normal(size=(2, batch))
        y = rho * x + np.sqrt(1 - rho**2) * noise
        c, one = 1 / (1 - rho**2), np.ones(batch)
        a = np.stack([-(rho**2) * c / 2 * x**2, rho * c * x, one], axis=1).astype("float32")
        b = np.stack([one, y, -(rho**2) * c / 2 * y**2], axis=1).astype("float32")
        found.append(np.log(batch) - float(to_numpy(loss(ops.convert_to_tensor(a), ops.convert_to_tensor(b)))))
    error = np.std(found) / np.sqrt(len(found))
    assert np.mean(found) < information + 4 * error
    assert np.mean(found) > information - 0.02 - 4 * error  # tight, where log B is far above
    assert error < 0.02


def test_no_matrix_of_all_scores():
    """Counted on PyTorch, which shows every tensor that it makes; the code is that of all backends."""
    if keras.backend.backend() != "torch":
        pytest.skip("PyTorch shows what it makes")
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        cells = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            tensors = [x for x in keras.tree.flatten(result) if isinstance(x, torch.Tensor)]
            self.cells = max([self.cells, *(x.numel() for x in tensors)])
            return result

    n = 256
    a = torch.ones((n, 4), requires_grad=True)
    for chunk_size, cells in {None: n * n, 16: 16 * n}.items():
        with Largest() as largest:
            InfoNCE(1.0, chunk_size)(a, 2 * a).backward()
        assert largest.cells == cells


def test_it_trains_in_fit_with_a_last_batch_of_another_size():
    """Two noisy views of three features, one of which is shared: the encoder is to find it."""
    rng = np.random.default_rng(0)
    shared = np.repeat(rng.normal(size=(30, 1, 1)), 2, axis=1)
    views = np.concatenate([shared, rng.normal(size=(30, 2, 2))], axis=2).astype("float32")
    in_chunks, at_once = InfoNCE(0.5, chunk_size=4), InfoNCE(0.5)  # TensorFlow traces both for any batch size
    model = keras.Sequential([keras.Input((2, 3)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(keras.optimizers.SGD(0.05), lambda _, z: in_chunks(z[:, 0], z[:, 1]) + at_once(z[:, 0], z[:, 1]))
    model.fit(views, np.zeros((30, 2, 1)), batch_size=7, epochs=6, shuffle=False, verbose=0)
    weights = np.abs(model.get_weights()[0][:, 0])
    assert weights[0] > 3 * weights[1:].max()


def test_bad_input_is_refused():
    loss, no_pairs = InfoNCE(1.0), np.zeros((0, 3), "float32")
    offenders = not_refused(
        [
            *(
                (f"temperature {bad}", lambda bad=bad: InfoNCE(bad), "`temperature` must be > 0 and finite. Received")
                for bad in (0, -1.0, float("nan"), float("inf"), "1", None)
            ),
            ("chunk_size", lambda: InfoNCE(1.0, 0), "`chunk_size` must be an integer >= 1. Received"),
            (
                "no pairs",
                lambda: loss(no_pairs, no_pairs),
                "`a` must have shape .batch >= 1, .*Received: a=shape .0, 3",
            ),
            ("no features", lambda: loss(A[:, :0], B[:, :0]), "`a` must have shape"),
            ("rank", lambda: loss(A[0], B[0]), "`a` must have shape"),
            ("another batch", lambda: loss(A, B[:3]), "`b` must have the shape of a, .7, 3.. Received: b=shape .3, 3"),
            ("other features", lambda: loss(A, B[:, :2]), "`b` must have the shape of a"),
            ("NaN", lambda: loss(A * np.float32("nan"), B), "`a` must be finite"),
            ("strings", lambda: loss(A, B.astype("str")), "`b` must be real numbers"),
            ("identity of floats", lambda: loss(A, B, IDENTITY / 2), "`identity` must be int of shape .7,"),
            ("identities of few", lambda: loss(A, B, IDENTITY[:3]), "`identity` must be int of shape .7,"),
            ("present by numbers", lambda: loss(A, B, None, 1.0 * PRESENT), "`present` must be bool of shape .7,"),
            ("present for few", lambda: loss(A, B, None, PRESENT[:3]), "`present` must be bool of shape .7,"),
        ]
    )
    assert not offenders, "\n".join(offenders)
