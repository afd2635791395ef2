import keras
import numpy as np
from keras import ops
from laws.arrays import NUMBERS, VECTOR
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import to_numpy
from keras_gen.losses import multilabel_crossentropy, sparse_multilabel_crossentropy
from keras_gen.ops import gradient

# Rows of three classes have a fourth that is masked.
LABELS = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0.9, 0.2, 0.5, 0], [0.9, 0.2, 0.5, 0]], "float32")
OPTIMUM = [1.0986123, -0.6931472, 0, -np.inf]
LOGITS = np.array([[2, -1, 0.5, -3], [0] * 4, [-1, -2, 0.5, -np.inf], [1, -0.5, 0, -np.inf], OPTIMUM], "float32")
VALUES = [0.9039691, 2.0794415, 1.1480169, 1.5845549, 1.5769147]


def exact(y, s):
    """The definition and its derivative with respect to s, in float64."""
    positive, negative = y * np.exp(-s.astype("float64")), (1 - y) * np.exp(s.astype("float64"))
    sums = positive.sum(axis=-1, keepdims=True), negative.sum(axis=-1, keepdims=True)
    return np.log1p(sums).sum(axis=0)[:, 0], negative / (1 + sums[1]) - positive / (1 + sums[0])


PROGRAM = one_program(
    None, lambda y, s: (multilabel_crossentropy(y, s), gradient(lambda s: multilabel_crossentropy(y, s), s))
)


def both(y, s):
    """The loss and its derivative with respect to s."""
    return map(to_numpy, PROGRAM(ops.convert_to_tensor(y, "float32"), ops.convert_to_tensor(s)))


def test_values():
    loss, derivative = both(LABELS, LOGITS)
    np.testing.assert_allclose(loss, VALUES, rtol=3e-7)
    np.testing.assert_allclose(derivative[-1], 0, atol=1e-7)  # the optimum
    loss, derivative = both(NUMBERS, VECTOR)
    exact_loss, exact_derivative = exact(NUMBERS, VECTOR)
    np.testing.assert_allclose(loss, exact_loss, rtol=1e-6)
    np.testing.assert_allclose(derivative, exact_derivative, atol=1e-6)


def test_hard_labels_in_every_form():
    hard = LABELS[:3]
    expected = to_numpy(multilabel_crossentropy(hard, LOGITS[:3]))
    for dtype in ("int32", "bool", "float16", "float64"):
        np.testing.assert_array_equal(to_numpy(multilabel_crossentropy(hard.astype(dtype), LOGITS[:3])), expected)
    for indices in ([[0, 2, 2], [-1, 0, -1], [-1] * 3], np.array([[2.0, 0.0, -1.0], [0, 0, -1], [-1] * 3])):
        np.testing.assert_array_equal(to_numpy(sparse_multilabel_crossentropy(indices, LOGITS[:3])), expected)
    almost = np.where(np.isinf(LOGITS[:3]), hard, np.clip(hard, 1e-6, 1 - 1e-6))
    np.testing.assert_allclose(to_numpy(multilabel_crossentropy(almost, LOGITS[:3])), expected, atol=3e-5)


def test_at_most_the_sum_of_binary_crossentropies():
    for y, s in ((NUMBERS, 2 * VECTOR), (np.round(NUMBERS), VECTOR)):
        binary = (np.logaddexp(0, s) - y * s).sum(axis=-1)
        scale = 0.5 if y is NUMBERS else 1.0  # soft labels: the probability is sigmoid(2 s)
        assert (next(both(y, scale * s)) < binary).all()


def test_the_edges_have_finite_gradients():
    y = np.array([[0, 1, 0, 1], [0, 0, 0, 0.5], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]], "float32")
    s = np.array([[-np.inf, 1e4, 1e30, -1e4], [-np.inf] * 3 + [-1e7], [-np.inf] * 4, [-np.inf, 0, 1e30, 9], [0] * 4])
    slopes = [[0, 0, 1, -1], [0, 0, 0, -1], [0] * 4, [0] * 4, [-0.5, 0.25, 0.25, 0.25]]
    loss, derivative = both(y, s.astype("float32"))
    np.testing.assert_allclose(loss, [1e30, 1e7, 0, 1e30, 3 * np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(derivative, slopes, atol=1e-6)


def test_small_losses_are_not_rounded():
    y = np.array([[0, 1, 0, 1, 1, 0], [0] * 6], "float32")
    s = np.array([[-25, 20, -30, 22, 25, -28], [-30, -40, -31, -32, -33, -35]], "float32")
    np.testing.assert_allclose(next(both(y, s)), exact(y, s)[0], rtol=1e-5)


def test_training_finds_half_the_logit():
    y = np.array([0.9, 0.2, 0.5, 0.01], "float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(8.0, 300)), multilabel_crossentropy)
    x = np.ones((300, 1), "float32")
    model.fit(x, np.tile(y, (300, 1)), batch_size=1, verbose=0)
    np.testing.assert_allclose(to_numpy(model(x[:1]))[0], np.log(y / (1 - y)) / 2, atol=1e-3)


def test_a_compiled_model_learns_sparse_labels_and_is_loaded(tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(4, use_bias=False, kernel_initializer="zeros")])
    model.compile(keras.optimizers.SGD(1.0), sparse_multilabel_crossentropy)
    x = np.ones((8, 1), "float32")
    model.fit(x, np.tile([[0, 2, -1]], (8, 1)), batch_size=1, epochs=4, verbose=0)
    assert ((to_numpy(model(x[:1]))[0] > 0) == [True, False, True, False]).all()
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").loss is sparse_multilabel_crossentropy


def test_tensors_of_bad_values_make_it_nan():
    s = ops.zeros((2, 3))
    for bad in ([[0, 1, 2], [0, 0, -1]], [[np.nan, 0, 0], [0, np.inf, 0]]):
        assert np.isnan(to_numpy(multilabel_crossentropy(ops.convert_to_tensor(bad, "float32"), s))).all()
    for bad in ([[3, -1, 0], [-2, 0, 0]], [[0.5, 0, 0], [np.nan, 0, 0]]):
        assert np.isnan(to_numpy(sparse_multilabel_crossentropy(ops.convert_to_tensor(bad, "float32"), s))).all()
    assert np.isnan(to_numpy(multilabel_crossentropy(np.ones((2, 3)), s * np.nan))).all()


def test_bad_input():
    y, s = np.eye(3)[:2], np.zeros((2, 3))
    labels, indices = r"`y` must be labels in \[0, 1\]", "`y` must be integers in 0 .. 2, or -1 for none"
    cases = [
        ("above 1", lambda: multilabel_crossentropy(2 * y, s), labels + r". Received: y=\[2. 2.\]"),
        ("below 0", lambda: multilabel_crossentropy(-y, s), labels),
        ("NaN", lambda: multilabel_crossentropy(y * np.nan, s), "`y` must be finite"),
        ("shapes", lambda: multilabel_crossentropy(y[:1], s), r"`y` must have the shape of s, \(2, 3\)"),
        ("indices", lambda: multilabel_crossentropy([0, 1], s), r"`y` must have the shape of s, \(2, 3\)"),
        ("+inf", lambda: multilabel_crossentropy(y, s + np.inf), "`s` must be logits below infinity"),
        ("NaN logits", lambda: sparse_multilabel_crossentropy([[0], [1]], s * np.nan), "`s` must be logits below"),
        ("complex", lambda: multilabel_crossentropy(y, s * 1j), "`s` must be real numbers"),
        ("no classes", lambda: multilabel_crossentropy(y[:, :0], s[:, :0]), r"`s` must have shape \(..., classes\)"),
        ("a number", lambda: multilabel_crossentropy(1.0, 0.0), r"`s` must have shape \(..., classes\)"),
        ("no such class", lambda: sparse_multilabel_crossentropy([[0, 3], [1, -1]], s), indices),
        ("other padding", lambda: sparse_multilabel_crossentropy([[0, 1], [1, -2]], s), indices),
        ("a fraction", lambda: sparse_multilabel_crossentropy([[0.5], [1]], s), indices + r". Received: y=\[0.5\]"),
        ("no axis", lambda: sparse_multilabel_crossentropy([0, 1], s), r"`y` must have shape \(2, 'positives'\)"),
    ]
    assert not (lines := not_refused(cases)), "\n".join(lines)


def test_one_class_is_binary_crossentropy():
    s = np.array([[2.0], [-1.0]], "float32")
    np.testing.assert_allclose(to_numpy(multilabel_crossentropy([[1], [1]], s)), np.logaddexp(0, -s[:, 0]), rtol=1e-6)
