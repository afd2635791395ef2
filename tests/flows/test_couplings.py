import functools
import itertools

import keras
import numpy as np
import pytest
from bijecting import images, randomized, run, vectors
from keras import ops
from offenders import not_refused

from keras_gen.core.fixtures import functional, randomize_weights, save_and_load, to_numpy
from keras_gen.flows.coupling import SCALE_MAPS, SPLITS, get_scale_map
from keras_gen.layers import (
    AdditiveCoupling,
    AffineCoupling,
    Conditioner,
    MaskedAutoregressive,
    SplineCoupling,
)

Dense = keras.layers.Dense


COUPLINGS = [AdditiveCoupling, AffineCoupling, SplineCoupling]


def test_data_that_cannot_be_halved_are_refused():
    empty = "`x` must have a size of at least 1 on the last axis"
    refused = [
        ("half", (2, 0), empty + r". Received: x=shape \(2, 0\)"),
        ("half", (2, 4, 4, 0), empty),
        ("half", (2,), "`x` must"),
        ("interleave", (2, 0), empty),
        ("channel", (2, 4, 4, 0), empty),
        ("channel", (2, 4), "`x` must be images"),
        ("checkerboard", (2, 4, 3, 2), r"`x` must have an even width .* Received: x=shape \(2, 4, 3, 2\)"),
        ("checkerboard", (2, 4, 0, 2), "`x` must have an even width"),
        ("checkerboard", (2, 4), "`x` must be images"),
    ]
    offenders = not_refused(
        (
            f"{coupling.__name__} {split} {shape}",
            functools.partial(coupling(units=[4], split=split), np.zeros(shape, "float32")),
            match,
        )
        for coupling, (split, shape, match) in itertools.product(COUPLINGS, refused)
    )
    assert not offenders, "\n".join(offenders)


def test_bad_arguments_of_couplings():
    refused = [
        ({}, "`conditioner` must be given if and only if `units` is not"),
        ({"conditioner": Dense(3), "units": [4]}, "`conditioner` must be given if and only if `units` is not"),
        ({"conditioner": lambda x: x}, "`conditioner` must be a keras.Layer"),
        ({"units": 4}, "`units` must be a list of integers >= 1"),
        ({"units": [4, 0]}, "`units` must be an integer >= 1"),
        ({"units": [4.0]}, "`units` must be an integer >= 1"),
        ({"units": [4], "split": "diagonal"}, "`split` must be one of 'half', 'interleave', 'checkerboard', 'channel'"),
        ({"units": [4], "split": None}, "`split` must be one of"),
    ]
    offenders = not_refused(
        (f"{coupling.__name__} {options}", functools.partial(coupling, **options), match)
        for coupling, (options, match) in itertools.product(COUPLINGS, refused)
    )
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize(
    ("coupling", "conditioner", "shape"),
    [
        (AdditiveCoupling, Dense(2), (2, 6)),
        (AdditiveCoupling, Dense(6), (2, 6)),
        (AffineCoupling, Dense(3), (2, 6)),
        (SplineCoupling, Dense(3), (2, 6)),
        (AdditiveCoupling, Conditioner(2, [4]), (2, 4, 4, 2)),
        (AdditiveCoupling, keras.layers.Conv2D(1, 3), (2, 4, 4, 2)),
        (AdditiveCoupling, keras.layers.Flatten(), (2, 4, 4, 2)),
    ],
)
def test_conditioners_of_another_output_are_refused(coupling, conditioner, shape):
    with pytest.raises(ValueError, match="`conditioner` must give outputs of shape"):
        coupling(conditioner)(np.zeros(shape, "float32"))


@pytest.mark.parametrize("split", ["half", "interleave"])
def test_additive_coupling_keeps_volume_exactly(split):
    x = vectors(3, 4)
    _, log_det = run(randomized(AdditiveCoupling(units=[4], split=split), x, 3.0), x)
    np.testing.assert_array_equal(log_det, np.zeros(3))


def changed(split, flip, x):
    """Where an additive coupling that adds one changes x."""
    parameters = {"split": split, "flip": flip, "units": []}
    coupling = AdditiveCoupling(**parameters)
    coupling(ops.convert_to_tensor(x))
    coupling.conditioner.dense[-1].bias.assign(np.ones(coupling.conditioner.dense[-1].bias.shape))
    return run(coupling, x)[0] - x > 0.5


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("half", np.broadcast_to(np.arange(4) >= 2, (4, 6, 4))),
        ("channel", np.broadcast_to(np.arange(4) >= 2, (4, 6, 4))),
        ("interleave", np.broadcast_to(np.arange(4) % 2 == 1, (4, 6, 4))),
        ("checkerboard", np.broadcast_to((np.add.outer(np.arange(4), np.arange(6)) % 2 == 1)[..., None], (4, 6, 4))),
    ],
)
def test_the_second_half_changes_unless_flipped(split, expected):
    x = images(2, 4, 6, 4)
    np.testing.assert_array_equal(changed(split, False, x), [expected] * 2)
    np.testing.assert_array_equal(changed(split, True, x), [~expected] * 2)


def test_halves_of_vectors():
    x = vectors(1, 6)
    np.testing.assert_array_equal(changed("half", False, x)[0], [False] * 3 + [True] * 3)
    np.testing.assert_array_equal(changed("interleave", False, x)[0], [False, True] * 3)


@pytest.mark.parametrize(("split", "first"), [("half", [0, 1]), ("interleave", [0, 2, 4])])
def test_halves_of_an_odd_size_differ_by_one(split, first):
    x = vectors(2, 5)
    unchanged = np.isin(np.arange(5), first)
    np.testing.assert_array_equal(changed(split, False, x), [~unchanged] * 2)
    np.testing.assert_array_equal(changed(split, True, x), [unchanged] * 2)


@pytest.mark.parametrize("make", COUPLINGS)
def test_a_single_feature_is_transformed_by_parameters_of_the_condition(make):
    x, condition = np.linspace(-2, 2, 8, dtype="float32")[:, None], np.repeat(vectors(2, 3), 4, axis=0)
    for split, flip in itertools.product(["half", "interleave"], [False, True]):
        coupling = make(units=[8], split=split, flip=flip)
        coupling(x, condition)
        randomize_weights(coupling, scale=1.0)
        (y, log_det), moved = run(coupling, x, condition=condition), run(coupling, x, condition=condition[::-1].copy())
        assert np.abs(y - x).min() > 1e-4
        assert np.abs(y - moved[0]).min() > 1e-4
        if make is not SplineCoupling:  # one affine map for all x of a condition
            np.testing.assert_allclose(np.diff(log_det.reshape(2, 4)), 0, atol=1e-6)
            np.testing.assert_allclose(np.diff(y.reshape(2, 4), 2), 0, atol=1e-5)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("flip", [False, True])
def test_the_changed_half_depends_on_the_other_alone(split, flip):
    """The shift of a place must not move with the place itself, nor with any other of its half."""
    x = images(1, 4, 4, 2)
    coupling = randomized(AdditiveCoupling(units=[8], split=split, flip=flip), x)
    moving = changed(split, flip, x)
    shifted = x + 100 * moving
    np.testing.assert_allclose(run(coupling, shifted)[0] - shifted, run(coupling, x)[0] - x, atol=1e-4)


@keras.saving.register_keras_serializable("test_couplings")
def half_tanh(s):
    return 0.5 * ops.tanh(s)


def test_scale_maps_are_their_formulas():
    s = np.linspace(-20, 20, 81)
    tensor = ops.convert_to_tensor(s.astype("float32"))
    expected = {
        "tanh": 2 * np.tanh(s / 2),
        "softclip": s / (1 + np.abs(s) / np.log(1000)),
        "sigmoid": -np.logaddexp(0, -s - 2),
        "exp": s,
    }
    assert set(expected) == set(SCALE_MAPS)
    for name, values in expected.items():
        np.testing.assert_allclose(to_numpy(get_scale_map(name)(tensor)), values, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [lambda: AffineCoupling(units=[4], scale_map=half_tanh), lambda: MaskedAutoregressive([4], "relu", half_tanh)],
)
def test_a_function_is_a_scale_map_and_survives_a_file(make):
    x = vectors(8, 4)
    model = functional(make(), x)
    randomize_weights(model, scale=3.0)
    y, log_det = (to_numpy(part) for part in model(x))
    assert np.abs(log_det).max() < 2
    for a, b in zip(save_and_load(model)(x), (y, log_det), strict=True):
        np.testing.assert_allclose(to_numpy(a), b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda **dtype: AdditiveCoupling(units=[8], **dtype), vectors(8, 4)),
        (lambda **dtype: AffineCoupling(units=[8], **dtype), vectors(8, 4)),
        (lambda **dtype: AffineCoupling(units=[8], split="checkerboard", **dtype), images(2, 4, 4, 2)),
        (lambda **dtype: SplineCoupling(units=[8], **dtype), vectors(8, 4)),
    ],
)
def test_couplings_stay_invertible_with_networks_in_half_precision(make, x):
    coupling = randomized(make(dtype="mixed_bfloat16"), x)
    y, log_det = coupling(ops.convert_to_tensor(x))
    assert [keras.backend.standardize_dtype(part.dtype) for part in (y, log_det)] == ["float32"] * 2
    half = coupling.conditioner(ops.convert_to_tensor(x if x.ndim == 4 else x[:, :2]))
    assert keras.backend.standardize_dtype(half.dtype) == "bfloat16"
    back, minus = coupling(y, inverse=True)
    np.testing.assert_allclose(to_numpy(back), x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_numpy(minus), -to_numpy(log_det), rtol=1e-5, atol=1e-5)
