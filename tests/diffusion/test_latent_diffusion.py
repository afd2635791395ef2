import keras
import numpy as np
import pytest
from batch_list import BatchList

from keras_gen.core.fixtures import randomize_weights, save_and_load, to_numpy
from keras_gen.layers import SinusoidalEmbedding, VectorQuantizer
from keras_gen.models import DDPM, EDM, VAE, VQVAE, DiT, LatentDiffusion, PixelTransformer, RectifiedFlow, UNet
from keras_gen.samplers import ClassifierFreeGuidance, DDIMSampler, EulerSampler
from keras_gen.schedules import CosineSchedule, LinearSchedule

IMAGES = np.random.default_rng(0).uniform(-1, 1, (40, 4, 4, 1)).astype("float32") + np.float32(0.3)
LABELS = np.arange(40, dtype="int32") % 3
LATENT = (2, 2, 3)
CFG = ClassifierFreeGuidance(2.0)


@keras.saving.register_keras_serializable("tests")
class Halving(keras.Model):
    """A user's autoencoder without weights: blocks of 2 x 2 pixels become channels, scaled and shifted."""

    def __init__(self, scale=4.0, shift=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale, self.shift, self.encoded = scale, shift, 0
        self.built = True

    def encode(self, x):
        self.encoded += len(x)
        n, height, width, _ = x.shape
        blocks = x.reshape(n, height // 2, 2, width // 2, 2, 1).transpose(0, 1, 3, 2, 4, 5)
        return self.scale * blocks.reshape(n, height // 2, width // 2, 4) + self.shift

    def decode(self, z):
        n, height, width, _ = z.shape
        blocks = ((z - self.shift) / self.scale).reshape(n, height, width, 2, 2, 1)
        return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, 2 * width, 1)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "shift": self.shift}


class Bad(Halving):
    def __init__(self, encode=None, decode=None):
        super().__init__()
        self.own = {"encode": encode, "decode": decode}

    def encode(self, x):
        return (self.own["encode"] or super().encode)(x)

    def decode(self, z):
        return (self.own["decode"] or super().decode)(z)


def vae():
    conv, up = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    x, z = keras.Input((4, 4, 1)), keras.Input(LATENT)
    encoder = keras.Model(x, [conv(3, 2, 2)(x), conv(3, 2, 2)(x)])
    model = VAE(encoder, keras.Model(z, up(1, 2, 2)(z)), "gaussian", seed=0)
    model.build((None, 4, 4, 1))
    return model


def vqvae():
    conv, up = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    encoder = keras.Sequential([keras.Input((4, 4, 1)), conv(3, 2, 2)])
    decoder = keras.Sequential([keras.Input(LATENT), up(1, 2, 2)])
    return VQVAE(encoder, decoder, VectorQuantizer(5, seed=0), seed=0)


def tiny(latent_shape=LATENT, real_times=False):
    x, t = keras.Input(latent_shape), keras.Input((), dtype="float32" if real_times else "int32")
    embedding = keras.layers.Reshape((1, 1, 4))(keras.layers.Dense(4)(SinusoidalEmbedding(4)(t)))
    h = keras.layers.Add()([keras.layers.Dense(4)(x), embedding])
    return keras.Model([x, t], keras.layers.Dense(latent_shape[-1])(keras.layers.Activation("silu")(h)))


def ddpm(network=None, **options):
    return DDPM(tiny() if network is None else network, CosineSchedule(10), seed=0, **options)


def latent(autoencoder=None, diffusion=None, optimizer="adam"):
    autoencoder = vae() if autoencoder is None else autoencoder
    model = LatentDiffusion(autoencoder, ddpm() if diffusion is None else diffusion, seed=0)
    model.compile(optimizer)
    return model


def fitted(*parts, y=None, **options):
    model = latent(*parts, **options)
    model.fit(IMAGES, y, batch_size=20, verbose=0)
    return model


def moments(model):
    return [to_numpy(model.latent_mean), to_numpy(model.latent_deviation)]


@pytest.mark.parametrize("make", [vae, vqvae])
def test_latents_have_mean_0_and_deviation_1(make):
    autoencoder = make()
    model = fitted(autoencoder)
    z = model.encode(IMAGES)
    assert z.dtype == "float32"
    np.testing.assert_allclose(z.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(), 1, rtol=1e-5)
    vectors = getattr(autoencoder, "encode_vectors", autoencoder.encode)(IMAGES)
    mean, deviation = moments(model)
    np.testing.assert_allclose(mean, vectors.mean(axis=(0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(np.mean((vectors - mean) ** 2)), rtol=1e-5)
    np.testing.assert_allclose(z, (vectors - mean) / deviation, atol=1e-5)
    np.testing.assert_allclose(model.reconstruct(IMAGES), autoencoder.reconstruct(IMAGES), atol=1e-5)
    np.testing.assert_allclose(model.decode(z[:3]), autoencoder.reconstruct(IMAGES[:3]), atol=1e-5)


def test_measured_once_and_kept_in_files():
    model = fitted()
    first, restored = moments(model), save_and_load(model)
    restored.fit(5 * IMAGES[:20] - 2, verbose=0)
    model.fit(5 * IMAGES[:20] - 2, verbose=0)
    for kept in (model, restored):
        np.testing.assert_array_equal(moments(kept)[0], first[0])
        np.testing.assert_array_equal(moments(kept)[1], first[1])
    model.adapt(5 * IMAGES[:20] - 2, verbose=0)
    np.testing.assert_allclose(moments(model)[1], 5 * first[1], rtol=0.1)
    z = model.encode(5 * IMAGES[:20] - 2)
    np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=1e-5)


def test_file_gives_the_same_samples():
    model = fitted(diffusion=RectifiedFlow(tiny(real_times=True), seed=0))
    loaded = save_and_load(model)
    samples = [kept.sample(3, EulerSampler(3), seed=1, verbose=0) for kept in (model, loaded)]
    np.testing.assert_allclose(*samples, rtol=1e-5, atol=1e-6)
    drawn = [kept.sample(3, EulerSampler(3), verbose=0) for kept in (model, loaded)]
    np.testing.assert_allclose(*drawn, rtol=1e-5, atol=1e-6)
    assert not loaded.autoencoder.trainable
    assert {v.path for v in loaded.trainable_variables} == {v.path for v in loaded.diffusion.trainable_variables}


def test_file_of_a_trained_autoencoder_holds_no_optimizer_of_its_own():
    autoencoder = vae()
    autoencoder.compile("adam")
    autoencoder.fit(IMAGES, verbose=0)
    loaded = save_and_load(fitted(autoencoder))
    assert loaded.compiled
    assert not loaded.autoencoder.compiled
    loaded.fit(IMAGES, verbose=0)


@pytest.mark.parametrize("make", [vae, vqvae])
def test_the_autoencoder_is_frozen(make):
    autoencoder = make()
    before = [to_numpy(weight).copy() for weight in autoencoder.weights]
    model = latent(autoencoder, optimizer=keras.optimizers.AdamW(0.1, weight_decay=0.5, use_ema=True))
    network_before = [to_numpy(weight).copy() for weight in model.diffusion.network.weights]
    model.fit(IMAGES, batch_size=20, epochs=2, verbose=0)
    for a, b in zip(before, autoencoder.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(b), a)
    for a, b in zip(network_before, model.diffusion.network.weights, strict=True):
        assert np.abs(to_numpy(b) - a).max() > 1e-3


def test_samples_are_decoded_samples_of_the_diffusion():
    model = fitted()
    z = model.diffusion.sample(5, seed=3, verbose=0)
    np.testing.assert_array_equal(model.sample(5, seed=3, verbose=0), model.decode(z))
    mean, deviation = moments(model)
    np.testing.assert_allclose(model.decode(z), model.autoencoder.decode(mean + deviation * z), rtol=1e-5, atol=1e-5)
    noise = np.random.default_rng(0).standard_normal((2, *LATENT)).astype("float32")
    step_noise = np.random.default_rng(1).standard_normal((10, 2, *LATENT)).astype("float32")
    options = {"noise": noise, "step_noise": step_noise, "seed": 0, "verbose": 0}
    by_hand = model.decode(model.diffusion.sample(2, **options))
    np.testing.assert_allclose(model.sample(2, batch_size=1, **options), by_hand, rtol=1e-4, atol=1e-4)


def test_a_user_autoencoder_encodes_each_image_once():
    autoencoder = Halving()
    model = latent(autoencoder, ddpm(tiny((2, 2, 4))))
    model.compile("adam")
    model.fit(IMAGES, epochs=3, verbose=0, validation_data=(IMAGES[:10], None))
    batches = 40 + 10 if keras.backend.backend() == "torch" else 64 + 16  # programs are compiled for powers of two
    assert autoencoder.encoded == batches + 2  # each check takes one more
    np.testing.assert_allclose(model.reconstruct(IMAGES), IMAGES, atol=1e-5)
    mean = moments(model)[0]
    np.testing.assert_allclose(mean, autoencoder.encode(IMAGES).mean(axis=(0, 1, 2)), rtol=1e-5)
    loaded = save_and_load(model)
    np.testing.assert_allclose(loaded.sample(2, seed=0, verbose=0), model.sample(2, seed=0, verbose=0), atol=1e-5)


def test_validation_is_evaluation_of_images():
    flow = RectifiedFlow(tiny(real_times=True), seed=0)
    model = latent(diffusion=flow)
    history = model.fit(IMAGES, verbose=0, validation_data=(IMAGES, None), validation_batch_size=40, epochs=2).history
    assert np.isfinite(history["val_loss"]).all()
    again = model.evaluate(IMAGES, batch_size=40, verbose=0)
    np.testing.assert_allclose(again, history["val_loss"][-1], rtol=0.3)
    assert 0.3 < again < 3  # |eps - z|^2 of unit latents is 2
    split = model.fit(IMAGES, verbose=0, validation_split=0.5).history
    assert np.isfinite(split["val_loss"]).all()


def test_datasets_hold_latents():
    model = latent()
    with pytest.raises(ValueError, match="`x` must be an array of images until `adapt` is called: datasets must"):
        model.fit(BatchList([(IMAGES,)]), verbose=0)
    model.adapt(IMAGES, verbose=0)
    z = model.encode(IMAGES)
    latents = BatchList([(z[:20],), (z[20:40],)])
    assert np.isfinite(model.fit(latents, validation_data=latents, verbose=0).history["val_loss"]).all()
    assert np.isfinite(model.evaluate(latents, verbose=0))


def test_networks_of_unknown_input():
    class Scale(keras.layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(), initializer="ones")

        def call(self, inputs):
            return self.w * inputs[0]

    model = latent(diffusion=ddpm(Scale()))
    with pytest.raises(ValueError, match="`model` must be built"):
        model.sample(1, verbose=0)
    model.fit(IMAGES, verbose=0)
    assert model.sample(2, verbose=0).shape == (2, 4, 4, 1)


def test_the_loss_is_that_of_the_diffusion_on_latents():
    model = latent()
    model.compile(keras.optimizers.SGD(0.0))
    loss = model.fit(IMAGES, batch_size=40, shuffle=False, verbose=0).history["loss"]
    alone = ddpm(model.diffusion.network)
    alone.compile(keras.optimizers.SGD(0.0))
    expected = alone.fit(model.encode(IMAGES), batch_size=40, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def model_with_labels():
    return latent(diffusion=ddpm(conditional({"num_classes": 3})))


def conditional(own):
    """Returns a small network; of those that know a null condition, only the U-Net takes tokens."""
    if own.get("condition_dim") == (6, 5):
        return UNet(LATENT, (8,), 1, (0,), **own)
    return DiT(LATENT, 2, 8, 1, 1, "sincos", **own)


def test_weights_of_samples_reach_the_loss():
    model = latent()
    z = IMAGES[:, :2, :2].repeat(3, axis=-1)
    weights = [np.full(40, weight, "float32") for weight in (0, 1)]
    losses = [to_numpy(model.compute_loss(x=z, sample_weight=weight)) for weight in weights]
    assert losses[0] == 0 < losses[1]


def conditions(kind):
    generator = np.random.default_rng(0)
    shapes = {"labels": None, "vectors": (40, 5), "tokens": (40, 6, 5)}
    return LABELS if kind == "labels" else generator.standard_normal(shapes[kind]).astype("float32")


@pytest.mark.parametrize("kind", ["labels", "vectors", "tokens"])
def test_conditions_and_guidance(kind):
    own = {"labels": {"num_classes": 3}, "vectors": {"condition_dim": 5}, "tokens": {"condition_dim": (6, 5)}}[kind]
    network = conditional(own)
    y = conditions(kind)
    model = fitted(None, ddpm(network, condition_dropout=0.2), y=y)
    randomize_weights(network, scale=1.0)
    options = {"seed": 1, "verbose": 0, "sampler": DDIMSampler(3)}
    plain = model.sample(2, condition=y[:2], **options)
    other = model.sample(2, condition=y[2:4], **options)
    guided = model.sample(2, condition=y[:2], guidance=CFG, **options)
    assert plain.shape == guided.shape == (2, 4, 4, 1)
    assert np.abs(plain - other).max() > 1e-3
    assert np.abs(plain - guided).max() > 1e-3
    if kind != "labels":  # whose null class has a vector of its own
        null = model.sample(2, condition=np.zeros_like(y[:2]), **options)
        unguided = model.sample(2, condition=y[:2], guidance=ClassifierFreeGuidance(0.0), **options)
        np.testing.assert_allclose(unguided, null, atol=1e-4)


def named():
    diffusion = ddpm(conditional({"num_classes": 3}))
    return LatentDiffusion(vae(), diffusion, sampler=DDIMSampler(3), labels={"cat": 1, "dog": 2, "puppy": 2})


def test_classes_by_name_and_a_sampler_of_its_own():
    model, options = named(), {"seed": 0, "verbose": 0}
    randomize_weights(model.diffusion, scale=1.0)
    images = model.sample(2, DDIMSampler(3), [2, 1], **options)
    np.testing.assert_array_equal(model.sample(2, condition=["puppy", "cat"], **options), images)
    np.testing.assert_allclose(model.sample(1, condition="dog", **options), images[:1], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(save_and_load(model).sample(2, condition=["dog", "cat"], **options), images)
    assert np.abs(model.sample(1, condition="cat", **options) - images[:1]).max() > 1e-3


class Perfect(keras.layers.Layer):
    """The best denoiser of standard normal data: of `x_t = alpha x0 + sigma eps` with variance 1, E[v | x_t] = 0."""

    def __init__(self):
        super().__init__()
        self.built = True

    def call(self, inputs):
        return 0 * inputs[0]


def test_gaussian_images_come_back():
    # Images whose latents are normal and independent: their best denoiser and its variance are known.
    images = np.random.default_rng(0).normal(0.5, 0.2, (2000, 4, 4, 1)).astype("float32")
    schedule = LinearSchedule(50, beta_end=0.3)
    model = LatentDiffusion(Halving(), DDPM(Perfect(), schedule, "v", "fixed_large"), seed=0)
    model.adapt(images, verbose=0)
    samples = model.sample(2000, seed=0, batch_size=2000, verbose=0)
    np.testing.assert_allclose(samples.mean(), 0.5, atol=0.005)
    np.testing.assert_allclose(samples.std(), 0.2, rtol=0.02)


def test_files_of_an_autoencoder_that_was_trained_with_averages():
    """On JAX, its weights and its optimizer's averages share buffers, which `fit` gives away."""
    autoencoder = vqvae()
    autoencoder.compile(keras.optimizers.Adam(use_ema=True))
    autoencoder.fit(IMAGES, verbose=0)
    model = latent(autoencoder, ddpm())
    model.fit(IMAGES, verbose=0)
    expected = model.reconstruct(IMAGES[:2])
    np.testing.assert_allclose(save_and_load(model).reconstruct(IMAGES[:2]), expected, atol=1e-6)
    save_and_load(autoencoder)


def test_no_metrics_of_the_autoencoder():
    autoencoder = vqvae()
    autoencoder.compile("adam")
    autoencoder.fit(IMAGES, verbose=0)
    model = latent(autoencoder, ddpm())
    assert set(model.fit(IMAGES, verbose=0).history) == {"loss"}
    assert np.ndim(model.evaluate(IMAGES, verbose=0)) == 0


def test_edm_of_unit_deviation():
    assert np.isfinite(fitted(diffusion=EDM(tiny(real_times=True), sigma_data=1.0, seed=0)).sample(2, verbose=0)).all()


def unbuilt():
    x = keras.Input((4, 4, 1))
    return VAE(keras.Model(x, [x, x]), keras.layers.Identity())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: latent(keras.layers.Identity()),
            "`autoencoder` must be a keras.Layer or keras.Model with methods enco",
        ),
        (lambda: latent(object()), "`autoencoder` must be a keras.Layer or keras.Model with methods encode and decode"),
        (lambda: latent(unbuilt()), "`autoencoder` must be built: train it first"),
        (lambda: LatentDiffusion(vae(), tiny()), "`diffusion` must be a diffusion model, such as DDPM"),
        (lambda: latent(diffusion=ddpm(tiny((2, 2, 5)))).fit(IMAGES), r"`latents` must have shape \(n, 2, 2, 5\)"),
        (lambda: latent(diffusion=ddpm(tiny((4, 4, 3)))).adapt(IMAGES), r"`latents` must have shape \(n, 4, 4, 3\)"),
        (
            lambda: latent(Bad(decode=lambda z: z), ddpm(tiny((2, 2, 4)))).fit(IMAGES),
            r"`autoencoder` must decode to its input's shape, \(4, 4, 1\). Received: autoencoder=shape \(2, 2, 4\)",
        ),
        (
            lambda: latent(Bad(lambda x: x[:, :2, :2].astype("int32"))).fit(IMAGES),
            "`autoencoder` must encode to real numbers, not to codes. Received: autoencoder=latents of int32",
        ),
        (
            lambda: latent(Bad(lambda x: np.zeros((len(x), *LATENT), "float32"), lambda z: IMAGES[:1])).fit(IMAGES),
            "`latents` must have a finite, nonzero standard deviation. Received: latents=standard deviation 0.0",
        ),
        (
            lambda: latent(Bad(lambda x: np.full((len(x), *LATENT), np.nan, "float32"))).fit(IMAGES),
            "`latents` must be finite",
        ),
        (lambda: latent(diffusion=EDM(tiny(real_times=True))), "`diffusion` must have sigma_data=1"),
        (lambda: latent().fit(IMAGES[:0]), "`x` must hold at least one image"),
        (lambda: latent().fit((255 * IMAGES).astype("uint8")), "`x` must be floating-point"),
        (lambda: latent().fit(IMAGES, LABELS), "`y` must be None: the network takes no condition"),
        (lambda: latent().fit(IMAGES, validation_data=(IMAGES[:, :2], None)), "`x` must have shape"),
        (lambda: model_with_labels().fit(IMAGES), "`y` must be given: the network takes a condition"),
        (lambda: model_with_labels().fit(IMAGES, LABELS + 1), r"`y` must be labels in 0 .. 2"),
        (lambda: latent().evaluate(IMAGES, LABELS), "`y` must be None"),
        (lambda: latent().sample(0), "`n` must be an integer >= 1"),
        (lambda: latent().sample(1, condition=1), "`condition` must be None"),
        (lambda: latent().check_sampling(1, condition=1), "`condition` must be None"),
        (lambda: named().sample(1, condition="bird"), r"`condition` must be classes by number, or by name.*\['bird'\]"),
        (lambda: latent().check_sampling(1, condition="cat"), "`condition` must be None"),
        (lambda: latent().to_diffusers("pipeline"), "`autoencoder` must have 1 / deviation and mean of the latents"),
        (lambda: LatentDiffusion(vae(), ddpm(), sampler="ddim"), "`sampler` must be a DiffusionSampler or None"),
        (lambda: latent().decode(IMAGES), r"`z` must have shape \(n, 2, 2, 3\)"),
        (lambda: latent().encode(IMAGES, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda: latent().compile("adam", "mse"), "`loss` must be left out"),
        (
            lambda: ddpm(UNet(LATENT, (8,), 1, (0,), condition_dim=(6, 5))).sample(2, condition=IMAGES[:2, 0]),
            r"`condition` must have shape \(n, 6, 5\). Received: condition=shape \(2, 4, 1\)",
        ),
        (
            lambda: ddpm(UNet(LATENT, (8,), 1, (0,), condition_dim=(None, 5))).sample(2, condition=IMAGES[:2, 0]),
            r"`condition` must have shape \(n, None, 5\)",
        ),
        (
            lambda: ddpm(UNet(LATENT, (8,), 1, condition_dim=5)).sample(2, condition=IMAGES[:2, 0]),
            r"`condition` must have shape \(n, 5\)",
        ),
        (
            lambda: DiT((4, 4, 1), condition_dim=(6, 5)),
            "`condition_dim` must be an integer >= 1: a pair is for networks",
        ),
        (
            lambda: PixelTransformer((4, 4, 1), condition_dim=(6, 5)),
            "`condition_dim` must be an integer >= 1: a pair is",
        ),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()
