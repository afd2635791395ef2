import keras
import numpy as np
import pytest
from keras import ops
from laws import vqgan, vqvae
from programs import one_program

from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load, to_numpy
from keras_gen.layers import VectorQuantizer
from keras_gen.losses import feature_distance
from keras_gen.models import VQGAN, VQVAE
from keras_gen.ops import gradient
from keras_gen.quantization.vqgan import LastKernel, balance

layers = keras.layers
SGD = keras.optimizers.SGD
LOGS = {"reconstruction", "commitment", "perceptual", "discriminator_loss", "generator_loss", "adaptive_weight"}


def autoencoder():
    # A codebook that hardly moves, and no draws: what a step does can be computed from outside.
    codes = {"decay": 0.999999, "initializer": keras.initializers.RandomNormal(seed=0)}
    model = vqvae(VectorQuantizer(8, **codes, seed=0))
    for part in (model.encoder, model.decoder):
        randomize_weights(part)
    return model.encoder, model.decoder, model.quantizer


def patches():
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(4, 3, 2, activation="tanh"), layers.Conv2D(1, 1)])
    randomize_weights(model, 1)
    return model


def two_maps():
    x = keras.Input((8, 8, 1))
    h = layers.Conv2D(4, 3, activation="tanh")(x)
    model = keras.Model(x, [h, layers.BatchNormalization()(layers.Conv2D(3, 3, 2)(h))])
    randomize_weights(model, 2)
    return model


def still(**options):
    """A model whose loss can be computed from outside."""
    options = {"discriminator": patches(), "feature_model": two_maps(), **options}
    return VQGAN(*autoencoder(), **options, seed=0)


def step(model, images, *rates, epochs=1):
    model.compile(*(SGD(rate) for rate in rates))
    return model.fit(images, batch_size=len(images), epochs=epochs, shuffle=False, verbose=0).history


def values(layer):
    return [to_numpy(variable).copy() for variable in layer.variables]


def same(first, second, rtol=1e-5, atol=1e-7):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def moved(first, second):
    # A bias behind all else stays, while the margins hold nothing back: its slopes cancel.
    return all(np.abs(a - b).max() > 1e-4 for a, b in zip(first, second, strict=True) if a.ndim > 1)


def of_weight(loss, weight):
    """The gradient of `loss()` in a weight, by the backend's own means on the plain layers."""
    match keras.backend.backend():
        case "jax":
            import jax

            def of_value(value):
                with keras.StatelessScope([(weight, value)]):  # what is not in it is found outside any trace
                    return loss()

            result = jax.jit(jax.grad(of_value))(weight.value)
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                value = loss()
            result = tape.gradient(value, weight.value)
        case "torch":
            import torch

            (result,) = torch.autograd.grad(loss(), weight.value)
    return to_numpy(result)


class ByHand:
    """The parts of the loss of a model without states, from its layers."""

    def __init__(self, model, images):
        self.model, self.x = model, ops.convert_to_tensor(images)
        vectors = model.encoder(self.x)
        self.quantized = ops.stop_gradient(model.quantizer.decode(model.quantizer.encode(vectors)))
        self.kernel = model.decoder.layers[-1].kernel
        self.decoded = to_numpy(model.decoder(self.quantized))

    def value(self, part):
        return float(to_numpy(one_program(self.model, part)()))

    def reconstruction(self):
        return ops.mean((self.x - self.model.decoder(self.quantized)) ** 2)

    def perceptual(self):
        def unit(x):
            return x / ops.sqrt(ops.sum(x**2, axis=-1, keepdims=True))

        pairs = zip(self.model.feature_model(self.x), self.model.feature_model(self._again()), strict=True)
        return sum(ops.mean(ops.sum((unit(a) - unit(b)) ** 2, axis=-1)) for a, b in pairs) / 2

    def deceit(self):
        return -ops.mean(self.model.discriminator(self._again()))

    def discriminator_loss(self):
        real, fake = self.model.discriminator(self.x), self.model.discriminator(ops.stop_gradient(self._again()))
        return ops.mean(ops.maximum(1 - real, 0) + ops.maximum(1 + fake, 0))

    def weight(self, perceptual_weight, adversarial_weight):
        def distance():
            return self.reconstruction() + perceptual_weight * self.perceptual()

        norms = [np.linalg.norm(of_weight(loss, self.kernel)) for loss in (distance, self.deceit)]
        return adversarial_weight * norms[0] / (norms[1] + 1e-4)

    def _again(self):
        return self.model.decoder(self.quantized)


# The loss


@pytest.mark.parametrize(("perceptual_weight", "adversarial_weight"), [(1.0, 0.8), (0.3, 2.0)])
def test_logs_are_the_parts_of_the_loss(perceptual_weight, adversarial_weight, digits):
    images = digits[0][:12]
    model = still(perceptual_weight=perceptual_weight, adversarial_weight=adversarial_weight)
    model.compile(SGD(0.0))
    logs = model.evaluate(images, batch_size=12, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "perplexity", "usage", *LOGS}
    hand = ByHand(model, images)
    expected = {
        "reconstruction": hand.value(hand.reconstruction),
        "perceptual": hand.value(hand.perceptual),
        "generator_loss": hand.value(hand.deceit),
        "discriminator_loss": hand.value(hand.discriminator_loss),
        "adaptive_weight": hand.weight(perceptual_weight, adversarial_weight),
    }
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-4), name
    loss = expected["reconstruction"] + perceptual_weight * expected["perceptual"] + logs["commitment"]
    assert logs["loss"] == pytest.approx(loss, rel=1e-4)
    history = step(model, images, 0.0)
    for name, value in expected.items():  # in a compiled training step, too
        assert history[name][0] == pytest.approx(value, rel=1e-3), name


def test_a_step_follows_the_weighted_sum(digits):
    images = digits[0][:12]
    model = still()
    hand = ByHand(model, images)
    critic = model.discriminator.layers[0].kernel
    kernels, before = (hand.kernel, critic), [to_numpy(hand.kernel).copy(), to_numpy(critic).copy()]
    weight = hand.weight(1.0, 0.8)

    def total():
        return hand.reconstruction() + hand.perceptual() + weight * hand.deceit()

    slopes = of_weight(total, hand.kernel), of_weight(hand.discriminator_loss, critic)
    step(model, images, 0.1, 0.5)
    for kernel, old, rate, slope in zip(kernels, before, (0.1, 0.5), slopes, strict=True):
        np.testing.assert_allclose(to_numpy(kernel), old - rate * slope, rtol=1e-4, atol=1e-5)


def test_the_discriminator_does_not_teach_the_autoencoder(digits):
    """Unheard, it leaves the autoencoder on the path of a VQ-VAE, exactly."""
    images = digits[0][:12]
    model, plain = still(feature_model=None, adversarial_weight=0.0), VQVAE(*autoencoder(), seed=0)
    before = values(model.discriminator)
    step(model, images, 0.1, 0.5, epochs=2)
    step(plain, images, 0.1, epochs=2)
    for part in ("encoder", "decoder", "quantizer"):
        same(values(getattr(model, part)), values(getattr(plain, part)), rtol=1e-6)
    assert moved(before, values(model.discriminator))


def test_the_autoencoder_does_not_teach_the_discriminator(digits):
    """Its first step does not depend on what the autoencoder makes of it; at rate 0 it does not move at all."""
    images = digits[0][:12]
    heard, unheard, fixed = (still(feature_model=None, adversarial_weight=weight) for weight in (5.0, 0.0, 0.8))
    before = values(fixed.discriminator)
    for model, rates in ((heard, (0.1, 0.5)), (unheard, (0.1, 0.5)), (fixed, (0.1, 0.0))):
        step(model, images, *rates)
    same(values(heard.discriminator), values(unheard.discriminator), rtol=1e-6)
    same(values(fixed.discriminator), before, rtol=0, atol=0)
    assert moved(values(heard.encoder), values(unheard.encoder))


def test_before_the_start_the_discriminator_learns_unheard(digits):
    images = digits[0][:12]
    late, never = still(feature_model=None, start=2), still(feature_model=None, adversarial_weight=0.0)
    before = values(late.discriminator)
    history = step(late, images, 0.1, 0.5, epochs=2)
    step(never, images, 0.1, 0.5, epochs=2)
    assert history["adaptive_weight"] == [0, 0]
    assert late.evaluate(images, verbose=0, return_dict=True)["adaptive_weight"] > 0
    same(values(late.encoder) + values(late.decoder), values(never.encoder) + values(never.decoder), rtol=1e-6)
    assert moved(before, values(late.discriminator))
    late, never = save_and_load(late), save_and_load(never)
    assert step(late, images, 0.1, 0.5)["adaptive_weight"][0] > 0
    step(never, images, 0.1, 0.5)
    assert moved(values(late.decoder), values(never.decoder))


def test_features_stay_as_they_are(digits):
    features = two_maps()
    before = values(features)
    model = still(feature_model=features)
    assert not set(map(id, features.variables)) & set(map(id, model.trainable_variables))
    step(model, digits[0][:12], 0.1, 0.5, epochs=2)
    same(values(features), before, rtol=0, atol=0)


def test_patches_have_a_margin_each(digits):
    """Half of the patches are sure, half are wrong: their mean would be content."""
    images = digits[0][:4]
    bias = keras.initializers.Constant([3.0, -3.0])
    model = still(
        discriminator=keras.Sequential([layers.Conv2D(2, 8, kernel_initializer="zeros", bias_initializer=bias)])
    )
    model.compile(SGD(0.0))
    logs = model.evaluate(images, verbose=0, return_dict=True)
    assert logs["discriminator_loss"] == pytest.approx(4.0)  # (0 + 4) / 2 for data, (4 + 0) / 2 for the others
    assert logs["generator_loss"] == pytest.approx(0.0)
    single = still(discriminator=keras.Sequential([layers.Flatten(), layers.Dense(1), layers.Reshape(())]))
    assert np.isfinite(step(single, images, 0.1)["loss"]).all()


# The adaptive weight


def mixing():
    inner = [layers.Dense(6), layers.BatchNormalization(), layers.Dropout(0.5, seed=1), layers.ReLU()]
    model = keras.Sequential([keras.Input((5,)), *inner, layers.Dense(4), layers.LayerNormalization()])
    randomize_weights(model)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_the_last_kernel_repeats_the_call(training, rng):
    """With the same draws, and whatever the layer does to itself in the call."""
    x = ops.convert_to_tensor(rng.normal(size=(7, 5)).astype("float32"))
    model, twin = mixing(), mixing()
    kernel = twin.layers[-2].kernel

    def loss(y):
        return ops.sum(ops.sin(3 * y))

    expected = np.linalg.norm(of_weight(lambda: loss(twin(x, training=training)), kernel))
    last = LastKernel(model)
    assert last.kernel is model.layers[-2].kernel
    y = model(x, training=training)
    before = values(model)
    found = float(to_numpy(last.gradient_norm(loss, x, y, training)))
    assert found == pytest.approx(expected, rel=1e-3)
    assert found > 0.1
    same(values(model), before, rtol=0, atol=0)


def test_the_balance_is_held():
    norms = [(2.0, 1.0), (0.0, 1.0), (1.0, 0.0), (1e9, 0.0), (0.0, 0.0)]
    found = [float(balance(*map(ops.convert_to_tensor, pair))) for pair in norms]
    np.testing.assert_allclose(found, [2 / 1.0001, 0, 1e4, 1e4, 0], rtol=1e-5)


@keras.saving.register_keras_serializable("test")
class Adds(keras.layers.Layer):
    """Adds 100 to the loss."""

    def call(self, x):
        self.add_loss(ops.convert_to_tensor(100.0))
        return x


def test_what_the_decoder_adds_counts_once(digits):
    def loss(*last):
        encoder, decoder, quantizer = autoencoder()
        model = VQGAN(encoder, keras.Sequential([*decoder.layers, *last]), quantizer, patches(), seed=0)
        return float(to_numpy(model.compute_loss(ops.convert_to_tensor(digits[0][:4]))))

    np.testing.assert_allclose(loss(Adds()), loss() + 100, rtol=1e-5)


def test_a_silent_discriminator_has_no_pull(digits):
    zeros = keras.Sequential([layers.Conv2D(1, 3, kernel_initializer="zeros")])
    model, plain = still(discriminator=zeros, feature_model=None), VQVAE(*autoencoder(), seed=0)
    history = step(model, digits[0][:12], 0.1, 0.0, epochs=2)
    step(plain, digits[0][:12], 0.1, epochs=2)
    assert np.isfinite(history["adaptive_weight"]).all()
    same(values(model.decoder), values(plain.decoder), rtol=1e-6)


# The distance of features


def test_feature_distance(rng):
    a = [rng.normal(size=(3, 4, 4, 5)), rng.normal(size=(3, 2, 2, 6)), rng.normal(size=(3, 7))]
    b = [rng.normal(size=x.shape) for x in a]
    a, b = ([ops.convert_to_tensor(x.astype("float32")) for x in maps] for maps in (a, b))
    np.testing.assert_array_equal(to_numpy(feature_distance(a, a)), 0)
    pairs = [(to_numpy(x), to_numpy(y)) for x, y in zip(a, b, strict=True)]
    cosines = [(x * y).sum(-1) for x, y in pairs]
    lengths = [np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1) for x, y in pairs]
    each = [(2 - 2 * c / n).reshape(3, -1).mean(1) for c, n in zip(cosines, lengths, strict=True)]
    np.testing.assert_allclose(to_numpy(feature_distance(a, b)), sum(each) / 3, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(feature_distance(a[2], -3 * a[2])), 4, rtol=1e-5)
    half = feature_distance(ops.cast(a[0], "bfloat16"), b[0])
    assert keras.backend.standardize_dtype(half.dtype) == "float32"


def test_features_of_zero_have_a_finite_gradient():
    zero, one = ops.zeros((2, 3, 4)), ops.ones((2, 3, 4))
    for a, b in ((zero, zero), (zero, one), (one, one)):
        assert np.isfinite(to_numpy(feature_distance(a, b))).all()
        assert np.isfinite(to_numpy(gradient(lambda x, b=b: feature_distance(x, b), a))).all()
    np.testing.assert_array_equal(to_numpy(gradient(lambda x: feature_distance(x, zero), zero)), 0)


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        ([], [], r"`features_a` must be feature maps \(batch, ..., channels\). Received: features_a=shapes \[\]"),
        (np.zeros(3), np.zeros(3), r"`features_a` must be feature maps .* Received: features_a=shapes \[\(3,\)\]"),
        (np.zeros((3, 4)), np.zeros((3, 1)), r"`features_b` must have the shapes of features_a, \[\(3, 4\)\]"),
        ([np.zeros((3, 4))] * 2, [np.zeros((3, 4))], "`features_b` must have the shapes of features_a"),
    ],
)
def test_features_that_do_not_fit(a, b, match):
    with pytest.raises(ValueError, match=match):
        feature_distance(a, b)


# Training


def test_a_discriminator_with_states_trains(digits):
    """It assigns in the call, and is called more than once in a step; so are encoder and decoder, which draw."""
    hidden = layers.SpectralNormalization(layers.Conv2D(4, 3, 2))
    inner = [hidden, layers.BatchNormalization(), layers.LeakyReLU(), layers.Dropout(0.5, seed=1), layers.Conv2D(1, 1)]
    encoder, decoder, quantizer = autoencoder()
    decoder = keras.Sequential([decoder.inputs[0], layers.Dropout(0.1, seed=2), layers.BatchNormalization(), decoder])
    model = VQGAN(encoder, decoder, quantizer, keras.Sequential(inner), seed=0)
    model.compile(keras.optimizers.Adam(1e-2))
    assert np.isfinite(model.fit(digits[0][:48], batch_size=16, epochs=2, verbose=0).history["loss"]).all()
    logs = [model.evaluate(digits[0][:12], verbose=0, return_dict=True) for _ in range(2)]
    assert logs[0] == pytest.approx(logs[1])
    assert all(np.isfinite(value).all() for value in values(model))


def test_half_precision_trains(digits):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = vqgan()
    finally:
        keras.config.set_dtype_policy("float32")
    history = model.fit(digits[0][:64], batch_size=16, epochs=2, verbose=0).history
    assert np.isfinite([history[name] for name in LOGS]).all()
    assert np.isfinite(model.reconstruct(digits[0][:2])).all()


def test_a_file_goes_on_training(digits):
    images = digits[0][:32]
    model = made_alike(lambda: vqgan(start=1, perceptual_weight=0.5, adversarial_weight=0.3))
    model.fit(images, batch_size=16, verbose=0)
    loaded = save_and_load(model)
    np.testing.assert_array_equal(loaded.reconstruct(images), model.reconstruct(images))
    assert (loaded.start, loaded.perceptual_weight, loaded.adversarial_weight) == (1, 0.5, 0.3)
    rates = [float(getattr(loaded.players, player).learning_rate) for player in ("generator", "discriminator")]
    np.testing.assert_allclose(rates, [1e-2, 2e-3])
    assert not loaded.feature_model.trainable
    assert np.isfinite(loaded.fit(images, verbose=0).history["loss"]).all()
    assert still().get_compile_config() is None


def test_shape_by_the_data(digits):
    """Without an Input in the encoder, the first data tell."""
    encoder, decoder = layers.Conv2D(4, 2, 2), autoencoder()[1]
    model = VQGAN(encoder, decoder, VectorQuantizer(8, seed=0), patches())
    model.compile()
    model.fit(digits[0][:8], verbose=0)
    assert model.encode(digits[0][:8]).shape == (8, 4, 4)


# Errors


def make(**options):
    encoder, decoder, quantizer = autoencoder()
    options = {"encoder": encoder, "decoder": decoder, "quantizer": quantizer, "discriminator": patches(), **options}
    return VQGAN(**options)


def whole_image_decoder():
    return keras.Sequential([keras.Input((4, 4, 4)), layers.Conv2D(1, 1)])


def decoder_without_kernels():
    return keras.Sequential([keras.Input((4, 4, 4)), layers.Reshape((8, 8, 1))])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"encoder": 3}, "`encoder` must be a keras.Layer or keras.Model. Received: encoder=3"),
        (
            {"decoder": whole_image_decoder()},
            r"`decoder` must give outputs of shape \(8, 8, 1\). Received: .*\(4, 4, 1",
        ),
        ({"decoder": decoder_without_kernels()}, "`decoder` must have a kernel, a weight of rank 2 or more"),
        ({"quantizer": layers.Dense(4)}, "`quantizer` must be a quantizer layer"),
        ({"discriminator": None}, "`discriminator` must be a keras.Layer or keras.Model. Received: discriminator=None"),
        ({"discriminator": ops.mean}, "`discriminator` must be a keras.Layer or keras.Model"),
        (
            {"feature_model": ops.mean},
            "`feature_model` must be None, a layer or a model. Received: feature_model=<func",
        ),
        (
            {"feature_model": keras.Sequential([layers.Flatten(), layers.Dense(1), layers.Reshape(())])},
            "`features_a` must be feature maps",
        ),
        ({"perceptual_weight": -1}, "`perceptual_weight` must be >= 0 and finite. Received: perceptual_weight=-1"),
        ({"perceptual_weight": None}, "`perceptual_weight` must be >= 0 and finite. Received: perceptual_weight=None"),
        (
            {"adversarial_weight": -0.1},
            "`adversarial_weight` must be >= 0 and finite. Received: adv",
        ),
        ({"adversarial_weight": "0.8"}, "`adversarial_weight` must be >= 0 and finite"),
        ({"start": -1}, "`start` must be an integer >= 0. Received: start=-1"),
        ({"start": 1.0}, "`start` must be an integer >= 0. Received: start=1.0"),
        ({"seed": -1}, "`seed` must be an integer >= 0. Received: seed=-1"),
    ],
)
def test_bad_construction(options, match):
    with pytest.raises(ValueError, match=match):
        make(**options)


IMAGES = np.zeros((4, 8, 8, 1), "float32")


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda m: m.compile("adam", loss="mse"), "`loss` must be left out: the model computes its own loss"),
        (lambda m: m.compile("adam", metrics=["mse"]), "`metrics` must be left out"),
        (lambda m: m.fit(IMAGES.astype("uint8")), "`x` must be floating-point images"),
        (lambda m: m.fit(IMAGES[:, :4]), r"`x` must have shape \(n, 8, 8, 1\). Received: x=shape \(4, 4, 8, 1\)"),
        (lambda m: m.fit(IMAGES + np.nan), "`x` must be finite"),
        (lambda m: m.fit(IMAGES, np.zeros(4)), "`y` must be None: the model takes no labels. Received: y=a value"),
        (
            lambda m: m.compute_loss(ops.convert_to_tensor(IMAGES), sample_weight=ops.ones(4)),
            "`sample_weight` must be None: the model takes none. Received: sample_weight=a value",
        ),
    ],
)
def test_bad_input(use, match):
    model = make()
    model.compile()
    with pytest.raises(ValueError, match=match):
        use(model)
