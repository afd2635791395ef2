import numpy as np
import pytest
from offenders import not_refused
from scipy.stats import norm

from keras_gen.core.fixtures import to_numpy
from keras_gen.losses import concrete_kl, discretized_gaussian_nll, gaussian_kl
from keras_gen.ops import concrete_log_prob


def test_gaussian_kl_is_the_integral():
    x = np.linspace(-30, 30, 200_001)
    for mean, log_var_q, log_var_p in ((0.5, 0.3, -0.4), (0.0, -2.0, 1.0), (2.0, 0.0, 0.0)):
        q = norm.pdf(x, mean, np.exp(log_var_q / 2))
        log_ratio = norm.logpdf(x, mean, np.exp(log_var_q / 2)) - norm.logpdf(x, 0, np.exp(log_var_p / 2))
        expected = (q * log_ratio).sum() * (x[1] - x[0])
        actual = gaussian_kl(*(np.float32(value) for value in (mean, log_var_q, log_var_p)))
        np.testing.assert_allclose(to_numpy(actual), expected, rtol=1e-5)


def test_gaussian_kl_is_exact_for_nearly_equal_gaussians():
    assert abs(float(gaussian_kl(np.float32(0), np.float32(-9), np.float32(-9)))) == 0
    np.testing.assert_allclose(float(gaussian_kl(np.float32(0), np.float32(1e-3), np.float32(0))), 2.5e-7, rtol=0.01)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_discretized_probabilities_sum_to_one(levels):
    x = np.linspace(-1, 1, levels, dtype="float32")
    for mean, log_var in ((0.1, -4.0), (-1.5, 0.0), (0.99, -9.0)):
        nll = to_numpy(discretized_gaussian_nll(x, np.float32(mean), np.float32(log_var), levels))
        np.testing.assert_allclose(np.exp(-nll).sum(), 1, rtol=1e-4)


def test_discretized_tails_keep_their_precision():
    nll = float(discretized_gaussian_nll(np.float32(0.5), np.float32(0.0), np.float32(2 * np.log(0.06))))
    exact = -np.log(norm.cdf((-0.5 + 1 / 255) / 0.06) - norm.cdf((-0.5 - 1 / 255) / 0.06))
    np.testing.assert_allclose(nll, exact, rtol=1e-3)


def test_levels_are_checked():
    with pytest.raises(ValueError, match="`levels` must be an integer >= 2"):
        discretized_gaussian_nll(np.zeros(1, "float32"), 0.0, np.float32(0), levels=1)


def test_lists_are_arrays():
    nll = to_numpy(discretized_gaussian_nll([0.5, -1.0], [0.0, 0.1], [0.0, -1.0]))
    arrays = (np.array(values, "float32") for values in ([0.5, -1.0], [0.0, 0.1], [0.0, -1.0]))
    np.testing.assert_array_equal(nll, to_numpy(discretized_gaussian_nll(*arrays)))
    kl = to_numpy(gaussian_kl([0.5, 1.0], [0.0, 0.1], [0.0, -1.0]))
    np.testing.assert_allclose(kl[0], 0.125, rtol=1e-6)


def test_what_is_not_finite_is_refused():
    zeros, cases = np.zeros((2, 3), "float32"), []
    for value in (np.nan, np.inf, -np.inf):
        broken = np.full((2, 3), value, "float32")
        cases += [
            ("x", lambda broken=broken: discretized_gaussian_nll(broken, zeros, zeros), "`x` must be finite"),
            ("mean", lambda broken=broken: discretized_gaussian_nll(zeros, broken, zeros), "`mean` must be finite"),
            ("log_var", lambda value=value: discretized_gaussian_nll(zeros, zeros, value), "`log_var` must be finite"),
        ]
    for value in (0.0, -1, np.nan, np.inf, [0.5, 0.0], "1", 1j):
        rule = "`temperature{}` must be (> 0 and finite|real numbers). Received: temperature{}="
        q, p = (rule.format(name, name) for name in ("_q", "_p"))
        cases += [
            ("density", lambda value=value: concrete_log_prob(zeros, zeros, value), rule.format("", "")),
            ("of q", lambda value=value: concrete_kl(zeros, zeros, value, zeros, 1.0), q),
            ("of p", lambda value=value: concrete_kl(zeros, zeros, 1.0, zeros, value), p),
        ]
    lines = not_refused(cases)
    assert not lines, "\n".join(lines)
