import numpy as np
import pytest
from keras import ops

from keras_gen.autoregressive.sampling import next_code
from keras_gen.core.compiled import as_tensor, compiled
from keras_gen.core.fixtures import to_numpy


def by_hand(logits, uniform, temperature=1.0, top_k=None, top_p=None):
    """One code after the definition, with a sorted list."""
    p = np.exp((logits - logits.max()) / temperature)
    likely = np.argsort(-p)
    kept = list(likely if top_k is None else likely[:top_k])
    if top_p is not None:
        before = np.cumsum([0, *p[kept]]) / p[kept].sum()
        kept = [code for code, mass in zip(kept, before, strict=False) if mass < top_p]
    cumulative = np.cumsum(np.where(np.isin(np.arange(len(p)), kept), p, 0))
    return int((cumulative <= uniform * cumulative[-1]).sum())


LOGITS = 2 * np.random.default_rng(0).normal(size=(300, 7)).astype("float32")
UNIFORM = np.random.default_rng(1).random(300, dtype="float32")


@pytest.mark.parametrize("top_k", [None, 1, 3, 7])
@pytest.mark.parametrize("top_p", [None, 0.05, 0.6, 0.95, 1.0])
def test_codes_are_those_of_the_definition(top_k, top_p):
    for temperature in (1.0, 0.3, 2.5):
        expected = [
            by_hand(row.astype("float64"), u, temperature, top_k, top_p) for row, u in zip(LOGITS, UNIFORM, strict=True)
        ]
        codes = next_code(as_tensor(LOGITS), as_tensor(UNIFORM), temperature, top_k, top_p)
        assert "int32" in str(codes.dtype)
        np.testing.assert_array_equal(to_numpy(codes), expected)
    plain = to_numpy(next_code(as_tensor(LOGITS), as_tensor(UNIFORM)))
    if top_k in (None, 7) and top_p in (None, 1.0):
        assert (plain != expected).any()  # the last temperature
    else:
        assert (plain != to_numpy(codes)).any()


def test_greedy_codes_are_the_likeliest():
    for options in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-5}):
        codes = next_code(as_tensor(LOGITS), as_tensor(UNIFORM), **options)
        np.testing.assert_array_equal(to_numpy(codes), LOGITS.argmax(1), err_msg=str(options))


@pytest.mark.parametrize("codes", [5, 1000])
def test_extreme_numbers_give_codes_that_can_occur(codes, rng):
    """0 gives the first, the largest number below 1 the last: of those with a probability above 0."""
    logits = rng.normal(size=(3, codes)).astype("float32")
    logits[1, [0, 1, -1]] = -1e30
    logits[2, codes // 2 :] = -1e30
    first, last = [0, 2, 0], [codes - 1, codes - 2, codes // 2 - 1]
    for uniform, expected in ((0.0, first), (0.9999999, last), (np.nextafter(np.float32(1), np.float32(0)), last)):
        drawn = next_code(as_tensor(logits), as_tensor(np.full(3, uniform, "float32")))
        if codes == 1000 and uniform > 0:  # the last codes' shares are too small to be told apart in float32
            drawn = to_numpy(drawn)
            assert (drawn <= last).all()
            assert (drawn > np.array(last) - 10).all()
            assert (logits[[0, 1, 2], drawn] > -1e29).all()
        else:
            np.testing.assert_array_equal(to_numpy(drawn), expected)
    for options in ({"top_k": 2}, {"top_p": 0.3}):
        drawn = to_numpy(next_code(as_tensor(logits), as_tensor(np.full(3, 0.9999999, "float32")), **options))
        ends = [by_hand(row.astype("float64"), 0.999999, **options) for row in logits]
        np.testing.assert_array_equal(drawn, ends)


def test_a_code_of_the_boundary_is_the_next():
    """P(0) = P(1) = 1/2: u = 1/2 does not lie below P(0)."""
    logits = np.zeros((3, 2), "float32")
    codes = next_code(as_tensor(logits), as_tensor(np.array([0.0, 0.499, 0.5], "float32")))
    np.testing.assert_array_equal(to_numpy(codes), [0, 0, 1])


def test_equally_likely_codes_stay_together():
    """Of codes that are as likely as the last one kept, none is preferred."""
    logits = as_tensor(np.tile(np.log([0.1, 0.4, 0.1, 0.4]).astype("float32"), (2, 1)))
    uniform = as_tensor(np.array([0.1, 0.9], "float32"))
    np.testing.assert_array_equal(to_numpy(next_code(logits, uniform, top_k=1)), [1, 3])
    np.testing.assert_array_equal(to_numpy(next_code(logits, uniform, top_p=0.5)), [1, 3])


def test_numbers_may_be_tensors_of_a_compiled_function():
    run = compiled(None, lambda z, u, t, p: next_code(z, u, t, 5, p))
    for temperature, top_p in ((1.0, 0.8), (0.5, 0.4)):
        numbers = (np.float32(temperature), np.float32(top_p))
        codes = to_numpy(run(*map(as_tensor, (LOGITS, UNIFORM, *numbers))))
        expected = [
            by_hand(row.astype("float64"), u, temperature, 5, top_p) for row, u in zip(LOGITS, UNIFORM, strict=True)
        ]
        np.testing.assert_array_equal(codes, expected)


def test_tiny_temperatures_and_probabilities_are_greedy():
    logits = ops.convert_to_tensor(np.array([[1.0, 60.0, -60.0, 59.9]] * 3, "float32"))
    uniform = ops.convert_to_tensor(np.array([0.0, 0.5, 0.999], "float32"))
    for temperature in (1e-6, 1e-37, 1e-46):
        assert to_numpy(next_code(logits, uniform, temperature)).tolist() == [1, 1, 1]
    for top_p in (1e-6, 1e-40, 0.0):  # what is left of a smaller number in float32
        assert to_numpy(next_code(logits, uniform, top_p=np.float32(top_p))).tolist() == [1, 1, 1]


def test_excluded_codes_are_not_drawn_whatever_the_rounding():
    """On JAX a cumulative sum over many codes may step where the probability is 0."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(1, 4096)).astype("float32")
    uniform = generator.random(500, dtype="float32")
    drawn = to_numpy(next_code(ops.convert_to_tensor(np.repeat(logits, 500, axis=0)), uniform, top_k=100))
    assert set(drawn) <= set(np.argsort(logits[0])[-100:])
