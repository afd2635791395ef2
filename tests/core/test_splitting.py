import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_gen.core.compiled import even_batches
from keras_gen.core.random import starting_noise, step_seeds

quick = settings(derandomize=True, deadline=None, max_examples=50)


@quick
@given(st.integers(1, 200), st.integers(1, 100))
def test_batches_are_of_one_size_and_miss_nothing(n, batch_size):
    batches = list(even_batches(n, batch_size))
    assert {len(batch) for batch in batches} == {len(batches[0])}
    assert len(batches[0]) <= batch_size
    assert np.concatenate(batches)[:n].tolist() == list(range(n))
    padding = sum(map(len, batches)) - n
    # each size costs a compilation elsewhere: it is a power of two there, if it is not `batch_size`
    assert padding < (len(batches) if keras.backend.backend() == "torch" else n)


@quick
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**40))
def test_noise_k_does_not_depend_on_n(n, m, seed):
    k = min(n, m)
    np.testing.assert_array_equal(starting_noise(n, (3, 2), seed)[:k], starting_noise(m, (3, 2), seed)[:k])


def test_noise_is_standard_normal_and_differs_between_seeds():
    a, b = starting_noise(10_000, (4,), 0), starting_noise(10_000, (4,), 1)
    assert a.dtype == "float32"
    assert abs(a.mean()) < 0.03
    assert abs(a.std() - 1) < 0.02
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.03


def test_step_seeds_differ_between_steps_batches_and_seeds():
    rows = np.concatenate([step_seeds(50, seed, batch, "int32") for seed in range(4) for batch in range(4)])
    assert rows.min() >= 0
    assert len(np.unique(rows, axis=0)) == len(rows)
    assert len(np.unique(rows.astype("int64").sum(axis=1))) == len(rows)  # torch adds the two numbers
