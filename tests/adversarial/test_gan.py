import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import expit

from keras_gen.adversarial.losses import AdversarialLoss
from keras_gen.adversarial.penalties import Penalty
from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load, to_numpy
from keras_gen.core.random import step_seeds
from keras_gen.losses import GradientPenalty, NonSaturatingLoss, R1Penalty, RelativisticLoss
from keras_gen.models import GAN
from keras_gen.ops import gradient
from keras_gen.samplers import HubnessSampler

layers = keras.layers
SGD = keras.optimizers.SGD
X = np.random.default_rng(0).normal(1.0, 2.0, (32, 2)).astype("float32")
G = np.array([[0.5, -1.0], [1.5, 0.3], [-0.2, 0.8]], "float32")
M = np.array([[0.3, 0.1, -0.7], [1.1, -0.4, 0.2]], "float32")
D = np.array([[0.7], [-0.4]], "float32")


def linear(kernel, **options):
    return layers.Dense(
        kernel.shape[1], use_bias=False, kernel_initializer=keras.initializers.Constant(kernel), **options
    )


def plain(loss="non_saturating", mapping=False, **options):
    """G(z) = z G, or z M G behind a mapping, and D(x) = x D."""
    return GAN(
        keras.Sequential([keras.Input((3,)), linear(G)]),
        keras.Sequential([linear(D)]),
        loss=loss,
        mapping=keras.Sequential([keras.Input((2,)), linear(M)]) if mapping else None,
        seed=0,
        **options,
    )


def step(model, *rates, x=X, **options):
    """Takes one step of plain gradient descent; returns the z that it draws."""
    model.compile(*(SGD(rate) for rate in rates), **options)
    model.build((None, *x.shape[1:]))
    seed = twin_of(model.seed_generator)
    model.fit(x, batch_size=len(x), shuffle=False, verbose=0)
    return to_numpy(keras.random.normal((len(x), *model.noise_shape), seed=seed))


def twin_of(generator):
    twin = keras.random.SeedGenerator(0)
    twin.state.assign(to_numpy(generator.state).copy())
    return twin


def values(layer):
    return [to_numpy(weight).copy() for weight in layer.variables]


def same(first, second, **tolerance):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, **({"rtol": 1e-5, "atol": 1e-7} | tolerance))


class Part(AdversarialLoss):
    """A loss of which only the given players' parts count."""

    def __init__(self, loss, *players):
        self.loss, self.players = loss, players

    def discriminator(self, real, fake):
        return self.loss.discriminator(real, fake) * ("discriminator" in self.players)

    def generator(self, real, fake):
        return self.loss.generator(real, fake) * ("generator" in self.players)

    def get_config(self):
        return {"loss": self.loss}


NOTHING = Part(NonSaturatingLoss())

# loss -> slopes of L_D in D(x) and in D(G(z)), and of L_G in D(G(z))
SLOPES = {
    "non_saturating": (lambda r, f: -expit(-r), lambda r, f: expit(f), lambda r, f: -expit(-f)),
    "hinge": (lambda r, f: -1.0 * (r < 1), lambda r, f: 1.0 * (f > -1), lambda r, f: -np.ones_like(f)),
    "wasserstein": (lambda r, f: -np.ones_like(r), lambda r, f: np.ones_like(f), lambda r, f: -np.ones_like(f)),
    "relativistic": (lambda r, f: -expit(f - r), lambda r, f: expit(f - r), lambda r, f: -expit(r - f)),
}


# Gradients


@pytest.mark.parametrize("loss", SLOPES)
def test_each_player_follows_its_own_loss(loss):
    model = plain(loss, mapping=True)
    z = step(model, 0.5, 0.25).astype("float64")
    w = z @ M
    fakes = w @ G
    real, fake = X @ D[:, 0], fakes @ D[:, 0]
    of_real, of_fake, of_generator = (slope(real, fake)[:, None] for slope in SLOPES[loss])
    np.testing.assert_allclose(
        to_numpy(model.discriminator.weights[0])[:, 0],
        D[:, 0] - 0.25 * (of_real * X + of_fake * fakes).mean(axis=0),
        rtol=1e-4,
    )
    of_samples = of_generator * D[:, 0] / len(X)
    np.testing.assert_allclose(to_numpy(model.generator.weights[0]), G - 0.5 * w.T @ of_samples, rtol=1e-4, atol=1e-6)
    of_mapping = z.T @ (of_samples @ G.T)
    np.testing.assert_allclose(to_numpy(model.mapping.weights[0]), M - 0.5 * of_mapping, rtol=1e-4, atol=1e-6)


def test_players_do_not_disturb_each_other():
    """Each moves by its own loss as if the other's were not there, whatever a discriminator does to itself."""

    def make(*players):
        generator = [keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]
        hidden = layers.SpectralNormalization(layers.Dense(5, "tanh"))
        inner = [hidden, layers.BatchNormalization(), layers.Dropout(0.5, seed=1)]
        model = GAN(
            keras.Sequential(generator),
            keras.Sequential([keras.Input((2,)), *inner, layers.Dense(1)]),
            loss=Part(RelativisticLoss(), *players),
            seed=0,
        )
        for part in (model.generator, model.discriminator):
            randomize_weights(part)
        step(model, 0.5, run_eagerly=keras.backend.backend() != "jax")
        return model

    both, of_discriminator, of_generator, neither = (
        make(*players) for players in (("discriminator", "generator"), ("discriminator",), ("generator",), ())
    )
    same(values(both.discriminator), values(of_discriminator.discriminator))
    same(values(both.generator), values(of_generator.generator))
    same(values(neither.discriminator), values(of_generator.discriminator), rtol=0, atol=0)
    same(values(neither.generator), values(of_discriminator.generator), rtol=0, atol=0)
    for moved, still in ((of_discriminator, neither), (of_generator, neither)):
        pairs = zip(moved.trainable_weights, still.trainable_weights, strict=True)
        assert sum(np.abs(to_numpy(a) - to_numpy(b)).max() > 1e-4 for a, b in pairs) > 2


def test_spectral_normalization_trains():
    """It assigns its kernel in the call, and the discriminator is called more than once in a step."""
    hidden = layers.SpectralNormalization(layers.Dense(8, "leaky_relu"))
    discriminator = keras.Sequential([keras.Input((2,)), hidden, layers.SpectralNormalization(layers.Dense(1))])
    model = GAN(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), discriminator, "wasserstein", seed=0)
    model.compile(keras.optimizers.Adam(1e-2))
    assert np.isfinite(model.fit(X, batch_size=8, epochs=3, verbose=0).history["loss"]).all()
    points = np.random.default_rng(1).normal(size=(2, 200, 2)).astype("float32")
    rise = to_numpy(discriminator(points[0]) - discriminator(points[1]))[:, 0]
    assert np.abs(rise / np.linalg.norm(points[0] - points[1], axis=1)).max() < 1.5


def test_weight_penalties_reach_their_player():
    options = {"kernel_regularizer": keras.regularizers.L2(0.1)}
    model = GAN(
        keras.Sequential([keras.Input((3,)), linear(G, **options)]),
        keras.Sequential([linear(D, **options)]),
        loss=NOTHING,
        seed=0,
    )
    step(model, 0.5, 0.25)
    np.testing.assert_allclose(to_numpy(model.generator.weights[0]), 0.9 * G, rtol=1e-5)
    np.testing.assert_allclose(to_numpy(model.discriminator.weights[0]), 0.95 * D, rtol=1e-5)
    loss = model.evaluate(X, verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(0.1 * ((0.9 * G) ** 2).sum() + 0.1 * ((0.95 * D) ** 2).sum(), rel=1e-5)


# Penalties


def test_penalties_teach_the_discriminator():
    """A linear D has the penalties weight / 2 |w|^2, exact in one dimension, and weight (|w| - 1)^2."""

    def after(penalty, kernel):
        generator = keras.Sequential([keras.Input((3,)), linear(np.ones((3, len(kernel)), "float32"))])
        model = GAN(generator, keras.Sequential([linear(kernel)]), NOTHING, penalty, seed=0)
        step(model, 0.1, x=np.ones((8, len(kernel)), "float32"))
        np.testing.assert_array_equal(to_numpy(generator.weights[0]), 1)
        return to_numpy(model.discriminator.weights[0])

    np.testing.assert_allclose(after(R1Penalty(4.0), np.array([[2.0]], "float32")), [[1.2]], rtol=1e-5)
    kernel = np.array([[3.0], [4.0]], "float32")
    np.testing.assert_allclose(after(GradientPenalty(0.5), kernel), kernel * (1 - 0.4 / 5), rtol=1e-5)


def test_the_loss_holds_the_penalty():
    model = plain("wasserstein", penalty=GradientPenalty(3.0))
    model.compile()
    model.build((None, 2))
    logs = model.evaluate(X, batch_size=32, verbose=0, return_dict=True)
    plainly = plain("wasserstein")
    plainly.compile()
    plainly.build((None, 2))
    without = plainly.evaluate(X, batch_size=32, verbose=0, return_dict=True)
    assert logs["loss"] - without["loss"] == pytest.approx(3 * (np.linalg.norm(D) - 1) ** 2, rel=1e-3)
    assert logs["loss"] == pytest.approx(logs["discriminator_loss"], rel=1e-5)
    assert logs["generator_loss"] == pytest.approx(without["generator_loss"], rel=1e-5)


class SeveralCalls(Penalty):
    """Calls the discriminator by itself, in reverse and in forward mode."""

    def __call__(self, discriminator, x, fake, seed):
        slope = gradient(discriminator, x)
        v = keras.random.normal(ops.shape(x), seed=seed)
        _, along = ops.jvp(discriminator, (x,), (v,))
        return self.weight * (ops.sum(slope**2, axis=1) + along**2 + discriminator(x) ** 2 + discriminator(fake) ** 2)


@pytest.mark.parametrize("penalty", [R1Penalty(), GradientPenalty(), SeveralCalls()])
def test_a_penalty_leaves_the_state_of_the_discriminator(penalty):
    def states(penalty):
        inner = [layers.Dense(5), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.5, seed=1)]
        discriminator = keras.Sequential([keras.Input((2,)), *inner, layers.Dense(1)])
        randomize_weights(discriminator)
        before = values(discriminator)
        model = GAN(keras.Sequential([keras.Input((3,)), linear(G)]), discriminator, NOTHING, penalty, seed=0)
        step(model, 0.1)
        moved = [np.abs(a - b).max() > 0 for a, b in zip(before, values(discriminator), strict=True)]
        trainable = {id(weight) for weight in discriminator.trainable_weights}
        return moved, [to_numpy(v).copy() for v in discriminator.variables if id(v) not in trainable]

    moved, with_penalty = states(penalty)
    _, without = states(None)
    same(with_penalty, without)
    assert sum(moved) > 3  # statistics and seeds move, and the penalty's gradient moves weights


# Optimizers


def test_optimizers_keep_to_their_players():
    start = plain(mapping=True)
    start.build((None, 2))
    moves = (
        ((0.0, 0.1), ("generator", "mapping")),
        ((0.1, 0.0), ("discriminator",)),
        ((0.0, 0.0, 0.1), ("generator", "discriminator")),
        ((0.1, 0.1, 0.0), ("mapping",)),
    )
    for rates, still in moves:
        model = plain(mapping=True)
        step(model, *rates)
        for name in ("generator", "mapping", "discriminator"):
            a, b = (to_numpy(getattr(which, name).weights[0]) for which in (start, model))
            assert np.array_equal(a, b) == (name in still), name


def test_optimizers_by_name():
    model = plain()
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.players.discriminator is None
    model.compile("sgd", "rmsprop")
    assert isinstance(model.players.generator, SGD)
    assert isinstance(model.players.discriminator, keras.optimizers.RMSprop)
    assert np.isfinite(model.fit(X, verbose=0).history["loss"]).all()
    assert len(model.players.discriminator.variables) == 3  # step, rate, and one velocity
    assert len(model.players.generator.variables) == 2


@pytest.mark.parametrize("two", [False, True])
def test_training_goes_on_from_a_file(two):
    model = plain(mapping=True, penalty="gradient")
    adam = keras.optimizers.Adam
    decay = keras.optimizers.schedules.ExponentialDecay(1e-2, 3, 0.5)
    model.compile(adam(decay, beta_1=0.5), *([adam(3e-2)] if two else []))
    fit = {"batch_size": 8, "shuffle": False, "verbose": 0}
    model.fit(X, epochs=2, **fit)
    loaded = save_and_load(model)
    assert isinstance(loaded.players.generator.get_config()["learning_rate"], dict)
    assert loaded.players.generator.beta_1 == 0.5
    assert (loaded.players.discriminator is not None) == two
    if two:
        assert float(to_numpy(loaded.players.discriminator.learning_rate)) == pytest.approx(3e-2)
    for one in (model, loaded):
        one.fit(X, epochs=2, **fit)
    same(values(model), values(loaded), rtol=1e-4, atol=1e-6)


def test_options_of_compilation_go_into_a_file():
    model = plain()
    model.compile("sgd", "sgd", run_eagerly=True, jit_compile=False)
    model.build((None, 2))
    loaded = save_and_load(model)
    assert loaded.run_eagerly
    assert loaded.jit_compile is False


# The average


@pytest.mark.parametrize("momentum", [0.999, 0.15])
def test_average_of_the_weights(momentum):
    model = plain(mapping=True, ema_momentum=momentum)
    model.build((None, 2))
    model.compile(SGD(0.1))
    average = [np.array(G, "float64"), np.array(M, "float64")]
    for n in range(4):
        present = [to_numpy(part.weights[0]).copy() for part in (model.generator, model.mapping)]
        m = min(momentum, (1 + n) / (10 + n))
        average = [a + (1 - m) * (w - a) for a, w in zip(average, present, strict=True)]
        model.fit(X, batch_size=32, verbose=0)
        found = [to_numpy(part.weights[0]) for part in (model.sampling_generator, model.sampling_mapping)]
        same(found, average, rtol=1e-4, atol=1e-6)
        assert np.abs(to_numpy(model.generator.weights[0]) - found[0]).max() > 1e-4
    model.evaluate(X, verbose=0)
    same(
        [to_numpy(part.weights[0]) for part in (model.sampling_generator, model.sampling_mapping)],
        found,
        rtol=0,
        atol=0,
    )
    noise = X[:, :2]
    expected = noise @ found[1] @ found[0]
    np.testing.assert_allclose(model.sample(noise=noise, verbose=0), expected, rtol=1e-3, atol=1e-5)


def test_running_statistics_are_copied():
    generator = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)])
    model = GAN(generator, keras.Sequential([layers.Dense(1)]), seed=0)
    model.compile(SGD(0.1))
    for _ in range(2):
        model.fit(X, batch_size=16, verbose=0)
        pairs = list(zip(model.sampling_generator.weights, generator.weights, strict=True))
        for mine, weight in pairs:
            assert np.array_equal(to_numpy(mine), to_numpy(weight)) == (not weight.trainable)
    assert not any(np.isin(to_numpy(weight), (0, 1)).any() for weight in generator.non_trainable_weights)
    assert not model.sampling_generator.trainable_weights
    assert len(model.trainable_weights) == len(generator.trainable_weights) + 2


def test_without_an_average():
    model = plain(mapping=True, ema_momentum=None)
    model.build((None, 2))
    assert model.average is None
    assert model.sampling_generator is model.generator
    assert model.sampling_mapping is model.mapping
    np.testing.assert_allclose(model.sample(noise=X, verbose=0), X @ M @ G, rtol=1e-4, atol=1e-5)
    assert plain(ema_momentum=None).sampling_mapping is None


def test_players_may_be_plain_layers():
    mapping = keras.Sequential([keras.Input((2,)), linear(M)])
    model = GAN(linear(G), linear(D), mapping=mapping, seed=0)
    z = step(model, 0.1)
    np.testing.assert_allclose(model.sample(noise=z, verbose=0), z @ M @ G, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(save_and_load(model).sample(noise=z, verbose=0), z @ M @ G, rtol=1e-4, atol=1e-5)


# Samples and logs


def test_latents_are_what_the_generator_sees():
    model = plain(mapping=True)
    step(model, 0.1)
    noise = np.random.default_rng(3).normal(size=(7, 2))
    samples = model.sample(noise=noise, verbose=0)
    assert samples.shape == (7, 2)
    assert samples.dtype == np.dtype("float32")
    w = model.map_latents(noise, batch_size=3)
    assert w.dtype == np.dtype("float32")
    np.testing.assert_allclose(w, to_numpy(model.sampling_mapping(noise.astype("float32"))), rtol=1e-5, atol=1e-6)
    for again in (
        model.sample(latents=w, verbose=0),
        model.sample(7, latents=w.tolist(), batch_size=2, verbose=0),
        model.sample(7, noise=ops.convert_to_tensor(noise), verbose=0),
    ):
        np.testing.assert_allclose(again, samples, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plain_built().map_latents(G.T), G.T)  # there is no mapping


def plain_built(**options):
    model = plain(**options)
    model.build((None, 2))
    return model


def test_a_sample_depends_on_seed_and_place_alone():
    model = plain_built(mapping=True)
    samples = model.sample(5, seed=3, verbose=0)
    np.testing.assert_allclose(model.sample(3, seed=3, batch_size=2, verbose=0), samples[:3], rtol=1e-5, atol=1e-6)
    assert np.abs(model.sample(5, seed=4, verbose=0) - samples).min() > 0
    assert np.abs(model.sample(5, verbose=0) - model.sample(5, verbose=0)).min() > 0


def test_hubs_are_latents():
    model = plain_built(mapping=True)
    sampler = HubnessSampler(mapping=model.sampling_mapping, top_fraction=0.1, pool_size=60)
    w, z = sampler.sample(9, seed=0, return_prior=True, verbose=0)
    found = model.sample(latents=w, verbose=0)
    np.testing.assert_allclose(found, model.sample(noise=z, verbose=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", SLOPES)
def test_logs_are_the_losses(loss):
    model = plain_built(loss=loss)
    model.compile()
    seed = twin_of(model.seed_generator)
    seed.state.assign(step_seeds(1, 0, 0, seed.state.dtype)[0])  # evaluation draws from a seed of its own
    logs = model.evaluate(X, batch_size=32, verbose=0, return_dict=True)
    z = to_numpy(keras.random.normal((32, 3), seed=seed))
    real, fake = (ops.convert_to_tensor(x @ D[:, 0]) for x in (X, z @ G))
    players = model.adversarial_loss
    assert logs["generator_loss"] == pytest.approx(to_numpy(players.generator(real, fake)).mean(), rel=1e-4)
    assert logs["discriminator_loss"] == pytest.approx(to_numpy(players.discriminator(real, fake)).mean(), rel=1e-4)
    assert logs["loss"] == pytest.approx(logs["discriminator_loss"], rel=1e-5)
    history = model.fit(X, validation_data=(X,), verbose=0).history
    names = {"loss", "generator_loss", "discriminator_loss"}
    assert set(history) == names | {f"val_{name}" for name in names}


def test_evaluation_changes_nothing():
    inner = [layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.5)]
    model = GAN(
        keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)]),
        keras.Sequential([keras.Input((2,)), *inner, layers.Dense(1)]),
        penalty="r1",
        seed=0,
    )
    model.compile()
    model.fit(X, verbose=0)
    before = [to_numpy(weight).copy() for weight in model.weights]
    for _ in range(2):
        assert np.isfinite(model.evaluate(X, batch_size=7, verbose=0, return_dict=True)["loss"])
    same(before, [to_numpy(weight) for weight in model.weights], rtol=0, atol=0)


def test_a_patch_discriminator_is_averaged(rng):
    images = rng.uniform(-1, 1, (6, 8, 8, 1)).astype("float32")
    generator = keras.Sequential([keras.Input((3,)), layers.Dense(64), layers.Reshape((8, 8, 1))])
    patches = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(1, 3, 2)])
    model = GAN(generator, patches, "wasserstein", "r1", seed=0)
    model.compile(SGD(1e-2))
    assert np.isfinite(model.fit(images, verbose=0).history["loss"]).all()
    plainly = GAN(generator, keras.Sequential([patches, layers.Flatten(), layers.Dense(1)]), "wasserstein", seed=0)
    last = plainly.discriminator.layers[-1]
    last.set_weights([np.full((9, 1), 1 / 9, "float32"), np.zeros(1, "float32")])
    model = GAN(generator, patches, "wasserstein", seed=0)
    logs = []
    for one in (model, plainly):
        one.compile()
        one.build((None, 8, 8, 1))
        logs.append(one.evaluate(images, verbose=0, return_dict=True))
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


# Training


def test_batches_of_any_size_and_datasets():
    class Batches(keras.utils.PyDataset):
        def __init__(self):
            super().__init__()

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return X[13 * index : 13 * (index + 1)]

    model = plain_built(penalty="r1")
    model.compile(SGD(1e-2))
    assert np.isfinite(model.fit(Batches(), verbose=0).history["loss"]).all()
    assert np.isfinite(model.fit(X, batch_size=13, epochs=2, verbose=0).history["loss"]).all()
    assert np.isfinite(model.train_on_batch(X[:5], return_dict=True)["loss"])


@pytest.mark.parametrize("penalty", ["r1", "gradient", None])
def test_mixed_precision_is_finite(penalty):
    def dense(*args):
        return layers.Dense(*args, dtype="mixed_bfloat16")

    model = GAN(
        keras.Sequential([keras.Input((3,)), dense(8, "relu"), dense(2)]),
        keras.Sequential([keras.Input((2,)), dense(8, "leaky_relu"), dense(1)]),
        penalty=penalty,
        mapping=keras.Sequential([keras.Input((3,)), dense(3)]),
        seed=0,
        dtype="mixed_bfloat16",
    )
    model.compile(keras.optimizers.Adam(1e-2))
    assert np.isfinite(model.fit(X, epochs=2, verbose=0).history["loss"]).all()
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    samples = model.sample(3, seed=0, verbose=0)
    assert samples.dtype == np.dtype("float32")
    assert np.isfinite(samples).all()
    assert model.map_latents(np.zeros((2, 3), "float32")).dtype == np.dtype("float32")


def test_double_precision_data_are_data_too():
    model = plain()
    model.compile()
    assert np.isfinite(model.fit(X.astype("float64"), verbose=0).history["loss"]).all()


def ring(n, rng):
    turn = 2 * np.pi * rng.integers(8, size=n) / 8
    return (np.stack([np.cos(turn), np.sin(turn)], axis=1) + 0.05 * rng.normal(size=(n, 2))).astype("float32")


def test_learns_eight_gaussians_on_a_ring(rng):
    dense = layers.Dense

    def make():
        return GAN(
            keras.Sequential([keras.Input((2,)), dense(64, "relu"), dense(64, "relu"), dense(2)]),
            keras.Sequential([keras.Input((2,)), dense(64, "leaky_relu"), dense(64, "leaky_relu"), dense(1)]),
            penalty=R1Penalty(0.1),
            ema_momentum=0.95,
            seed=0,
        )

    model = made_alike(make)
    model.compile(keras.optimizers.Adam(5e-3, beta_1=0.5), keras.optimizers.Adam(1e-2, beta_1=0.5))
    model.fit(ring(150 * 256, rng), batch_size=256, verbose=0)
    samples = model.sample(2000, seed=0, batch_size=2000, verbose=0)
    modes = np.round(8 * np.arctan2(samples[:, 1], samples[:, 0]) / (2 * np.pi)).astype(int) % 8
    centers = np.stack([np.cos(2 * np.pi * modes / 8), np.sin(2 * np.pi * modes / 8)], axis=1)
    near = np.linalg.norm(samples - centers, axis=1) < 0.2
    assert near.mean() > 0.15  # 0.23 to 0.32 after these few steps
    assert np.bincount(modes[near], minlength=8).min() > 0.005 * 2000


# Errors


def untrained(**options):
    model = plain(**options)
    model.compile()
    return model


NOISY = np.where(np.arange(32)[:, None] % 16 == 3, np.nan, X)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda: plain(loss="bce"),
            "`loss` must be one of 'non_saturating', .* Received: loss='bce'",
        ),
        (lambda: plain(loss=None), "`loss` must be one of .* Received: loss=None"),
        (lambda: plain(loss=NonSaturatingLoss), "`loss` must be one of"),
        (
            lambda: plain(penalty="r2"),
            "`penalty` must be one of 'r1', 'gradient', or an instance of Penalty. Received: penalty='r2'",
        ),
        (
            lambda: plain(penalty=10.0),
            "`penalty` must be one of 'r1', 'gradient', or an instance of Penalty. Received: penalty=10.0",
        ),
        (lambda: plain(ema_momentum=1.0), r"`ema_momentum` must be in \(0, 1\). Received: ema_momentum=1.0"),
        (lambda: plain(ema_momentum=0), r"`ema_momentum` must be in \(0, 1\). Received: ema_momentum=0"),
        (lambda: plain(ema_momentum="0.9"), r"`ema_momentum` must be in \(0, 1\)"),
        (
            lambda: GAN("dense", linear(D)),
            "`generator` must be a keras.Layer or keras.Model. Received: generator=dense",
        ),
        (lambda: GAN(linear(G), None), "`discriminator` must be a keras.Layer or keras.Model. Received: .*None"),
        (
            lambda: GAN(linear(G), linear(D), mapping=3),
            "`mapping` must be None, a layer or a model. Received: mapping=3",
        ),
        (lambda: plain().compile(loss="mse"), "`loss` must be left out: the model computes its own loss"),
        (lambda: plain().compile(metrics=["mse"]), "`metrics` must be left out"),
        (lambda: plain().compile("sgd", "sgd", "adam"), "`mapping_optimizer` must be None without a mapping"),
        (
            lambda: untrained().fit(X[:, :1]),
            r"`generator` must return outputs of shape \(n, 1\). Received: generator=\(n, 2\)",
        ),
        (
            lambda: GAN(linear(G), linear(D)).build((None, 2)),
            "`generator` must be a model with one input of known shape",
        ),
        (
            lambda: GAN(linear(G), linear(D), mapping=linear(M)).build((None, 2)),
            "`mapping` must be a model with one input of known shape",
        ),
        (
            lambda: GAN(keras.Sequential([keras.Input((None, 3)), linear(G)]), linear(D)).build((None, 4, 2)),
            "`generator` must be a model with one input of known shape",
        ),
        (lambda: untrained().fit(X, X[:, 0]), "`y` must be None: the model takes no labels. Received: y=a value"),
        (lambda: untrained().evaluate(X, X[:, 0]), "`y` must be None: the model takes no labels"),
        (lambda: untrained().fit(X, validation_data=(X, X)), "`y` must be None: the model takes no labels"),
        (lambda: untrained().fit(X, sample_weight=X[:, 0]), "`sample_weight` must come with `y`"),
        (lambda: untrained().fit(X.astype("uint8")), "`x` must be floating-point. Received: x=dtype uint8"),
        (lambda: untrained().fit(NOISY), "`x` must be finite. Received: x=NaN or infinite values in 2 of 32 samples"),
        (lambda: untrained().fit(X / 0), "`x` must be finite"),
        (lambda: untrained().fit(X[:0]), r"`x` must hold at least one sample. Received: x=shape \(0, 2\)"),
        (lambda: untrained().fit(X, validation_data=(NOISY,)), "`x` must be finite"),
        (lambda: untrained(mapping=True).sample(2), "`model` must be built: call `fit` or `build` first"),
        (lambda: plain().map_latents(X), "`model` must be built: call `fit` or `build` first"),
        (lambda: plain_built().fit(G.T), r"`x` must have shape \(n, 2\). Received: x=shape \(2, 3\)"),
        (lambda: plain_built().sample(), "`n` must be given unless latents or noise are. Received: n=None"),
        (lambda: plain_built().sample(0), "`n` must be an integer >= 1. Received: n=0"),
        (lambda: plain_built().sample(2.0), "`n` must be an integer >= 1. Received: n=2.0"),
        (lambda: plain_built().sample(latents=G.T, noise=G.T), "`noise` must be None if latents are given"),
        (lambda: plain_built().sample(3, noise=G.T), r"`noise` must hold 3 draws. Received: noise=shape \(2, 3\)"),
        (
            lambda: plain_built().sample(3, latents=G.T),
            r"`latents` must hold 3 latents. Received: latents=shape \(2, 3\)",
        ),
        (lambda: plain_built().sample(noise=G), r"`noise` must have shape \(n, 3\). Received: noise=shape \(3, 2\)"),
        (
            lambda: plain_built().sample(latents=G),
            r"`latents` must have shape \(n, 3\). Received: latents=shape \(3, 2\)",
        ),
        (lambda: plain_built().sample(latents=G.T / 0), "`latents` must be finite"),
        (lambda: plain_built().sample(latents=G.T[:0]), "`latents` must hold at least one sample"),
        (lambda: plain_built().sample(2, seed=-1), "`seed` must be an integer >= 0. Received: seed=-1"),
        (lambda: plain_built().sample(2, batch_size=0), "`batch_size` must be an integer >= 1. Received: batch_size=0"),
        (lambda: plain_built().map_latents(G), r"`z` must have shape \(n, 3\). Received: z=shape \(3, 2\)"),
        (lambda: plain_built(mapping=True).map_latents(np.full((2, 2), np.inf)), "`z` must be finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()
