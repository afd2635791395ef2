"""Exact probabilities of small models, by enumeration, and draws from them by hand."""

import itertools
import math

import numpy as np
from scipy import stats


def all_codes(num_codes, shape):
    """Returns all arrays of codes, the last place fastest."""
    rows = itertools.product(range(num_codes), repeat=math.prod(shape))
    return np.array(list(rows), "int32").reshape(-1, *shape)


def probabilities(model, **condition):
    """Returns p(x) of all x, float64 with an axis for each place."""
    x = all_codes(model.num_codes, model.data_shape)
    log_p = model.log_prob(x, batch_size=len(x), verbose=0, **condition)
    return np.exp(log_p.astype("float64")).reshape((model.num_codes,) * model.length)


def draws(table, noise, ordering=None):
    """Returns the first code whose cumulative probability, given those before, is above the number, place by place."""
    ordering = range(table.ndim) if ordering is None else ordering
    codes = np.empty(noise.shape, "int32")
    for numbers, drawn in zip(noise, codes, strict=True):
        left = table.transpose(ordering)
        for place in ordering:
            cumulative = left.reshape(len(left), -1).sum(1).cumsum()
            drawn[place] = (cumulative <= numbers[place] * cumulative[-1]).sum()
            left = left[drawn[place]]
    return codes


def check_frequencies(table, samples):
    """Checks that samples are from the distribution, by a chi-square test that tells it from the uniform one."""
    samples = samples.reshape(len(samples), -1)
    counts = np.bincount(np.ravel_multi_index(samples.T, table.shape), minlength=table.size)
    assert p_value(counts, table.ravel()) > 1e-3
    assert p_value(counts, np.full(table.size, 1 / table.size)) < 1e-6


def p_value(counts, p):
    expected = p / p.sum() * counts.sum()
    rare = expected < 3  # counted together
    counts, expected = (np.append(array[~rare], array[rare].sum()) for array in (counts, expected))
    some = expected > 0
    return stats.chisquare(counts[some], expected[some]).pvalue
