import io

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from keras_gen.callbacks import SampleGrid, tensorboard_images
from keras_gen.metrics import frechet_distance
from keras_gen.ops import image_grid


def test_frechet_distance_is_scipys(rng):
    x, y = rng.normal(size=(200, 5)), rng.normal(0.5, 2.0, (300, 5)) @ rng.normal(size=(5, 5))
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cov_x + cov_y - 2 * sqrtm(cov_x @ cov_y).real)
    np.testing.assert_allclose(frechet_distance(x, y), expected, rtol=1e-8)
    np.testing.assert_allclose(frechet_distance(y, x), expected, rtol=1e-8)


def test_frechet_distance_of_known_gaussians(rng):
    x = rng.normal(size=(200_000, 2))
    np.testing.assert_allclose(frechet_distance(x, 3 * x + 1), 2 * (1 + 4), rtol=0.02)
    assert frechet_distance(x, x) < 1e-9


def test_frechet_distance_with_constant_features(rng):
    x = rng.normal(size=(50, 4, 4)) * (np.arange(16).reshape(4, 4) > 3)
    assert np.isfinite(frechet_distance(x, x[:25]))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    n=st.integers(1, 12),
    columns=st.integers(1, 6) | st.none(),
    scale=st.integers(1, 3),
    padding=st.integers(0, 2),
    channels=st.sampled_from([1, 3]),
)
def test_image_grid_holds_every_image_in_its_place(n, columns, scale, padding, channels):
    images = np.random.default_rng(n).uniform(-1, 1, (n, 2, 3, channels))
    grid = image_grid(images, columns, scale, padding)
    columns = columns or int(np.ceil(np.sqrt(n)))
    for i, image in enumerate(images):
        top = (i // columns) * (2 * scale + padding) + padding
        left = (i % columns) * (3 * scale + padding) + padding
        cell = grid[top : top + 2 * scale : scale, left : left + 3 * scale : scale]
        np.testing.assert_allclose(cell, (image + 1) * 127.5, atol=0.5)
    assert grid.dtype == "uint8"


def test_image_grid_clips():
    grid = image_grid(np.array([-9.0, 9.0, 0.0]).reshape(3, 1, 1, 1), columns=3, padding=0)
    assert grid.ravel().tolist() == [0, 255, 128]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: image_grid(np.zeros((2, 4, 4))), r"`images` must have shape \(n, height, width, 1 or 3\)"),
        (lambda: image_grid(np.zeros((0, 4, 4, 1))), "`images` must have shape"),
        (lambda: image_grid(np.zeros((2, 4, 4, 1)), columns=0), "`columns` must be an integer >= 1"),
        (lambda: image_grid(np.zeros((2, 4, 4, 1)), scale=0), "`scale` must be an integer >= 1"),
        (lambda: image_grid(np.zeros((2, 4, 4, 1)), padding=-1), "`padding` must be an integer >= 0"),
        (lambda: image_grid(np.full((2, 4, 4, 1), np.nan)), "`images` must be finite. Received: images=32 NaN or inf"),
        (lambda: frechet_distance(np.zeros((3, 2)), np.full((3, 2), np.nan)), "`y` must be finite"),
        (
            lambda: frechet_distance(np.zeros((3, 2), "complex64"), np.zeros((3, 2))),
            "`x` must be real numbers",
        ),
        (lambda: frechet_distance(np.zeros((3, 2)), np.zeros((3, 2), "str")), "`y` must be real numbers. .*dtype <U1"),
        (lambda: frechet_distance(np.zeros((3, 2), "object"), np.zeros((3, 2))), "`x` must be real numbers. .*object"),
        (lambda: frechet_distance(np.zeros((1, 2)), np.zeros((3, 2))), "`x` must hold at least 2 samples"),
        (lambda: frechet_distance(np.zeros((3, 2)), np.zeros((3, 4))), "`y` must have 2 features like x"),
        (lambda: SampleGrid("grid.jpg"), "`filepath` must end with .png"),
        (lambda: SampleGrid(None), "`filepath` must be given without an `on_image`. Received: filepath=None"),
        (lambda: SampleGrid(on_image="tensorboard"), "`on_image` must be a function or None"),
        (lambda: tensorboard_images(None), "`log_dir` must be a str or path. Received: log_dir=None"),
        (lambda: tensorboard_images("logs", ""), "`name` must be a string of at least one letter"),
        (lambda: SampleGrid(n=0), "`n` must be an integer >= 1"),
        (lambda: SampleGrid("{epoch}_{loss}.png"), "`filepath` must have no field but {epoch}"),
        (lambda: SampleGrid(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: SampleGrid(every=0), "`every` must be an integer >= 1"),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


class Diverged(keras.Model):
    optimizer = None

    def sample(self, n, **options):
        images = np.zeros((n, 2, 2, 1), "float32")
        images[1:] = np.nan
        return images


@pytest.mark.one_backend
def test_a_diverged_model_has_no_picture_but_a_warning(tmp_path):
    grid = SampleGrid(tmp_path / "{epoch}.png", n=4)
    grid.set_model(Diverged())
    with pytest.warns(UserWarning, match="no picture of epoch 3: 3 of 4 samples are not finite"):
        grid.on_epoch_end(2)
    assert not list(tmp_path.iterdir())


class Gray(keras.Model):
    def check_sampling(self, n, **options):
        pass

    def sample(self, n, seed, **options):
        return np.random.default_rng(seed).uniform(-1, 1, (n, 2, 2, 1)).astype("float32")


@pytest.mark.one_backend
def test_any_function_takes_the_pictures_with_files_or_without(tmp_path):
    shown, model = [], Gray()
    for filepath in (None, tmp_path / "{epoch}.png"):
        grid = SampleGrid(filepath, n=4, every=2, seed=3, on_image=lambda *picture: shown.append(picture))
        grid.set_model(model)
        for epoch in range(4):
            grid.on_epoch_end(epoch)
    assert [step for step, _ in shown] == [2, 4, 2, 4]
    for _, picture in shown:
        np.testing.assert_array_equal(picture, image_grid(model.sample(4, 3)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.png", "4.png"]
    written = np.asarray(keras.utils.load_img(tmp_path / "4.png", color_mode="grayscale"))
    np.testing.assert_array_equal(written, shown[0][1][..., 0])


def full(step, picture):
    raise OSError("no space left on device")


@pytest.mark.one_backend
def test_a_function_that_cannot_write_causes_a_warning():
    grid = SampleGrid(None, n=4, on_image=full)
    grid.set_model(Gray())
    with pytest.warns(UserWarning, match="no picture of epoch 1: no space left on device"):
        grid.on_epoch_end(0)


def test_tensorboard_shows_the_pictures(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    grid = SampleGrid(None, n=4, on_image=tensorboard_images(tmp_path / "logs", "digits"))
    grid.set_model(Gray())
    for epoch in range(3):
        grid.on_epoch_end(epoch)
    colored = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype("uint8")
    tensorboard_images(tmp_path / "colored")(7, colored)
    events = accumulators.EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    images = events.Images("digits")
    assert [image.step for image in images] == [1, 2, 3]
    decoded = np.asarray(keras.utils.load_img(io.BytesIO(images[0].encoded_image_string), color_mode="grayscale"))
    np.testing.assert_array_equal(decoded, image_grid(Gray().sample(4, 0))[..., 0])
    events = accumulators.EventAccumulator(str(tmp_path / "colored"))
    events.Reload()
    [image] = events.Images("samples")
    assert (image.step, image.height, image.width) == (7, 5, 4)
    np.testing.assert_array_equal(np.asarray(keras.utils.load_img(io.BytesIO(image.encoded_image_string))), colored)


def test_sample_grid_is_a_keras_callback():
    assert isinstance(SampleGrid(), keras.callbacks.Callback)
