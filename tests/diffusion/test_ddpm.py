import keras
import numpy as np
import pytest
from batch_list import BatchList
from gaussian import gaussian_ddpm
from laws import ddpm, tiny_network

from keras_gen.callbacks import SampleGrid
from keras_gen.core.fixtures import made_alike, randomize_weights, to_numpy
from keras_gen.diffusion.samplers.ddpm import DDPMSampler
from keras_gen.diffusion.schedules.posterior import reverse_rows
from keras_gen.models import DDPM, LightUNet, UNet
from keras_gen.samplers import DDIMSampler
from keras_gen.schedules import CosineSchedule, LinearSchedule, ZeroTerminalSNR


@pytest.mark.parametrize(("prediction", "weighting"), [("epsilon", "simple"), ("x0", "snr"), ("v", "snr")])
def test_loss_of_the_exact_denoiser_is_the_closed_form(prediction, weighting, rng):
    """E SNR |x0 - x0_hat|^2 = mean over t of SNR std^2 sigma^2 / (alpha^2 std^2 + sigma^2)."""
    schedule, std = CosineSchedule(20), 0.5
    model = gaussian_ddpm(schedule, 0.3, std, prediction=prediction, weighting=weighting)
    x = rng.normal(0.3, std, (20_000, 4, 4, 1)).astype("float32")
    loss = float(model.compute_loss(keras.ops.convert_to_tensor(x), training=False))
    alpha, sigma = schedule.alpha(np.arange(20)), schedule.sigma(np.arange(20))
    expected = np.mean(alpha**2 * std**2 / (alpha**2 * std**2 + sigma**2))
    assert abs(loss / expected - 1) < 0.03


def test_bound_is_the_closed_form_and_above_the_entropy(rng):
    std = 0.2
    x = rng.normal(0.0, std, (500, 4, 4, 1)).astype("float32")
    exact = np.log2(std * np.sqrt(2 * np.pi * np.e) * 127.5)
    for steps in (20, 500):
        schedule = CosineSchedule(steps)
        bits = gaussian_ddpm(schedule, 0.0, std).elbo(x, clip_x0=None, seed=0, batch_size=500, verbose=0)
        assert bits.shape == (500,)
        times = np.arange(steps - 1, -2, -1)
        rows = reverse_rows(schedule, times)
        alpha, sigma = schedule.alpha(times[:-1]), schedule.sigma(times[:-1])
        error = std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)
        divergence = (rows["of_x0"] ** 2 * error / np.exp(rows["log_small"]) / 2)[:-1].sum()
        # the last term by quadrature over x0_hat - x0
        from scipy.stats import norm

        offset, scale = np.sqrt(error[-1]) * np.linspace(-8, 8, 2001), np.exp(rows["log_small"][-1] / 2)
        probability = norm.cdf((1 / 255 - offset) / scale) - norm.cdf((-1 / 255 - offset) / scale)
        density = norm.pdf(np.linspace(-8, 8, 2001))
        last = -(density * np.log(np.maximum(probability, 1e-30))).sum() / density.sum()
        prior = 0.5 * (sigma[0] ** 2 - 1 - np.log(sigma[0] ** 2) + alpha[0] ** 2 * std**2)
        expected = (divergence + last + prior) / np.log(2)
        assert abs(bits.mean() - expected) < 5 * bits.std() / np.sqrt(500)
        assert exact < bits.mean() < exact + 1


def test_bound_with_labels_and_learned_range_is_finite(digits):
    images, labels = digits
    model = ddpm(10, variance="learned_range")
    bits = model.elbo(images[:3], condition=labels[:3], levels=17, seed=0, verbose=0)
    assert np.isfinite(bits).all()
    with pytest.raises(ValueError, match="`condition` must be given"):
        model.elbo(images[:3])
    with pytest.raises(ValueError, match="`levels` must be an integer >= 2"):
        model.elbo(images[:3], condition=0, levels=1)


def test_labels_change_the_samples():
    model = ddpm(10)
    randomize_weights(model)
    noise = np.ones((2, 8, 8, 1))
    samples = model.sample(2, DDIMSampler(5), condition=[1, 7], noise=noise, verbose=0)
    assert np.abs(samples[0] - samples[1]).max() > 1e-3
    one = model.sample(2, DDIMSampler(5), condition=7, noise=noise, verbose=0)
    np.testing.assert_allclose(one[0], samples[1], atol=1e-5)


def raw_weights(model):
    with model.averaged_weights():  # which fetches them from Keras's training loop on JAX
        pass
    return model.get_weights()


def test_fit_ends_on_the_averages_and_can_go_on(digits):
    images = digits[0][:64]
    model = made_alike(ddpm)
    raw = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: raw.append(raw_weights(model)))
    model.fit(images, epochs=1, batch_size=16, verbose=0, callbacks=[watch])
    assert any(np.abs(a - b).max() > 1e-6 for a, b in zip(raw[-1], model.get_weights(), strict=True))
    # all of these fail on JAX if weights and averages share their memory
    model.evaluate(images, verbose=0)
    model.fit(images, epochs=1, verbose=0)
    assert np.isfinite(model.evaluate(images, verbose=0))


def test_killed_fit_resumes_as_if_nothing_had_happened(digits, tmp_path):
    images = digits[0][:64]

    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("killed")

    def fit(model, *callbacks):
        return model.fit(images, epochs=4, batch_size=16, shuffle=False, verbose=0, callbacks=[*callbacks])

    whole = made_alike(ddpm)
    fit(whole)
    with pytest.raises(RuntimeError, match="killed"):
        fit(made_alike(ddpm), keras.callbacks.BackupAndRestore(tmp_path), Kill())
    resumed = ddpm()
    history = fit(resumed, keras.callbacks.BackupAndRestore(tmp_path))
    assert history.epoch == [2, 3]
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-4, atol=1e-5)


def test_sample_grid_shows_the_averages_and_leaves_the_weights(digits, tmp_path):
    images = digits[0][:32]
    model, plain = made_alike(ddpm), made_alike(ddpm)
    grid = SampleGrid(tmp_path / "new" / "{epoch:02d}.png", n=4, every=2, scale=2, sampler=DDIMSampler(5))
    model.fit(images, epochs=4, shuffle=False, verbose=0, callbacks=[grid])
    plain.fit(images, epochs=4, shuffle=False, verbose=0)
    assert [file.name for file in sorted((tmp_path / "new").iterdir())] == ["02.png", "04.png"]
    for a, b in zip(model.weights, plain.weights, strict=True):
        np.testing.assert_allclose(to_numpy(a), to_numpy(b), rtol=1e-5, atol=1e-6)
    picture = keras.utils.img_to_array(keras.utils.load_img(tmp_path / "new" / "04.png", color_mode="grayscale"))
    samples = model.sample(4, DDIMSampler(5), seed=0, verbose=0)  # `fit` ended on the averages
    pixels = np.clip((samples[0, :, :, 0] + 1) * 127.5, 0, 255).round()
    np.testing.assert_allclose(picture[1:17:2, 1:17:2, 0], pixels, atol=1)


def test_validation_data_are_evaluated_with_labels(digits):
    images, labels = digits
    history = ddpm(10).fit(images[:32], labels[:32], validation_data=(images[32:64], labels[32:64]), verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    with pytest.raises(ValueError, match="`y` must be labels in 0 .. 9"):
        DDPM(UNet((8, 8, 1), (4,), 1, num_classes=10), LinearSchedule(10)).evaluate(images[:2], labels[:2] + 10)


def test_sample_weight_and_datasets(digits):
    images, labels = digits

    model = ddpm(10)
    model.fit(BatchList([(images[:16], labels[:16])] * 2), verbose=0)
    before = [to_numpy(weight).copy() for weight in model.weights]
    model.compile(keras.optimizers.SGD(1.0))
    model.fit(images[:32], labels[:32], sample_weight=np.zeros(32, "float32"), verbose=0)
    for a, b in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(a, to_numpy(b))
    with pytest.raises(ValueError, match="`sample_weight` must come with `y`"):
        ddpm().fit(images[:32], sample_weight=np.zeros(32, "float32"), verbose=0)


def test_weight_regularization_counts(rng):
    x, t = keras.Input((4, 4, 1)), keras.Input((), dtype="int32")
    y = keras.layers.Conv2D(1, 1, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(1000.0))(x)
    model = DDPM(keras.Model([x, t], y), LinearSchedule(10), seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    images = rng.normal(size=(4, 4, 4, 1)).astype("float32")
    assert model.fit(images, verbose=0).history["loss"][0] > 1000


def test_mixed_precision_trains_with_float32_noise(digits):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = ddpm()
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.network.compute_dtype == "bfloat16"
    losses = model.fit(digits[0][:64], epochs=3, batch_size=16, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    samples = model.sample(2, DDPMSampler(5), seed=0, verbose=0)
    assert samples.dtype == "float32"
    assert np.isfinite(samples).all()


def test_points_are_data_too(rng):
    """Nothing in the model says that data are images."""
    x, t = keras.Input((2,)), keras.Input((), dtype="int32")
    embedding = keras.layers.Embedding(20, 8)(t)
    h = keras.layers.Dense(16, activation="silu")(keras.layers.Concatenate()([x, embedding]))
    model = DDPM(keras.Model([x, t], keras.layers.Dense(2)(h)), CosineSchedule(20), seed=0)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(rng.normal(size=(64, 2)).astype("float32"), epochs=1, verbose=0)
    assert model.sample(5, verbose=0).shape == (5, 2)


def test_size_is_learned_from_data():
    model = DDPM(LightUNet((None, None, 1), (8,), 1), LinearSchedule(2))
    with pytest.raises(ValueError, match="`noise` must be given until the image shape is known"):
        model.sample(1)
    for shape in ((1, 4, 6, 1), (1, 8, 8, 1)):  # any size the network takes
        assert model.sample(1, noise=np.zeros(shape), verbose=0).shape == shape
    assert model.sample(1, verbose=0).shape == (1, 4, 6, 1)
    unsized = DDPM(LightUNet((None, None, 1), (8,), 1), LinearSchedule(2))
    unsized.build((None, None, None, 1))
    assert unsized.sample(1, noise=np.zeros((1, 4, 4, 1)), verbose=0).shape == (1, 4, 4, 1)


IMAGES = np.zeros((4, 8, 8, 1), "float32")
LABELS = np.array([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("classes", "x", "y", "match"),
    [
        (None, IMAGES.astype("uint8"), None, "`x` must be floating-point images.* Received: x=dtype uint8"),
        (None, IMAGES[:0], None, "`x` must hold at least one image"),
        (None, IMAGES + np.nan, None, "`x` must be finite"),
        (None, IMAGES[..., 0], None, r"`x` must have shape \(n, 8, 8, 1\). Received: x=shape \(4, 8, 8\)"),
        (None, IMAGES[:, :4], None, r"`x` must have shape \(n, 8, 8, 1\)"),
        (None, IMAGES, LABELS, "`y` must be None: the network takes no condition"),
        (4, IMAGES, None, "`y` must be given: the network takes a condition"),
        (4, IMAGES, LABELS[:2], r"`y` must be integer labels of shape \(4,\)"),
        (4, IMAGES, LABELS + 0.5, "`y` must be integer labels"),
        (4, IMAGES, np.stack([LABELS, LABELS], axis=1), "`y` must be integer labels"),
        (4, IMAGES, LABELS + 1, r"`y` must be labels in 0 .. 3. Received: y=\[4\]"),
        (4, IMAGES, LABELS - 1, r"`y` must be labels in 0 .. 3. Received: y=\[-1\]"),
    ],
)
def test_bad_data_is_refused_before_a_step(classes, x, y, match):
    model = DDPM(UNet((8, 8, 1), (4, 4), 1, num_classes=classes), LinearSchedule(10))
    model.compile(keras.optimizers.Adam())
    with pytest.raises(ValueError, match=match):
        model.fit(x, y, verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize(
    ("classes", "batch", "match"),
    [
        (None, (IMAGES.astype("uint8"),), "`x` must be floating-point images"),
        (None, (IMAGES, LABELS), "`y` must be None: the network takes no condition"),
        (4, (IMAGES,), "`y` must be given: the network takes a condition"),
    ],
)
def test_bad_batches_of_a_dataset_are_refused(classes, batch, match):
    model = DDPM(UNet((8, 8, 1), (4,), 1, num_classes=classes), LinearSchedule(10))
    model.compile(keras.optimizers.Adam())
    with pytest.raises(ValueError, match=match):
        model.fit(BatchList([batch]), verbose=0)


def test_what_epochs_later_would_fail_is_refused_at_once(tmp_path):
    model = DDPM(UNet((8, 8, 1), (4,), 1, num_classes=4), LinearSchedule(10))
    model.compile(keras.optimizers.Adam())
    for grid, match in (
        (SampleGrid(tmp_path / "a.png"), "`condition` must be given"),
        (SampleGrid(tmp_path / "a.png", condition=0, sampler=DDIMSampler(11)), "`steps` must be at most"),
        (SampleGrid(tmp_path / "a.png", condition=0, sampler="ddim"), "`sampler` must be a DiffusionSampler"),
    ):
        with pytest.raises(ValueError, match=match):
            model.fit(IMAGES, LABELS, callbacks=[grid], verbose=0)
    with pytest.raises(ValueError, match="`y` must be given"):
        model.fit(IMAGES, LABELS, validation_data=(IMAGES,), verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize("argument", ["loss", "metrics"])
def test_compile_refuses_what_it_would_ignore(argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be left out"):
        ddpm().compile("adam", **{argument: ["mse"]})


def test_a_file_does_not_carry_the_backends_compiler(tmp_path):
    """Keras would write jit_compile=True on JAX, with which the file would not train on torch."""
    model = ddpm()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.use_ema
    for one in (model, loaded):
        assert one.get_compile_config()["jit_compile"] == "auto"
    loaded.fit(np.zeros((4, 8, 8, 1), "float32"), verbose=0)


def test_sample_weight_may_be_a_column(digits):
    images, labels = digits[0][:4], digits[1][:4]
    weight = np.array([4.0, 0.0, 0.0, 0.0], "float32")
    losses = [
        made_alike(lambda: ddpm(10)).evaluate(images, labels, sample_weight=w, verbose=0)
        for w in (None, weight, weight[:, None])
    ]
    assert losses[1] == pytest.approx(losses[2])
    assert losses[0] != pytest.approx(losses[1])


@pytest.mark.parametrize("name", ["elbo", "denoise_from", "interpolate"])
@pytest.mark.parametrize(
    ("images", "match"),
    [
        (IMAGES.astype("uint8"), "must be floating-point images"),
        (IMAGES + np.nan, "must be finite"),
        (IMAGES[:0], "must hold at least one image"),
        (IMAGES[..., 0], r"must have shape \(n, 8, 8, 1\)"),
    ],
)
def test_bad_images_are_refused_everywhere(name, images, match):
    model = ddpm()
    call = {
        "elbo": lambda: model.elbo(images),
        "denoise_from": lambda: model.denoise_from(images, 3),
        "interpolate": lambda: model.interpolate(images, images, 3),
    }[name]
    with pytest.raises(ValueError, match=match):
        call()


def test_bound_refuses_pixels_outside_its_bins():
    with pytest.raises(ValueError, match=r"`x` must have pixel values in \[-1, 1\]"):
        ddpm().elbo(IMAGES + 1.5)


def test_bad_dataset_is_refused():
    model = DDPM(UNet((None, None, 1), (4, 4, 4), 1), LinearSchedule(10))
    model.compile(keras.optimizers.Adam())
    with pytest.raises(ValueError, match="multiples of 4, with 3 levels"):
        model.fit(BatchList([np.zeros((2, 6, 6, 1), "float32")]), verbose=0)


def one_input():
    x = keras.Input((8, 8, 1))
    return keras.Model(x, keras.layers.ReLU()(x))


def constant_output(shape):
    x, t = keras.Input((8, 8, 1)), keras.Input((), dtype="int32")
    return keras.Model([x, t], keras.layers.Conv2D(shape[-1], 1, strides=8 // shape[0])(x))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: DDPM(lambda x: x), "`network` must be a keras.Layer"),
        (lambda: DDPM(tiny_network(), schedule="linear"), "`schedule` must be a DiscreteSchedule"),
        (lambda: DDPM(tiny_network(), prediction="eps"), "`prediction` must be one of 'epsilon', 'x0', 'v'"),
        (lambda: DDPM(tiny_network(), variance="fixed"), "`variance` must be one of 'fixed_small', 'fixed_large'"),
        (lambda: DDPM(tiny_network(), weighting="min-snr"), "`weighting` must be one of"),
        (lambda: DDPM(tiny_network(), variance="learned_range"), r"`network` must give outputs of shape \(8, 8, 2\)"),
        (lambda: DDPM(constant_output((8, 8, 3))), r"`network` must give outputs of shape \(8, 8, 1\)"),
        (lambda: DDPM(constant_output((4, 4, 1))), "`network` must give outputs of shape"),
        (lambda: DDPM(tiny_network(), ZeroTerminalSNR(LinearSchedule())), "`prediction` must be 'v', 'x0' or"),
        (lambda: DDPM(tiny_network(), seed=-1), "`seed` must be an integer >= 0"),
        (lambda: DDPM(LightUNet((8, 8, 1), (4,), 1, 10), LinearSchedule(11)), "`network` must support 11 times"),
        (
            lambda: DDPM(one_input()),
            "`network` must take x_t, t and, optionally",
        ),
    ],
)
def test_bad_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make()
