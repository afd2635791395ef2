import itertools
import math

import keras
import numpy as np
import pytest
from keras import ops
from laws import DECAY, autoencoder, compiled, gumbel_vae
from scipy.special import expit, log_expit, log_softmax, softmax
from scipy.stats import laplace, multivariate_normal, norm

from keras_gen.callbacks import SampleGrid
from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load, to_numpy
from keras_gen.layers import GaussianSampling
from keras_gen.losses import BernoulliLikelihood, CategoricalLikelihood, GaussianLikelihood, LaplaceLikelihood
from keras_gen.models import CVAE, VAE, ClusterVAE, GumbelVAE, VonMisesFisherVAE

layers = keras.layers


def linear(units, kernel, bias):
    """A Dense layer with given weights."""
    constant = keras.initializers.Constant
    return layers.Dense(units, kernel_initializer=constant(kernel), bias_initializer=constant(bias))


def networks(latent_dim=2, outputs=2, data_dim=6):
    """Vectors instead of images, and one layer each."""
    x, z = keras.Input((data_dim,)), keras.Input((latent_dim,))
    heads = [layers.Dense(latent_dim)(x) for _ in range(outputs)]
    return keras.Model(x, heads if outputs > 1 else heads[0]), keras.Model(z, layers.Dense(data_dim)(z))


def random_weights(model, scale=1.0):
    for part in (model.encoder, model.decoder, getattr(model, "classifier", None)):
        if part is not None:
            randomize_weights(part, scale=scale)
    return model


def repeated(x, times=5000):
    return np.repeat(np.asarray(x, "float32")[None], times, axis=0)


def close_on_average(values, expected):
    assert abs(values.mean() - expected) < 5 * values.std() / np.sqrt(len(values)) + 1e-4


BITS = np.random.default_rng(0).choice([-1.0, 1.0], (8, 6)).astype("float32")
SPREAD = np.random.default_rng(1).uniform(-1, 1, (8, 6)).astype("float32")


# The bound


@pytest.mark.parametrize("variance", [0.3, 1.0])
def test_bound_is_the_likelihood_at_the_exact_posterior(variance, rng):
    """x = W z + b + noise, with orthogonal columns of W: then the posterior is a Gaussian with independent entries."""
    W = np.linalg.qr(rng.normal(size=(3, 2)))[0] * [1.5, 0.7]
    b = np.array([0.1, -0.5, 1.0])
    sigma = 1 / (1 + (W**2).sum(0) / variance)
    x, z = keras.Input((3,)), keras.Input((2,))
    mean = linear(2, W * sigma / variance, -(b @ W) * sigma / variance)(x)
    log_var = linear(2, 0 * W, np.log(sigma))(x)
    decoder = keras.Model(z, linear(3, W.T, b)(z))
    model = VAE(keras.Model(x, [mean, log_var]), decoder, GaussianLikelihood(variance), seed=0)
    for data in rng.normal(size=(3, 3)):
        exact = multivariate_normal.logpdf(data, b, W @ W.T + variance * np.eye(3))
        values = model.elbo(repeated(data), seed=1, batch_size=5000, verbose=0)
        assert values.shape == (5000,)
        close_on_average(values, exact)
        np.testing.assert_allclose(model.encode(repeated(data, 1))[0], sigma * (W.T @ (data - b)) / variance, rtol=1e-4)
    # any other q is below
    model.encoder.layers[-1].bias.assign(np.log(sigma) + 1)
    values = model.elbo(repeated(data), seed=1, batch_size=5000, verbose=0)
    close_on_average(values, exact - (math.e - 2))  # twice KL(N(0, e) || N(0, 1))


def test_evaluation_is_minus_the_bound_and_logs_its_parts():
    model = random_weights(compiled(VAE(*networks(), kl_weight=0.4, seed=0)))
    data = repeated(BITS[0])
    logs = model.evaluate(data, batch_size=5000, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "nll", "kl"}
    assert logs["loss"] == pytest.approx(logs["nll"] + 0.4 * logs["kl"], rel=1e-5)
    close_on_average(model.elbo(data, batch_size=5000, seed=0, verbose=0), -logs["nll"] - logs["kl"])
    mean, log_var = (to_numpy(part)[0] for part in model.encoder(BITS[:1]))
    assert logs["kl"] == pytest.approx(0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(), rel=1e-4)
    history = model.fit(BITS, validation_data=(BITS,), verbose=0).history
    assert set(history) == {"loss", "nll", "kl", "val_loss", "val_nll", "val_kl"}


def test_more_draws_are_averaged():
    model = random_weights(VAE(*networks(), seed=0))
    data = repeated(BITS[0], 500)
    one, many = (model.elbo(data, num_samples=n, seed=0, verbose=0) for n in (1, 20))
    assert many.std() < 0.4 * one.std()
    close_on_average(one, many.mean())
    np.testing.assert_array_equal(model.elbo(data, seed=0, verbose=0), one)
    assert np.abs(model.elbo(data, verbose=0) - one).max() > 0.01


# Likelihoods


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_bernoulli_is_the_sum_over_pixels(scale, rng):
    output = (scale * rng.normal(size=(5, 2, 3))).astype("float32")
    x = rng.uniform(-1, 1, (5, 2, 3)).astype("float32")
    b, precise = (x.astype("float64") + 1) / 2, output.astype("float64")
    expected = -(b * log_expit(precise) + (1 - b) * log_expit(-precise)).sum((1, 2))
    likelihood = BernoulliLikelihood()
    np.testing.assert_allclose(to_numpy(likelihood.nll(x, ops.convert_to_tensor(output))), expected, rtol=1e-4)
    np.testing.assert_allclose(
        to_numpy(likelihood.mean(ops.convert_to_tensor(output))), 2 * expit(precise) - 1, atol=1e-6
    )


@pytest.mark.parametrize("variance", [0.01, 2.0])
def test_gaussian_is_the_density(variance, rng):
    x, output = rng.normal(size=(2, 5, 2, 3)).astype("float32")
    expected = -norm.logpdf(x, output, np.sqrt(variance)).sum((1, 2))
    nll = GaussianLikelihood(variance).nll(x, ops.convert_to_tensor(output))
    np.testing.assert_allclose(to_numpy(nll), expected, rtol=1e-4)


@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_laplace_is_the_density(scale, rng):
    x, output = rng.normal(size=(2, 5, 2, 3)).astype("float32")
    expected = -laplace.logpdf(x, output, scale).sum((1, 2))
    nll = LaplaceLikelihood(scale).nll(x, ops.convert_to_tensor(output))
    np.testing.assert_allclose(to_numpy(nll), expected, rtol=1e-4)


def test_categorical_is_the_cross_entropy(rng):
    output, x = rng.normal(size=(5, 4, 3)).astype("float32"), rng.integers(0, 3, (5, 4))
    expected = -np.take_along_axis(log_softmax(output, -1), x[..., None], -1).sum((1, 2))
    likelihood = CategoricalLikelihood(3)
    np.testing.assert_allclose(to_numpy(likelihood.nll(x, ops.convert_to_tensor(output))), expected, rtol=1e-5)
    np.testing.assert_array_equal(to_numpy(likelihood.mean(ops.convert_to_tensor(output))), output.argmax(-1))


def text_vae():
    x, z = keras.Input((4,), dtype="int32"), keras.Input((2,))
    h = layers.Flatten()(layers.Embedding(3, 4)(x))
    decoder = keras.Model(z, layers.Reshape((4, 3))(layers.Dense(12)(z)))
    return compiled(VAE(keras.Model(x, [layers.Dense(2)(h), layers.Dense(2)(h)]), decoder, CategoricalLikelihood(3)))


def test_tokens_are_data_too(rng):
    tokens = rng.integers(0, 3, (20, 4))
    model = text_vae()
    assert np.isfinite(model.fit(tokens, verbose=0).history["loss"]).all()
    for result in (model.sample(3, seed=0, verbose=0), model.reconstruct(tokens)):
        assert result.dtype == np.dtype("int32")
        assert result.shape[1:] == (4,)
        assert set(np.unique(result)) <= {0, 1, 2}
    assert np.isfinite(save_and_load(model).elbo(tokens, verbose=0)).all()
    for bad, match in (
        (tokens.astype("float32"), "`x` must be integers. Received: x=dtype float32"),
        (tokens + 1, r"`x` must be in 0 .. 2. Received: x=values in \[1, 3\]"),
        (tokens - 1, "`x` must be in 0 .. 2"),
    ):
        with pytest.raises(ValueError, match=match):
            model.fit(bad, verbose=0)


# Latents and samples


def test_encoding_decoding_and_the_path_between():
    model = random_weights(VAE(*networks(), seed=0))
    z = model.encode(SPREAD, batch_size=3)
    np.testing.assert_allclose(z, to_numpy(model.encoder(SPREAD)[0]), rtol=1e-5, atol=1e-6)
    decoded = model.decode(z, batch_size=3)
    np.testing.assert_allclose(decoded, 2 * expit(to_numpy(model.decoder(z))) - 1, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.reconstruct(SPREAD), decoded, atol=1e-6)
    path = model.interpolate(SPREAD[:2], SPREAD[2:4], points=5)
    assert path.shape == (2, 5, 6)
    np.testing.assert_allclose(path[:, 0], decoded[:2], atol=1e-6)
    np.testing.assert_allclose(path[:, -1], decoded[2:4], atol=1e-6)
    np.testing.assert_allclose(path[:, 2], model.decode((z[:2] + z[2:4]) / 2), atol=1e-6)


def families():
    encoder, decoder = networks(6, 1)
    logits = keras.Sequential([encoder, layers.Reshape((2, 3))])
    from_codes = keras.Sequential([keras.Input((2, 3)), layers.Flatten(), decoder])
    return {
        "vae": lambda: VAE(*networks(), seed=0),
        "cvae": lambda: CVAE(*networks(), 3, seed=0),
        "cluster": lambda: ClusterVAE(*networks(), layers.Dense(3), 3, seed=0),
        "gumbel": lambda: GumbelVAE(logits, from_codes, seed=0),
        "von_mises_fisher": lambda: VonMisesFisherVAE(*networks(3, 1), 5.0, seed=0),
    }


@pytest.mark.parametrize("name", families())
def test_a_sample_depends_on_seed_and_place_alone(name):
    model = families()[name]()
    model.build((None, 6))
    random_weights(model)
    condition = {"condition": [0, 1, 2, 1, 0]} if name == "cvae" else {}
    samples = model.sample(5, seed=3, verbose=0, **condition)
    assert samples.shape == (5, 6)
    for n, batch_size in ((5, 2), (3, 256)):
        shorter = {key: value[:n] for key, value in condition.items()}
        again = model.sample(n, seed=3, batch_size=batch_size, verbose=0, **shorter)
        np.testing.assert_allclose(again, samples[:n], rtol=1e-5, atol=1e-6)
    assert np.abs(model.sample(5, verbose=0, **condition) - samples).max() > 1e-3


def test_latents_are_drawn_from_the_prior():
    latents = {name: make() for name, make in families().items()}
    for model in latents.values():
        model.build((None, 6))
    z = latents["vae"].draw_latents(5000, 0)
    assert np.abs(z.mean(0)).max() < 5 / np.sqrt(5000)
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=0.1)
    onehot = latents["gumbel"].draw_latents(5000, 0)
    assert onehot.shape == (5000, 2, 3)
    np.testing.assert_array_equal(np.unique(onehot), [0, 1])
    np.testing.assert_array_equal(onehot.sum(-1), 1)
    np.testing.assert_allclose(onehot.mean(0), 1 / 3, atol=5 * 0.48 / np.sqrt(5000))
    directions = latents["von_mises_fisher"].draw_latents(5000, 0)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, rtol=1e-5)
    assert np.abs(directions.mean(0)).max() < 5 / np.sqrt(3 * 5000)


def test_noise_is_the_latent():
    noise = np.array([[1.0, -1], [0.5, 2]])
    model = random_weights(VAE(*networks(), seed=0))
    np.testing.assert_allclose(model.sample(2, noise=noise, verbose=0), model.decode(noise), atol=1e-6)
    model = random_weights(CVAE(*networks(), 3, seed=0))
    model.build((None, 6))
    model.means.assign(np.array([[0.0, 0], [1, 2], [-3, 1]]))
    moved = model.sample(2, condition=[1, 2], noise=noise, verbose=0)
    np.testing.assert_allclose(moved, model.decode(noise + [[1, 2], [-3, 1]]), atol=1e-6)
    alike = model.sample(2, condition=1, noise=noise, verbose=0)
    np.testing.assert_allclose(alike, model.decode(noise + [1, 2]), atol=1e-6)


# The relatives


def test_cvae_is_a_vae_around_the_means(rng):
    parts = networks()
    plain, model = VAE(*parts, seed=0), CVAE(*parts, 3, seed=0)
    random_weights(plain)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    bound = model.elbo(SPREAD, labels, seed=5, verbose=0)
    np.testing.assert_allclose(bound, plain.elbo(SPREAD, seed=5, verbose=0), rtol=1e-5)
    means = rng.normal(size=(3, 2)).astype("float32")
    model.means.assign(means)
    mean = to_numpy(model.encoder(SPREAD)[0])
    shift = 0.5 * ((mean - means[labels]) ** 2 - mean**2).sum(1)
    np.testing.assert_allclose(model.elbo(SPREAD, labels, seed=5, verbose=0), bound - shift, rtol=1e-4, atol=1e-4)


def test_cvae_learns_the_means():
    model = compiled(made_alike(lambda: CVAE(*networks(), 3, seed=0)))
    model.fit(SPREAD, np.arange(8) % 3, epochs=2, verbose=0)
    assert np.abs(to_numpy(model.means)).min() > 1e-4
    weightless = made_alike(lambda: CVAE(*networks(), 3, seed=0))
    weightless.compile(keras.optimizers.SGD(1.0))
    weightless.build((None, 6))
    before = [to_numpy(weight).copy() for weight in weightless.trainable_weights]
    weightless.fit(SPREAD, np.arange(8) % 3, sample_weight=np.zeros(8), verbose=0)
    for a, b in zip(before, weightless.trainable_weights, strict=True):
        np.testing.assert_array_equal(a, to_numpy(b))


def test_cluster_divergence_is_the_sum_over_classes(rng):
    model = ClusterVAE(*networks(), layers.Dense(3), 3, seed=0)
    random_weights(model)
    means = rng.normal(size=(3, 2))
    model.build((None, 6))
    randomize_weights(model.classifier)
    model.means.assign(means)
    x = ops.convert_to_tensor(np.concatenate([SPREAD] * 50))
    z, kl = (to_numpy(part) for part in model.infer(x, None, 7, False))
    mean, log_var = (to_numpy(part) for part in model.moments(x))
    q = softmax(to_numpy(model.classifier(ops.convert_to_tensor(z))), -1)
    # E[log q(z | x)] is the negative entropy; the rest by hand, class by class
    entropy = norm.entropy(mean, np.exp(log_var / 2)).sum(1)
    expected = -entropy
    for y in range(3):
        expected = expected + q[:, y] * (np.log(q[:, y]) - np.log(1 / 3) - norm.logpdf(z, means[y], 1).sum(1))
    np.testing.assert_allclose(kl, expected, rtol=1e-4, atol=1e-4)
    assert kl.mean() > 0
    labels = to_numpy(model.classifier(ops.convert_to_tensor(mean))).argmax(1)
    np.testing.assert_array_equal(model.cluster(np.asarray(to_numpy(x)), batch_size=7), labels)


def test_cluster_samples_come_from_all_classes_or_the_one_asked_for():
    model = ClusterVAE(*networks(), layers.Dense(3), 3, "gaussian", seed=0)
    model.build((None, 6))
    random_weights(model)
    model.means.assign(np.array([[0.0, 0], [100, 0], [0, 100]]))
    nothing = np.zeros((300, 2))
    samples = np.unique(model.sample(300, noise=nothing, seed=0, verbose=0), axis=0)
    assert len(samples) == 3
    one = model.sample(2, noise=nothing[:2], condition=1, verbose=0)
    np.testing.assert_allclose(one, model.decode([[100, 0], [100, 0]]), rtol=1e-5)


def small_gumbel_vae(hard=False, kl_weight=1.0, temperature=0.7):
    encoder, decoder = networks(6, 1)
    encoder = keras.Sequential([encoder, layers.Reshape((2, 3))])
    decoder = keras.Sequential([keras.Input((2, 3)), layers.Flatten(), decoder])
    return compiled(random_weights(GumbelVAE(encoder, decoder, temperature, hard, kl_weight=kl_weight, seed=0), 2.0))


@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_bound_is_the_sum_over_all_latents(hard):
    model = small_gumbel_vae(hard)
    x = SPREAD[0]
    codes = np.stack([np.eye(3)[list(pair)] for pair in itertools.product(range(3), repeat=2)]).astype("float32")
    log_q = log_softmax(to_numpy(model.encoder(x[None]))[0].astype("float64"), -1)
    q = np.exp((codes * log_q).sum((1, 2)))
    output = to_numpy(model.decoder(codes)).astype("float64")
    b = (x + 1) / 2
    log_p = (b * log_expit(output) + (1 - b) * log_expit(-output)).sum(1)
    kl = (np.exp(log_q) * log_q).sum() + 2 * np.log(3)
    exact = (q * log_p).sum() - kl
    assert exact < np.log(np.exp(log_p).mean())  # below log p(x)
    data = repeated(x)
    values = model.elbo(data, seed=0, batch_size=5000, verbose=0)
    close_on_average(values, exact)
    assert len(np.unique(values.round(3))) <= 9  # one-hot latents alone
    logs = model.evaluate(data, batch_size=5000, verbose=0, return_dict=True)
    assert logs["kl"] == pytest.approx(kl, rel=1e-4)
    assert abs(logs["loss"] + exact) < 5 * values.std() / np.sqrt(5000)


def test_gumbel_training_is_relaxed_unless_hard():
    for hard in (False, True):
        z, _ = small_gumbel_vae(hard).infer(ops.convert_to_tensor(SPREAD), None, 0, True)
        np.testing.assert_allclose(to_numpy(z).sum(-1), 1, rtol=1e-5)
        assert set(np.unique(to_numpy(z))) == {0.0, 1.0} if hard else len(np.unique(to_numpy(z))) > 10
        z, _ = small_gumbel_vae(hard).infer(ops.convert_to_tensor(SPREAD), None, 0, False)
        assert set(np.unique(to_numpy(z))) == {0.0, 1.0}


def test_gumbel_codes_are_the_likeliest_classes():
    model = small_gumbel_vae()
    logits = to_numpy(model.encoder(SPREAD))
    np.testing.assert_array_equal(model.encode(SPREAD), np.eye(3)[logits.argmax(-1)])


def test_gumbel_temperature_goes_on_from_a_file(digits):
    model = gumbel_vae()
    model.fit(digits[0][:40], batch_size=10, validation_data=(digits[0][:40],), verbose=0)
    loaded = save_and_load(model)
    loaded.fit(digits[0][:40], batch_size=10, verbose=0)
    assert int(to_numpy(loaded.temperature.step)) == 8
    np.testing.assert_allclose(float(to_numpy(loaded.temperature())), float(to_numpy(DECAY(8))), rtol=1e-5)


def test_weight_of_the_divergence_may_follow_a_schedule(digits):
    ramp = keras.optimizers.schedules.PolynomialDecay(0.0, 4, 1.0)
    model = compiled(made_alike(lambda: VAE(*autoencoder(2, 2), kl_weight=ramp, seed=0)))
    history = model.fit(digits[0][:40], batch_size=40, epochs=5, verbose=0).history
    weights = (np.array(history["loss"]) - history["nll"]) / history["kl"]
    np.testing.assert_allclose(weights, [0, 0.25, 0.5, 0.75, 1], atol=1e-2)
    model = save_and_load(model)
    logs = model.evaluate(digits[0][:40], verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["nll"] + logs["kl"], rel=1e-4)
    with pytest.raises(ValueError, match="`kl_weight` must be >= 0"):
        VAE(*autoencoder(2, 2), kl_weight=-0.1)


# Training


def test_weights_of_samples_scale_the_loss():
    model = random_weights(VAE(*networks(), seed=0))
    x = ops.convert_to_tensor(SPREAD)

    def loss(weight):
        model.seed_generator.state.assign([3, 0])
        weight = None if weight is None else ops.convert_to_tensor(np.asarray(weight, "float32"))
        return float(to_numpy(model.compute_loss(x, sample_weight=weight, training=False)))

    model.build((None, 6))
    whole = loss(None)
    assert loss(np.ones(8)) == pytest.approx(whole)
    assert loss(2 * np.ones((8, 1))) == pytest.approx(2 * whole)
    assert loss(np.zeros(8)) == 0
    halves = [loss(np.arange(8) < 3), loss(np.arange(8) >= 3)]
    assert sum(halves) == pytest.approx(whole, rel=1e-5)


def test_datasets_and_pictures(digits, tmp_path):
    images, labels = digits

    class Batches(keras.utils.PyDataset):
        def __init__(self, labelled):
            super().__init__()
            self.labelled = labelled

        def __len__(self):
            return 2

        def __getitem__(self, index):
            rows = slice(16 * index, 16 * (index + 1))
            return (images[rows], labels[rows]) if self.labelled else images[rows]

    model = compiled(VAE(*autoencoder(2, 2), seed=0))
    history = model.fit(Batches(False), verbose=0, callbacks=[SampleGrid(tmp_path / "{epoch}.png", n=4)]).history
    assert np.isfinite(history["loss"]).all()
    model = compiled(CVAE(*autoencoder(2, 2), 10, seed=0))
    grid = SampleGrid(tmp_path / "classes{epoch}.png", n=4, condition=[0, 1, 2, 3])
    assert np.isfinite(model.fit(Batches(True), verbose=0, callbacks=[grid]).history["loss"]).all()
    assert {file.name for file in tmp_path.iterdir()} == {"1.png", "classes1.png"}
    with pytest.raises(ValueError, match="`condition` must be given"):
        model.fit(Batches(True), verbose=0, callbacks=[SampleGrid(tmp_path / "2.png", n=4)])


def test_generators_are_data_too(digits):
    def batches():
        while True:
            yield (digits[0][:16],)

    model = compiled(VAE(*autoencoder(2, 2), seed=0))
    assert np.isfinite(model.fit(batches(), steps_per_epoch=3, verbose=0).history["loss"]).all()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("make", [lambda: compiled(VAE(*autoencoder(2, 2), seed=0)), gumbel_vae])
def test_half_precision_trains(policy, make, digits):
    keras.config.set_dtype_policy(policy)
    try:
        model = make()
        history = model.fit(digits[0][:64], batch_size=16, epochs=2, verbose=0).history
        samples = model.sample(2, seed=0, verbose=0)
        bound = model.elbo(digits[0][:4], verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"]).all()
    assert samples.dtype == bound.dtype == np.float32
    assert np.isfinite(samples).all()
    assert np.isfinite(bound).all()


def test_regularization_counts_once():
    penalty = keras.regularizers.L2(10.0)
    x, z = keras.Input((6,)), keras.Input((2,))
    heads = [layers.Dense(2, kernel_initializer="ones", kernel_regularizer=penalty)(x), layers.Dense(2)(x)]
    model = VAE(keras.Model(x, heads), keras.Model(z, layers.Dense(6)(z)), seed=0)
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.evaluate(SPREAD, verbose=0, return_dict=True)
    assert logs["loss"] - logs["nll"] - logs["kl"] == pytest.approx(120, rel=1e-4)
    history = model.fit(SPREAD, verbose=0).history
    assert history["loss"][0] - history["nll"][0] - history["kl"][0] == pytest.approx(120, rel=1e-4)


# Bad input

IMAGES = np.zeros((4, 8, 8, 1), "float32")
LABELS = np.arange(4)


@pytest.mark.parametrize("name", ["vae", "cvae"])
@pytest.mark.parametrize(
    ("x", "match"),
    [
        (IMAGES.astype("uint8"), "`x` must be floating-point. Received: x=dtype uint8"),
        (IMAGES + 2, r"`x` must be in \[-1, 1\], from black to white. Received: x=values in \[2, 2\]"),
        (IMAGES + np.nan, "`x` must be finite"),
        (IMAGES[:0], "`x` must hold at least one sample"),
        (IMAGES[..., 0], r"`x` must have shape \(n, 8, 8, 1\). Received: x=shape \(4, 8, 8\)"),
    ],
)
def test_bad_images_are_refused_everywhere(name, x, match):
    model = compiled(VAE(*autoencoder(2, 2)) if name == "vae" else CVAE(*autoencoder(2, 2), 4))
    labels = {"vae": None, "cvae": LABELS[: len(x)]}[name]
    uses = [
        lambda: model.fit(x, labels, verbose=0),
        lambda: model.evaluate(x, labels, verbose=0),
        lambda: model.fit(IMAGES, None if name == "vae" else LABELS, validation_data=(x, labels), verbose=0),
        lambda: model.elbo(x, labels),
        lambda: model.encode(x),
        lambda: model.reconstruct(x),
        lambda: model.interpolate(x, x),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=match.replace("`x`", "`x(_a)?`").replace("x=", "x(_a)?=")):
            use()
    assert int(to_numpy(model.optimizer.iterations)) == 0


@pytest.mark.parametrize(
    ("classes", "y", "match"),
    [
        (None, LABELS, "`y` must be None: the model takes no labels"),
        (4, None, "`y` must be given: the model takes labels"),
        (4, LABELS[:2], r"`condition` must be integer labels of shape \(4,\). Received: condition=int64 of shape"),
        (4, LABELS + 0.5, "`condition` must be integer labels of shape"),
        (4, np.eye(4), "`condition` must be integer labels of shape"),
        (4, LABELS + 1, r"`condition` must be labels in 0 .. 3. Received: condition=\[4\]"),
        (4, LABELS - 1, r"`condition` must be labels in 0 .. 3. Received: condition=\[-1\]"),
    ],
)
def test_bad_labels_are_refused_before_a_step(classes, y, match):
    parts = autoencoder(2, 2)
    model = compiled(VAE(*parts) if classes is None else CVAE(*parts, classes))
    for use in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=match):
            use(IMAGES, y, verbose=0)
    assert int(to_numpy(model.optimizer.iterations)) == 0
    with pytest.raises(ValueError, match="`condition` must be"):
        model.elbo(IMAGES, y)


@pytest.mark.parametrize(
    ("classes", "batch", "match"),
    [
        (None, (IMAGES.astype("uint8"),), "`x` must be floating-point"),
        (None, (IMAGES[..., 0],), "`x` must have shape"),
        (None, (IMAGES, LABELS), "`y` must be None"),
        (4, (IMAGES,), "`y` must be given"),
    ],
)
def test_bad_batches_of_a_dataset_are_refused(classes, batch, match):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return batch

    parts = autoencoder(2, 2)
    model = compiled(VAE(*parts) if classes is None else CVAE(*parts, classes))
    with pytest.raises(ValueError, match=match):
        model.fit(Batches(), verbose=0)


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda m: m.sample(0), "`n` must be an integer >= 1"),
        (lambda m: m.sample(2, seed=-1), "`seed` must be an integer >= 0"),
        (
            lambda m: m.sample(2, noise=np.zeros((3, 2))),
            r"`noise` must have shape \(2, 2\). Received: noise=shape \(3, 2",
        ),
        (lambda m: m.sample(2, condition=1), "`condition` must be None: the model takes none"),
        (lambda m: m.sample(2, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda m: m.decode(np.zeros((2, 3))), r"`z` must have shape \(n, 2\). Received: z=shape \(2, 3\)"),
        (lambda m: m.decode(np.zeros((0, 2))), "`z` must have shape"),
        (lambda m: m.interpolate(IMAGES, IMAGES[:2]), "`x_b` must have as many samples as x_a, 4. Received: x_b=2"),
        (lambda m: m.interpolate(IMAGES, IMAGES, points=1), "`points` must be an integer >= 2"),
        (lambda m: m.elbo(IMAGES, num_samples=0), "`num_samples` must be an integer >= 1"),
        (lambda m: m.compile("adam", loss="mse"), "`loss` must be left out"),
    ],
)
def test_bad_use(use, match):
    with pytest.raises(ValueError, match=match):
        use(compiled(VAE(*autoencoder(2, 2))))


def test_bad_conditions_of_samples():
    model = compiled(CVAE(*autoencoder(2, 2), 4))
    for condition, match in (
        (None, "`condition` must be given: the model takes labels"),
        (4, r"`condition` must be labels in 0 .. 3"),
        ([0, 1, 2], r"`condition` must be integer labels of shape \(2,\)"),
        (0.5, "`condition` must be integer labels"),
    ):
        with pytest.raises(ValueError, match=match):
            model.sample(2, condition=condition)
    with pytest.raises(ValueError, match="`condition` must be labels in 0 .. 3"):
        ClusterVAE(*autoencoder(2, 2), layers.Dense(4), 4).sample(2, condition=4)


def three_heads():
    """An encoder that draws z, as that of keras.io."""
    mean, log_var = one_head(2), one_head(2)
    x = keras.Input(mean.input_shape[1:])
    return keras.Model(x, [mean(x), log_var(x), GaussianSampling()([mean(x), log_var(x)])])


def unequal_heads():
    x = keras.Input((8, 8, 1))
    h = layers.Flatten()(x)
    return keras.Model(x, [layers.Dense(2)(h), layers.Dense(3)(h)])


def one_head(*shape):
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(math.prod(shape)), layers.Reshape(shape)]
    )


E, D = (lambda: autoencoder(2, 2)[0]), (lambda: autoencoder(2, 2)[1])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: VAE(lambda x: x, D()), "`encoder` must be a keras.Layer or keras.Model"),
        (lambda: VAE(E(), None), "`decoder` must be a keras.Layer or keras.Model"),
        (
            lambda: VAE(E(), D(), "poisson"),
            "`likelihood` must be a Likelihood or one of 'bernoulli', 'gaussian', 'laplace'. Received",
        ),
        (lambda: VAE(E(), D(), ["gaussian"]), "`likelihood` must be a Likelihood or one of"),
        (lambda: VAE(E(), D(), kl_weight=-1.0), "`kl_weight` must be >= 0. Received: kl_weight=-1.0"),
        (lambda: VAE(E(), D(), seed=-1), "`seed` must be an integer >= 0"),
        (lambda: VAE(one_head(2), D()), "return a list of mean and log_var, .* Received: encoder=1 output"),
        (
            lambda: VAE(three_heads(), D()),
            "`encoder` must return a list of mean and log_var, of which the model itself draws z. "
            "Received: encoder=3 outputs",
        ),
        (lambda: VAE(unequal_heads(), D()), "`encoder` must return mean and log_var of the same shape"),
        (lambda: VAE(E(), keras.Sequential([layers.Dense(3)])), r"`decoder` must return outputs of shape \(8, 8, 1\)"),
        (
            lambda: VAE(E(), D(), CategoricalLikelihood(3)).sample(1),
            r"`decoder` must return outputs of shape \(8, 8, 1, 3\)",
        ),
        (lambda: CVAE(E(), D(), 0), "`num_classes` must be an integer >= 1"),
        (lambda: ClusterVAE(E(), D(), None, 4), "`classifier` must be a keras.Layer"),
        (lambda: ClusterVAE(E(), D(), layers.Dense(4), 1), "`num_clusters` must be an integer >= 2"),
        (lambda: ClusterVAE(E(), D(), layers.Dense(3), 4), r"`classifier` must return outputs of shape \(4,\)"),
        (lambda: GumbelVAE(one_head(3, 2), D(), temperature=0), "`temperature` must be > 0. Received: temperature=0"),
        (lambda: GumbelVAE(one_head(6), D()), r"`encoder` must return logits of shape \(batch, ..., K >= 2\)"),
        (lambda: GumbelVAE(one_head(3, 1), D()), r"`encoder` must return logits of shape \(batch, ..., K >= 2\)"),
        (lambda: GaussianLikelihood(0), "`variance` must be > 0 and finite. Received: variance=0"),
        (lambda: LaplaceLikelihood(0), "`scale` must be > 0 and finite. Received: scale=0"),
        (lambda: CategoricalLikelihood(1), "`num_classes` must be an integer >= 2"),
    ],
)
def test_bad_construction_is_refused_before_training(make, match):
    def fit():
        model = make()
        model.compile("adam")
        model.fit(IMAGES, np.zeros(4, "int32") if isinstance(model, CVAE) else None, verbose=0)

    with pytest.raises(ValueError, match=match):
        fit()


def test_a_model_without_a_shape_says_so():
    model = VAE(keras.layers.Dense(2), keras.layers.Dense(3))
    for use in (lambda: model.sample(1), lambda: model.decode(np.zeros((1, 2)))):
        with pytest.raises(ValueError, match="`model` must be built: call `fit` or `build` first"):
            use()


def test_bits_per_dim_is_the_bound_in_bits():
    x = np.random.default_rng(0).choice([-1.0, 1.0], size=(6, 4)).astype("float32")
    inputs = keras.Input((4,))
    encoder = keras.Model(inputs, [keras.layers.Dense(2)(inputs), keras.layers.Dense(2)(inputs)])
    model = VAE(encoder, keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)]))
    bound = model.elbo(x, seed=0, verbose=0)
    np.testing.assert_allclose(model.bits_per_dim(x, seed=0, verbose=0), -bound / (4 * np.log(2)), rtol=1e-5)


class Mean(GaussianLikelihood):
    """The mean over the batch instead of one value for each sample."""

    def nll(self, x, output):
        return ops.mean(super().nll(x, output))


def test_a_likelihood_of_no_samples_is_refused():
    model = VAE(*networks(), Mean(), seed=0)
    model.compile("sgd")
    x = np.zeros((4, 6), "float32")
    message = r"`likelihood` must return one value for each sample from `nll`.*=Mean, whose `nll` has shape \(\)"
    for use in (lambda: model.fit(x, verbose=0), lambda: model.elbo(x, verbose=0)):
        with pytest.raises(ValueError, match=message):
            use()
