import math

import keras
import numpy as np
from keras import ops
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import to_numpy
from keras_gen.discriminative.expected_error import _log_phi
from keras_gen.losses import ExpectedError
from keras_gen.ops import gradient

LOSS = ExpectedError(reduction=None)
LOGITS = np.array([[1, 0, -np.inf], [1, 0, 0], [2, 1, 0], [2, 1, 0], [2, 1, 0], [0, 0, 0]], "float32")
LABELS = np.array([0, 0, 0, 1, 2, 1])
ACCURACY = np.array([0.7602499, 0.6337020, 0.7287510, 0.2240983, 0.0471507, 1 / 3])


def normal_cdf(x):
    return 0.5 * np.vectorize(math.erfc)(-x / math.sqrt(2))


def gumbel_cdf(x):
    return np.exp(-np.exp(-x))


def accuracy(logits, y, cdf):
    """P(s_y + e_y is the largest) by the trapezoidal rule, for independent noise e of any distribution function."""
    t = np.linspace(-9, 30, 20_001)
    others = np.prod([cdf(t + logits[y] - s) for i, s in enumerate(logits) if i != y], axis=0)
    middle = 0.5 * (others[1:] + others[:-1])
    return float((middle * np.diff(cdf(t))).sum())


PROGRAM = one_program(None, lambda y, s: (LOSS(y, s), gradient(lambda s: LOSS(y, s), s)))


def both(y, s):
    """The loss and its derivative with respect to the logits."""
    return map(to_numpy, PROGRAM(ops.convert_to_tensor(y, "float32"), ops.convert_to_tensor(s, "float32")))


def test_values():
    loss, derivative = both(LABELS, LOGITS)
    np.testing.assert_allclose(1 - loss, ACCURACY, atol=3e-7)
    np.testing.assert_allclose(derivative[2], [-0.2473438, 0.1954554, 0.0518884], atol=1e-6)
    halved = ExpectedError(0.5, reduction=None)
    np.testing.assert_allclose(to_numpy(halved(LABELS, LOGITS)), next(both(LABELS, 2 * LOGITS)), atol=1e-7)
    np.testing.assert_allclose(1 - to_numpy(halved(LABELS, LOGITS))[2], 0.9203366, atol=3e-7)
    np.testing.assert_allclose(float(LOSS([7], np.zeros((1, 1000)))[0]), 1 - 1 / 1000, atol=2e-6)


def test_under_gumbel_noise_the_same_integral_is_the_softmax():
    """The oracle is right for Gumbel noise, in closed form; for normal noise it gives the loss."""
    logits, labels = np.array([[0.3, -1.2, 2.0]] * 3 + [[0.0, 4.1, -3.4]] * 3), np.array([0, 1, 2] * 2)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    pairs = list(zip(logits, labels, strict=True))
    np.testing.assert_allclose([accuracy(*p, gumbel_cdf) for p in pairs], softmax[range(6), labels], atol=1e-6)
    loss, derivative = both(labels, logits)
    np.testing.assert_allclose(loss, [1 - accuracy(*p, normal_cdf) for p in pairs], atol=1e-6)
    np.testing.assert_allclose(loss.reshape(2, 3).sum(axis=-1), 2, atol=1e-6)
    rise = [accuracy(s + [1e-4, 0, 0], y, normal_cdf) - accuracy(s - [1e-4, 0, 0], y, normal_cdf) for s, y in pairs]
    np.testing.assert_allclose(derivative[:, 0], np.array(rise) / -2e-4, atol=2e-6)
    np.testing.assert_allclose(derivative.sum(axis=-1), 0, atol=1e-6)


def test_labels_in_every_form():
    expected = to_numpy(LOSS(LABELS, LOGITS))
    one_hot = np.eye(3)[LABELS]
    forms = [LABELS[:, None], LABELS.astype("float32"), LABELS.astype("uint8"), LABELS.tolist(), one_hot, one_hot > 0]
    for labels in forms:
        np.testing.assert_array_equal(to_numpy(LOSS(labels, LOGITS)), expected)
    sequences = LOSS(LABELS.reshape(2, 3), LOGITS.reshape(2, 3, 3))
    np.testing.assert_array_equal(to_numpy(sequences), expected.reshape(2, 3))


def test_the_edges_have_finite_gradients():
    inf, far = np.inf, 1e30
    s = np.array([[far, -far, 0], [-far, far, 0], [-inf, 3, -inf], [-inf] * 3, [-40, 0, 0], [50, 0, -inf]], "float32")
    loss, derivative = both([0] * 6, s)
    np.testing.assert_allclose(loss, [0, 1, 1, 2 / 3, 1, 0], atol=1e-6)
    assert np.isfinite(derivative).all()


def test_the_tails_of_the_distribution_function():
    x = np.array([-1000, -37, -12, -5, -2.5, -1, -1e-3, 0, 1e-3, 0.7, 3, 5], "float32")
    exact = [math.log(math.erfc(-v / math.sqrt(2)) / 2) if v > -38 else -500_007.8266873 for v in x.astype("float64")]
    run = one_program(None, lambda x: (_log_phi(x), gradient(_log_phi, x)))
    log_phi, derivative = map(to_numpy, run(ops.convert_to_tensor(x)))
    np.testing.assert_allclose(log_phi, exact, rtol=2e-6, atol=1e-12)
    hazard = [math.exp(-v * v / 2 - e) / math.sqrt(2 * math.pi) for v, e in zip(x[1:], exact[1:], strict=True)]
    np.testing.assert_allclose(derivative[1:], hazard, rtol=1e-4, atol=1e-9)


def test_a_compiled_model_learns(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, use_bias=False, kernel_initializer="zeros")])
    x, y, losses = np.eye(3, dtype="float32")[[0, 1, 2] * 8], np.array([1, 2, 0] * 8), []
    for labels in (y, y[:, None], np.eye(3)[y]):
        model.compile(keras.optimizers.SGD(1.0), ExpectedError(0.5))
        losses += model.fit(x, labels, 3, epochs=3, verbose=0).history["loss"]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.1 < losses[0]
    assert (to_numpy(model(x)).argmax(axis=-1) == y).all()
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").loss.sigma == 0.5


def test_masked_steps_do_not_count():
    last = keras.layers.Dense(3, kernel_initializer="identity")
    model = keras.Sequential([keras.Input((3, 3)), keras.layers.Masking(), last])
    model.compile(loss=ExpectedError())
    x, y = LOGITS[1:].copy()[[0, 1, 2, 3, 1, 0]].reshape(2, 3, 3), LABELS.reshape(2, 3)
    x[1, 1:] = 0
    counted = to_numpy(LOSS(y, x)).ravel()[:4]
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), counted.mean(), rtol=1e-6)


def test_tensors_of_bad_values_make_it_nan():
    s = ops.zeros((6, 3))
    for bad in ([3, -1, 0.5, np.nan, np.inf, 1e9], np.tile([[0.5, 0.5, 0], [1, 1, 0]], (3, 1))):
        assert np.isnan(to_numpy(LOSS(ops.convert_to_tensor(bad, "float32"), s))).all()
    assert np.isnan(to_numpy(LOSS(LABELS, s * np.nan))).all()


def test_bad_input():
    s, labels = np.zeros((2, 3)), "`y_true` must be one-hot, or integers in 0 .. 2. Received: y_true="
    cases = [(f"sigma {x}", lambda x=x: ExpectedError(x), "`sigma` must be > 0") for x in (0, -1.0, np.nan, "1", None)]
    cases += [
        ("no such class", lambda: LOSS([0, 3], s), labels + r"\[3\]"),
        ("a negative one", lambda: LOSS([[-1], [1]], s), labels),
        ("a fraction", lambda: LOSS([0.5, 1], s), labels),
        ("soft labels", lambda: LOSS([[0.5, 0.5, 0], [1, 0, 0]], s), labels + r"\[\[0.5 0.5 0"),
        ("several labels", lambda: LOSS([[1, 0, 1], [1, 0, 0]], s), labels),
        ("NaN", lambda: LOSS([np.nan, 1], s), "`y_true` must be finite"),
        ("shapes", lambda: LOSS([0, 1, 2], s), r"`y_true` must have shape \(2,\) or \(2, 3\)"),
        ("one class", lambda: LOSS([0, 0], s[:, :1]), "`y_pred` must have at least 2 classes"),
        ("+inf", lambda: LOSS([0, 1], s + np.inf), "`y_pred` must be logits below infinity"),
        ("NaN logits", lambda: LOSS([0, 1], s * np.nan), "`y_pred` must be logits below infinity"),
        ("words", lambda: LOSS(["a", "b"], s), "`y_true` must be real numbers"),
    ]
    assert not (lines := not_refused(cases)), "\n".join(lines)
