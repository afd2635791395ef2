import keras
import numpy as np
import pytest
from keras import ops
from laws.arrays import IMAGES
from laws.networks import sub_pixel
from offenders import not_refused

from keras_gen.core.fixtures import to_numpy
from keras_gen.initializers import ICNR
from keras_gen.layers import PixelShuffle2D, PixelUnshuffle2D, Squeeze
from keras_gen.models import LightUNet, UNet
from keras_gen.ops import pixel_shuffle, pixel_unshuffle

ORDERS = ("crd", "dcr")


def test_one_pixel_becomes_a_square():
    """Channels 0 .. 7 at one pixel, as listed for PyTorch's `PixelShuffle` and for TensorFlow's `depth_to_space`."""
    x = np.arange(8).reshape(1, 1, 1, 8)
    squares = {"crd": [[0, 4], [1, 5], [2, 6], [3, 7]], "dcr": [[0, 1], [2, 3], [4, 5], [6, 7]]}
    for order, square in squares.items():
        np.testing.assert_array_equal(to_numpy(pixel_shuffle(x, 2, order)).reshape(4, 2), square)
    x = np.arange(16).reshape(1, 2, 2, 4)
    expected = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    for order in ORDERS:  # the same for one channel
        np.testing.assert_array_equal(to_numpy(pixel_shuffle(x, 2, order))[0, ..., 0], expected)


def test_the_inverse_is_exact():
    x = np.random.default_rng(0).normal(size=(2, 6, 3, 36))
    for factor, dtype in ((1, "bool"), (2, "float32"), (3, "uint8")):
        for order in ORDERS:
            values = x.astype(dtype)
            fine = pixel_shuffle(values, factor, order)
            assert tuple(fine.shape) == (2, 6 * factor, 3 * factor, 36 // factor**2)
            assert keras.backend.standardize_dtype(fine.dtype) == dtype
            np.testing.assert_array_equal(ops.convert_to_numpy(pixel_unshuffle(fine, factor, order)), values)


def test_orders_are_those_of_others():
    fine = ops.depth_to_space(ops.convert_to_tensor(IMAGES), 2, data_format="channels_last")
    np.testing.assert_array_equal(to_numpy(pixel_shuffle(IMAGES, 2, "dcr")), to_numpy(fine))
    np.testing.assert_array_equal(to_numpy(pixel_unshuffle(IMAGES, 2, "dcr")), to_numpy(Squeeze()(IMAGES)[0]))
    torch = pytest.importorskip("torch")
    channels_first = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).copy())
    for ours, theirs in (
        (pixel_shuffle, torch.nn.functional.pixel_shuffle),
        (pixel_unshuffle, torch.nn.functional.pixel_unshuffle),
    ):
        np.testing.assert_array_equal(
            to_numpy(ours(IMAGES, 2)), theirs(channels_first, 2).numpy().transpose(0, 2, 3, 1)
        )


def test_unknown_sizes():
    x = keras.Input((None, None, 8))
    fine = pixel_shuffle(x, 2)
    assert fine.shape == (None, None, None, 2)
    model = keras.Model(x, [fine, pixel_unshuffle(fine, 2), pixel_unshuffle(x, 2)])
    assert model.outputs[1].shape == (None, None, None, 8)
    for y, expected in zip(model(IMAGES), (pixel_shuffle(IMAGES, 2), IMAGES, pixel_unshuffle(IMAGES, 2)), strict=True):
        np.testing.assert_array_equal(to_numpy(y), to_numpy(ops.convert_to_tensor(expected)))
    integers = pixel_unshuffle(keras.Input((4, None, 1), dtype="int32"), 2)
    assert (integers.shape, integers.dtype) == ((None, 2, None, 4), "int32")


@pytest.mark.parametrize("order", ORDERS)
def test_icnr_starts_as_nearest_upsampling(order):
    convolution = keras.layers.Conv2D(32, 3, padding="same", kernel_initializer=ICNR("he_normal", 2, order))
    fine = to_numpy(PixelShuffle2D(2, order)(convolution(IMAGES)))
    np.testing.assert_array_equal(fine, fine[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2))
    kernel = ops.convert_to_tensor(convolution.kernel)[..., ::4] if order == "crd" else convolution.kernel[..., :8]
    small = ops.conv(ops.convert_to_tensor(IMAGES), kernel, padding="same", data_format="channels_last")
    np.testing.assert_allclose(fine[:, ::2, ::2], to_numpy(small), rtol=1e-4, atol=1e-5)
    assert np.abs(to_numpy(small)).max() > 0.1


def test_icnr_is_spread_as_the_initializer_of_the_small_kernel():
    """He's variance is 2 / fan-in; Glorot's, 2 / (fan-in + fan-out), has the fan-out before the square is copied."""
    shape = (3, 3, 64, 256)
    for name, variance in (("he_normal", 2 / (9 * 64)), ("glorot_uniform", 2 / (9 * (64 + 64)))):
        assert to_numpy(ICNR(name)(shape)).var() == pytest.approx(variance, rel=0.05)
    icnr = keras.initializers.get(keras.initializers.serialize(ICNR(keras.initializers.HeNormal(seed=3), 4, "dcr")))
    assert (icnr.factor, icnr.order, icnr.initializer.seed) == (4, "dcr", 3)


def test_filters_of_icnr_are_trained_apart():
    model = keras.Sequential([keras.Input((4, 4, 8)), sub_pixel(2)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(IMAGES, pixel_shuffle(IMAGES, 2), epochs=1, verbose=0)
    kernel = to_numpy(model.weights[0])
    assert (kernel.reshape(8, 2, 4).std(axis=-1) > 0).all()


def test_networks_upsample_by_their_layers():
    for make in (UNet, LightUNet):
        by_weights = keras.layers.Conv2DTranspose(8, 2, 2, data_format="channels_last")
        network = make((4, 4, 1), (8, 8, 8), 1, upsampling=[sub_pixel(4), by_weights])
        fine, coarse = network.upsampling
        assert (coarse.input.shape[1:], coarse.output.shape[1:]) == ((1, 1, 8), (2, 2, 8))
        assert (fine.input.shape[1:], fine.output.shape[1:]) == ((2, 2, 8), (4, 4, 4))


def test_one_layer_for_all_levels_is_one_in_a_copy():
    shared = keras.layers.Conv2DTranspose(8, 2, 2, data_format="channels_last")
    network = UNet((4, 4, 1), (8, 8, 8), 1, upsampling=shared)
    copy = UNet.from_config(network.get_config())
    assert [weight.shape for weight in copy.weights] == [weight.shape for weight in network.weights]
    assert sum(layer is copy.upsampling for layer in copy.layers) == 1
    assert not any(isinstance(layer, keras.layers.UpSampling2D) for layer in copy.layers)


def test_bad_input():
    unet = lambda upsampling, widths=(8, 8, 8): UNet((8, 8, 1), widths, 1, upsampling=upsampling)  # noqa: E731
    nearest = keras.layers.UpSampling2D(data_format="channels_last")
    lines = not_refused(
        [
            ("factor 0", lambda: PixelShuffle2D(0), "`factor` must be an integer >= 1. Received: factor=0"),
            ("factor 2.0", lambda: pixel_unshuffle(IMAGES, 2.0), "`factor` must be an integer >= 1"),
            ("order", lambda: PixelUnshuffle2D(2, "rcd"), "`order` must be one of 'crd', 'dcr'. Received: order='rcd'"),
            ("channels", lambda: pixel_shuffle(IMAGES, 3), r"`x` must have channels divisible by 9. Received: x=shape"),
            ("symbolic channels", lambda: PixelShuffle2D(3)(keras.Input((4, 4, 8))), "`x` must have channels divis"),
            ("unknown channels", lambda: pixel_shuffle(keras.Input((4, 4, None)), 2), "`x` must have a known number"),
            ("height", lambda: pixel_unshuffle(IMAGES[:, :3], 2), "`x` must have height and width divisible by 2"),
            ("width", lambda: PixelUnshuffle2D()(keras.Input((None, 3, 1))), "`x` must have height and width divisib"),
            ("rank", lambda: pixel_shuffle(IMAGES[0], 2), "`x` must be images"),
            ("symbolic rank", lambda: pixel_unshuffle(keras.Input((4, 4)), 2), "`x` must be images"),
            ("complex", lambda: pixel_shuffle(IMAGES * 1j, 2), "`x` must be real numbers"),
            ("filters", lambda: ICNR()((3, 3, 8, 6)), r"`shape` must end in a number of filters divisible by 4"),
            ("no filters", lambda: ICNR()(()), "`shape` must end in a number of filters"),
            ("no initializer", lambda: ICNR(None), "`initializer` must be an initializer of Keras"),
            ("ICNR's factor", lambda: ICNR(factor=True), "`factor` must be an integer >= 1"),
            ("ICNR's order", lambda: ICNR(order="CRD"), "`order` must be one of"),
            ("no layer", lambda: unet("nearest"), "`upsampling` must be a layer, or a sequence of 2 layers"),
            ("one of two", lambda: unet([nearest]), "`upsampling` must be a layer, or a sequence of 2 layers"),
            ("one level", lambda: unet(nearest, (8,)), "`upsampling` must be a layer, or a sequence of 0 layers"),
            ("twice", lambda: unet([nearest, nearest]), "`upsampling` must hold each layer once"),
            ("same size", lambda: unet(keras.layers.ReLU()), "`upsampling` must double height and width"),
            ("no image", lambda: LightUNet((8, 8, 1), (8, 8), 1, upsampling=keras.layers.Flatten()), "`upsampling` mu"),
        ]
    )
    assert not lines, "\n".join(lines)
