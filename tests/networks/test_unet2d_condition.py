"""`UNet2DCondition` and its transformer. Their numbers are compared in `tests/peers/test_diffusers_unet2d.py`."""

import keras
import numpy as np
import pytest
from keras import ops
from laws.arrays import GRAY, IMAGES, SIZED_TEXT, TOKENS, T
from offenders import not_refused
from programs import one_program

from keras_gen.core.fixtures import randomize_weights, save_and_load, to_numpy
from keras_gen.layers import SpatialTransformer
from keras_gen.models import UNet2DCondition

# Stable Diffusion 1, 2 and XL.
REAL = {
    859_520_964: {},
    865_910_724: {"token_dim": 1024, "num_heads": (5, 10, 20, 20), "linear_projections": True},
    2_567_463_684: {
        "token_dim": 2048,
        "widths": (320, 640, 1280),
        "depths": (0, 2, 10),
        "middle_depth": 10,
        "num_heads": (5, 10, 20),
        "pooled_dim": 1280,
    },
}


def network(**options):
    given = {"token_dim": 8, "widths": (8, 8), "depths": (0, 1), "num_heads": 2, "blocks_per_level": 1, "groups": 2}
    return UNet2DCondition((4, 4, 1), **{**given, **options})


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="the device without memory is PyTorch's")
@pytest.mark.parametrize("count", REAL)
def test_numbers_of_weights(count):
    with keras.device("meta"):
        assert UNet2DCondition((64, 64, 4), **REAL[count]).count_params() == count


def test_each_part_of_a_condition_reaches_the_output_of_any_size():
    model = network(pooled_dim=6, size_dim=4)
    randomize_weights(model, scale=2.0)
    run = one_program(model, model)

    def output(x, condition):
        return to_numpy(run(keras.tree.map_structure(ops.convert_to_tensor, [x, T, condition])))

    wide = output(GRAY[:, :2], {**SIZED_TEXT, "tokens": TOKENS[:, :5]})
    assert wide.shape == (2, 2, 4, 1)
    plain, offenders = output(GRAY, SIZED_TEXT), []
    for key, value in SIZED_TEXT.items():
        moved = np.abs(output(GRAY, {**SIZED_TEXT, key: value[::-1].copy()}) - plain).max()
        offenders += [] if moved > 1e-3 else [f"{key}: {moved}"]
    assert not offenders, "\n".join(offenders)
    copy = save_and_load(model)
    again = one_program(copy, copy)(keras.tree.map_structure(ops.convert_to_tensor, [GRAY, T, SIZED_TEXT]))
    np.testing.assert_allclose(to_numpy(again), plain, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="`x_t` must have height and width that are multiples of 2, with 2 levels"):
        model([GRAY[:, :3], T, SIZED_TEXT])


def test_transformer_starts_as_the_identity_and_bears_scores_beyond_half_precision():
    """The scores are as those of Stable Diffusion 2.1, for which `upcast_attention` is there."""
    layers = [SpatialTransformer(2, groups=2, upcast_attention=True, dtype=dtype) for dtype in ("float32", "float16")]
    for layer in layers:
        layer.build([IMAGES.shape, TOKENS.shape])
    np.testing.assert_array_equal(to_numpy(layers[0]([IMAGES, TOKENS])), IMAGES)
    for layer in layers:
        randomize_weights(layer, scale=1.0)
        for attention in (layer.blocks[0].self_attention, layer.blocks[0].cross_attention):
            for dense in (attention.query, attention.key):
                dense.kernel.assign(300 * dense.kernel)
    exact, half = (to_numpy(layer([IMAGES, TOKENS])) for layer in layers)
    assert np.isfinite(half).all()
    assert np.median(np.abs(half - exact)) < 0.02


@pytest.mark.one_backend
def test_refused():
    transformer = SpatialTransformer(2, groups=2)
    changes = {
        "token_dim": (0, None, (None, 8)),
        "widths": ((), (0, 8), 8),
        "depths": ((0,), (0, 1, 1), (-1, 1), (0, 1.5), 1),
        "middle_depth": (0, None),
        "num_heads": (0, 3, (2,), (2, 0), 2.0),
        "blocks_per_level": (0, None, 10**6),
        "pooled_dim": (0, 1.5),
        "groups": (0, 3),
        "epsilon": (0, "x"),
        "linear_projections": (1, None),
        "upcast_attention": (1, None),
        "out_channels": (0, 1.5),
        "dropout": (1, "x"),
        "remat": (1,),
    }
    cases = [
        (f"{key}={value}", lambda key=key, value=value: network(**{key: value}), f"`{key}` must .*Received: {key}=")
        for key, values in changes.items()
        for value in values
    ]
    cases += [
        ("size_dim", lambda: network(pooled_dim=6, size_dim=5), "`size_dim` must be even"),
        ("depth", lambda: SpatialTransformer(depth=0), "`depth` must be an integer >= 1. Received: depth=0"),
        ("epsilon", lambda: SpatialTransformer(epsilon=0), "`epsilon` must be > 0 and finite. Received: epsilon=0"),
        ("image", lambda: transformer([TOKENS, TOKENS]), "`x` must have shape .batch, height, width, channels."),
        ("tokens", lambda: transformer([IMAGES, IMAGES]), "`condition` must have shape .batch, tokens, dim."),
        ("heads", lambda: SpatialTransformer(3, groups=2)([IMAGES, TOKENS]), "`num_heads` must divide 8 channels"),
    ]
    assert not not_refused(cases)
