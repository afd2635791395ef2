import functools

import keras
import numpy as np
import pytest
from offenders import not_refused

from keras_gen.core.fixtures import randomize_weights, to_numpy
from keras_gen.latent.tiles import in_tiles
from keras_gen.layers import ResidualBlock
from keras_gen.models import DDPM, AutoencoderKL, LatentDiffusion, UNet

SMALL = {"latent_channels": 2, "widths": (4, 8), "blocks_per_level": 1, "groups": 2}


@functools.cache
def small(**options):
    model = AutoencoderKL((8, 8, 3), **SMALL, seed=0, **options)
    randomize_weights(model)
    return model


def images(*shape):
    return np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype("float32")


def test_images_of_any_size():
    model, x = small(), images(2, 4, 12)
    z = model.encode(x)
    assert z.shape == (2, 2, 6, 2)
    assert model.decode(z).shape == x.shape
    np.testing.assert_allclose(model.sample(2, noise=z, verbose=0), model.decode(z), atol=1e-6)
    assert model.interpolate(x, x[::-1], 2).shape == (2, 2, 4, 12, 3)
    np.testing.assert_allclose(
        model.bits_per_dim(x, seed=0, verbose=0) * 144 * np.log(2), -model.elbo(x, seed=0, verbose=0), rtol=1e-6
    )


def test_size_of_samples_and_graphs():
    model = small()
    assert model.draw_latents(3, seed=0).shape == (3, 4, 4, 2)
    shapes = [[one.shape for one in graph.inputs] for graph in model.method_graphs()]
    assert shapes == [[(None, 8, 8, 3)], [(None, 4, 4, 2)]]


def test_log_variances_are_clipped():
    model = AutoencoderKL((8, 8, 3), **SMALL)
    bias = model.encoder.get_layer("moments_conv").bias
    bias.assign([0.0, 0.0, -1000.0, 1000.0])
    _, log_var = model.encoder(images(1, 4, 4))
    np.testing.assert_array_equal(to_numpy(log_var)[0, 0, 0], [-30, 20])


def test_half_precision():
    model, x = AutoencoderKL((8, 8, 3), **SMALL, dtype="mixed_bfloat16"), images(2, 8, 8)
    model.set_weights(small().get_weights())
    z = small().encode(x)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.encoder(x)[0].dtype != small().encoder(x)[0].dtype
    for ours, expected in ((model.encode(x), z), (model.decode(z), small().decode(z))):
        assert 0 < np.abs(ours - expected).max() < 0.1 * expected.std()


def test_diffusion_of_its_latents():
    model = LatentDiffusion(small(), DDPM(UNet((4, 4, 2), (4,), 1), seed=0))
    model.build((None, 4, 4, 2))
    x = images(2, 8, 8)
    model.adapt(x)
    z = model.encode(x)
    assert z.std() == pytest.approx(1, rel=0.1)
    np.testing.assert_allclose(model.decode(z), small().reconstruct(x), atol=1e-5)


# Tiles


@pytest.mark.one_backend
@pytest.mark.parametrize("side", [4, 5, 8, 100])
def test_a_function_of_single_pixels_is_the_same_in_tiles(side):
    calls = []

    def finer(x):  # twice as fine, as by nearest neighbors
        calls.append(x.shape)
        return np.repeat(np.repeat(np.sin(x), 3, 1), 3, 2)

    for height, width in ((4, 4), (8, 14), (10, 46), (26, 6)):
        x = images(2, height, width)
        np.testing.assert_allclose(in_tiles(finer, x, side, 2, 6), finer(x), rtol=1e-5, atol=1e-6)
        _, *tile, _ = calls[-2]
        assert tile == [min(2 * side, height), min(2 * side, width)]


@pytest.mark.one_backend
def test_tiles_fade_into_each_other():
    values = iter([0.0, 1.0])

    def numbered(x):  # each tile has a value of its own
        return np.concatenate([np.full((1, *x.shape[1:]), next(values), "float32") for _ in x])

    row = in_tiles(numbered, np.zeros((1, 8, 14, 1), "float32"), 8, 1, 1)[0, 3, :, 0]
    np.testing.assert_array_equal(row[:6], 0)
    np.testing.assert_allclose(row[6:8], [0.25, 0.75])
    np.testing.assert_array_equal(row[8:], 1)


def test_large_images_in_tiles():
    model, x = small(), images(1, 24, 40)
    z = model.encode(x)
    tiled = model.encode(x, 2, tile_size=8), model.decode(z, 2, tile_size=8)
    for whole, other in zip((z, model.decode(z)), tiled, strict=True):
        assert other.shape == whole.shape
        assert 0 < np.abs(other - whole).mean() < 0.3 * whole.std()
    np.testing.assert_array_equal(model.decode(z, tile_size=40), model.decode(z))


# Sizes of the published models


@pytest.mark.parametrize(
    ("options", "count"), [({}, 83_653_863), ({"latent_channels": 16, "latent_convolutions": False}, 83_819_683)]
)
def test_size_of_stable_diffusion(options, count):
    if keras.backend.backend() != "torch":
        pytest.skip("only PyTorch has weights without memory")
    with keras.device("meta"):
        assert AutoencoderKL((512, 512, 3), **options).count_params() == count


# Refusals


def test_refused():
    def make(**options):
        return lambda: AutoencoderKL((8, 8, 3), **{**SMALL, **options})

    any_size = AutoencoderKL((None, None, 3), **SMALL)
    cases = {
        "image_shape": (lambda: AutoencoderKL((9, 8, 3), **SMALL), "`image_shape` must have .* multiples of 2"),
        "latent_channels": (make(latent_channels=0), "`latent_channels` must be an integer >= 1"),
        "widths": (make(widths=(4, 0)), "`widths` must be a non-empty sequence"),
        "blocks_per_level": (make(blocks_per_level=0), "`blocks_per_level` must be"),
        "groups": (make(groups=3), r"`groups` must divide the widths \(4, 8\). Received: groups=3"),
        "no groups": (make(groups=0), "`groups` must be an integer >= 1"),
        "latent_convolutions": (make(latent_convolutions=1), "`latent_convolutions` must be True or False"),
        "likelihood": (make(likelihood="l2"), "`likelihood` must be a Likelihood or one of"),
        "kl_weight": (make(kl_weight=-1), "`kl_weight` must be >= 0"),
        "scaling_factor": (make(scaling_factor=0), "`scaling_factor` must be > 0"),
        "shift_factor": (make(shift_factor=None), "`shift_factor` must be a number"),
        "size": (lambda: small().encode(images(1, 8, 9)), "`x` must have .* multiples of 2, with 2 levels"),
        "channels": (lambda: small().encode(np.zeros((1, 8, 8, 1))), r"`x` must have shape \(n, None, None, 3\)"),
        "latents": (lambda: small().decode(np.zeros((1, 4, 4, 3))), r"`z` must have shape \(n, None, None, 2\)"),
        "tiles of latents": (lambda: small().decode(np.zeros(3), tile_size=4), "`z` must have shape"),
        "noise": (lambda: small().sample(2, noise=np.zeros((1, 4, 4, 2))), r"`noise` must have shape \(2, None"),
        "tile_size": (lambda: small().encode(images(1, 8, 8), tile_size=5), "`tile_size` must be a multiple of 2"),
        "no tile_size": (lambda: small().decode(np.zeros((1, 4, 4, 2)), tile_size=0), "`tile_size` must be an integer"),
        "samples": (lambda: any_size.sample(1), "`image_shape` must have a height and a width for samples without"),
        "graphs": (lambda: any_size.method_graphs(), "`image_shape` must have a height and a width"),
        "scale_shift": (
            lambda: ResidualBlock(4, scale_shift=True)(images(1, 4, 4)),
            "`scale_shift` must be False without an embedding",
        ),
    }
    assert not not_refused((name, *case) for name, case in cases.items())
