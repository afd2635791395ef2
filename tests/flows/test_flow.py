import math
import pathlib

import keras
import numpy as np
import pytest
from keras import ops
from scipy.stats import laplace, logistic, multivariate_normal, norm, uniform
from sklearn.datasets import make_moons

from keras_gen.core.calculus.gradient import double_precision
from keras_gen.core.fixtures import randomize_weights, save_and_load, to_numpy
from keras_gen.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    ContinuousFlow,
    Dequantize,
    Invertible1x1Conv,
    LearnedNormalBase,
    LogisticBase,
    LogitTransform,
    MaskedAutoregressive,
    Reshape,
    Scale,
    SplineCoupling,
    UniformBase,
)
from keras_gen.models import NICE, Flow, Glow, RealNVP

REFERENCE = pathlib.Path(__file__).parent.parent / "data" / "flow_losses.npz"
POINTS = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
LEVELS = (np.random.default_rng(1).integers(0, 17, (12, 4, 4, 1)) / 8 - 1).astype("float32")
CONDITIONS = np.random.default_rng(2).normal(size=(12, 3)).astype("float32")


def built(model, *shapes):
    """A model with random weights."""
    model.build(*((None, *shape) for shape in shapes))
    randomize_weights(model.bijector)
    randomize_weights(model.base)
    model.compile(keras.optimizers.Adam(1e-2))
    return model


def couplings(**options):
    return Chain([AffineCoupling(units=[8], flip=flip, **options) for flip in (False, True)], **options)


def small_flow(base="normal", **options):
    return built(Flow(couplings(), base, seed=0, **options), (4,))


def image_flow():
    bijectors = [Dequantize(17, seed=0), LogitTransform(), AffineCoupling(units=[4], split="checkerboard"), Reshape()]
    return built(Flow(Chain(bijectors), seed=0), (4, 4, 1))


def conditional_flow():
    return built(Flow(couplings(), seed=0), (4,), (3,))


class Batches(keras.utils.PyDataset):
    """A dataset of one batch."""

    def __init__(self, *batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


# Values


def test_standard_normal():
    model = Flow(Reshape())
    origin = np.zeros((1, 2), "float32")
    np.testing.assert_allclose(model.log_prob(origin, verbose=0), [-math.log(2 * math.pi)], rtol=1e-6)
    np.testing.assert_allclose(model.bits_per_dim(origin, verbose=0), [1.3257], atol=5e-5)
    x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    np.testing.assert_allclose(model.log_prob(x, verbose=0), norm.logpdf(x).sum(1), rtol=1e-5)
    assert model.log_prob(x, verbose=0).dtype == np.float32


@pytest.mark.parametrize("base", ["logistic", LogisticBase()])
def test_standard_logistic(base):
    x = np.array([[0.0, 0, 0, 0], [1, -2, 30, -100]], "float32")
    np.testing.assert_allclose(Flow(Reshape(), base).log_prob(x, verbose=0), logistic.logpdf(x).sum(1), rtol=1e-5)


@pytest.mark.parametrize("levels", [2, 256])
def test_images_under_a_uniform_density_have_log2_levels_bits(levels, rng):
    x = (2 * rng.integers(0, levels, (5, 4, 4, 3)) / (levels - 1) - 1).astype("float32")
    model = Flow(Chain([Dequantize(levels), Reshape()]), UniformBase())
    np.testing.assert_allclose(model.bits_per_dim(x, verbose=0), np.full(5, math.log2(levels)), rtol=1e-6)
    logit = Flow(Chain([Dequantize(levels), LogitTransform(0.0)]), "logistic")  # uniform too
    np.testing.assert_allclose(logit.bits_per_dim(x, verbose=0), np.full(5, math.log2(levels)), rtol=1e-5)


def test_uniform_base_ends_at_the_cube():
    x = np.array([[0.0, 1.0], [0.5, 1.01], [-0.01, 0.5]], "float32")
    np.testing.assert_array_equal(Flow(Reshape(), UniformBase()).log_prob(x, verbose=0), [0, -np.inf, -np.inf])


def test_an_affine_flow_is_a_gaussian(rng):
    matrix = rng.normal(size=(3, 3)) + 2 * np.eye(3)
    scale, base = Scale(), LearnedNormalBase()
    model = Flow(Chain([scale, Invertible1x1Conv(matrix)]), base)
    model.build((None, 3))
    s, mean, log_sigma = rng.normal(size=(3, 3)) * 0.5
    scale.log_scale.assign(s)
    base.mean.assign(mean)
    base.log_sigma.assign(log_sigma)
    back = np.linalg.inv(np.diag(np.exp(s)) @ matrix)
    exact = multivariate_normal(mean @ back, back.T @ np.diag(np.exp(2 * log_sigma)) @ back)
    x = exact.rvs(6, random_state=0).astype("float32")
    np.testing.assert_allclose(model.log_prob(x, verbose=0), exact.logpdf(x), rtol=1e-4, atol=1e-4)
    samples = model.sample(20000, seed=0, batch_size=20000, verbose=0)
    np.testing.assert_allclose(samples.mean(0), exact.mean, atol=0.03 * np.sqrt(np.diag(exact.cov)).max())
    np.testing.assert_allclose(np.cov(samples.T), exact.cov, atol=0.05 * np.abs(exact.cov).max())


def test_learned_normal_base_finds_the_moments():
    x = POINTS[:, :2].repeat(400, 0) * np.array([2, 0.3], "float32") + np.array([-1, 3], "float32")
    base = LearnedNormalBase()
    model = Flow(Reshape(), base, seed=0)
    model.compile(keras.optimizers.Adam(0.1))
    model.fit(x, batch_size=240, epochs=13, verbose=0)
    np.testing.assert_allclose(to_numpy(base.mean), x.mean(0), atol=0.03)
    np.testing.assert_allclose(np.exp(to_numpy(base.log_sigma)), x.std(0), rtol=0.05)


def test_log_density_of_a_flow_can_be_used_in_other_models():
    """`log_density` takes tensors, and agrees with `log_prob`."""
    model = conditional_flow()
    log_p = model.log_density(ops.convert_to_tensor(POINTS), ops.convert_to_tensor(CONDITIONS))
    np.testing.assert_allclose(to_numpy(log_p), model.log_prob(POINTS, CONDITIONS, verbose=0), rtol=1e-5, atol=1e-5)


MOONS = ((make_moons(600, noise=0.08, random_state=0)[0] - [0.5, 0.25]) / [0.87, 0.5]).astype("float32")


@pytest.mark.parametrize(
    "make",
    [
        lambda: RealNVP(4, [16], seed=0),
        lambda: Flow(
            Chain(
                [
                    bijector
                    for flip in (False, True)
                    for bijector in (ActNorm(), SplineCoupling(units=[16], flip=flip, num_bins=6))
                ]
            ),
            seed=0,
        ),
    ],
)
def test_two_moons_integrate_to_one(make):
    model = make()
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 150)))
    model.fit(MOONS, batch_size=100, epochs=25, verbose=0)
    log_p = model.log_prob(MOONS, batch_size=600, verbose=0)
    assert log_p.mean() > norm.logpdf(MOONS).sum(1).mean() + 0.15
    side = np.linspace(-8, 8, 481, dtype="float32")
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    density = np.exp(model.log_prob(grid, batch_size=len(grid), verbose=0).astype("float64"))
    assert density.sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=1e-3)
    samples = model.sample(600, seed=0, batch_size=600, verbose=0)
    nearest = np.linalg.norm(samples[:, None] - MOONS, axis=-1).min(1)
    assert np.median(nearest) < 0.15


# Samples and latents


BASES = {
    "normal": "normal",
    "logistic": "logistic",
    "laplace": "laplace",
    "uniform": UniformBase,
    "learned": LearnedNormalBase,
}


def flow_on(name):
    base = BASES[name]
    return small_flow(base if isinstance(base, str) else base())


@pytest.mark.parametrize("base", BASES)
def test_a_sample_depends_on_seed_and_place_alone(base):
    model = flow_on(base)
    samples = model.sample(5, seed=3, verbose=0)
    assert samples.dtype == np.float32
    for n, batch_size in ((5, 2), (5, 1), (3, 256)):
        again = model.sample(n, seed=3, batch_size=batch_size, verbose=0)
        np.testing.assert_allclose(again, samples[:n], rtol=1e-5, atol=1e-5)
    assert np.abs(model.sample(5, seed=4, verbose=0) - samples).max() > 1e-2
    assert np.abs(model.sample(5, verbose=0) - model.sample(5, verbose=0)).max() > 1e-2


@pytest.mark.parametrize("base", BASES)
def test_without_temperature_there_is_the_center(base):
    model = flow_on(base)
    center = {"uniform": 0.5 * np.ones(4), "learned": to_numpy(getattr(model.base, "mean", ops.zeros(4)))}
    z = np.repeat(center.get(base, np.zeros(4))[None], 3, axis=0)
    np.testing.assert_allclose(model.sample(3, temperature=0, verbose=0), model.decode(z), rtol=1e-5, atol=1e-6)


def test_temperature_scales_the_noise():
    model = small_flow()
    noise = POINTS[:5]
    half = model.sample(5, temperature=0.5, noise=ops.convert_to_tensor(noise), verbose=0)
    np.testing.assert_allclose(half, model.decode(0.5 * noise), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("noise", [[[1, 0, 0, 2], [0, 1, 1, -1]], np.array([[1.0, 0, 0, 2], [0, 1, 1, -1]])])
def test_noise_can_be_given(base, noise):
    model = flow_on(base)
    z = to_numpy(model.base.from_noise(ops.convert_to_tensor(noise, "float32"), 1.0))
    np.testing.assert_allclose(model.sample(2, noise=noise, verbose=0), model.decode(z), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("base", BASES)
def test_latents_follow_the_base(base):
    model = Flow(Reshape(), flow_on(base).base)
    model.build((None, 4))
    z = model.sample(20000, seed=0, batch_size=20000, verbose=0)
    exact = {
        "normal": norm(0, 1),
        "logistic": logistic(0, 1),
        "laplace": laplace(0, 1),
        "uniform": uniform(0, 1),
    }.get(base)
    for i in range(4):
        mean, std = (exact.mean(), exact.std()) if exact else learned_moments(model.base, i)
        assert abs(z[:, i].mean() - mean) < 5 * std / np.sqrt(len(z))
        assert z[:, i].std() == pytest.approx(std, rel=0.03)


def learned_moments(base, i):
    return to_numpy(base.mean)[i], np.exp(to_numpy(base.log_sigma)[i])


@pytest.mark.parametrize("batch_size", [256, 5])
def test_decoding_undoes_encoding(batch_size):
    model = small_flow()
    z = model.encode(POINTS, batch_size=batch_size)
    assert z.shape == POINTS.shape
    assert np.abs(z - POINTS).max() > 0.1
    np.testing.assert_allclose(model.decode(z, batch_size=batch_size), POINTS, rtol=1e-5, atol=1e-5)
    images = image_flow()
    z = images.encode(LEVELS, batch_size=batch_size)
    assert z.shape == (12, 16)
    np.testing.assert_allclose(images.decode(z, batch_size=batch_size), LEVELS, atol=1e-6)


def test_interpolation_goes_straight_through_the_latents():
    model = small_flow()
    path = model.interpolate(POINTS[:2], POINTS[2:4], points=5)
    assert path.shape == (2, 5, 4)
    np.testing.assert_allclose(path[:, 0], POINTS[:2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(path[:, -1], POINTS[2:4], rtol=1e-5, atol=1e-5)
    z = model.encode(POINTS[:4])
    np.testing.assert_allclose(path[:, 2], model.decode((z[:2] + z[2:]) / 2), rtol=1e-5, atol=1e-5)
    conditional = conditional_flow()
    path = conditional.interpolate(POINTS[:2], POINTS[2:4], CONDITIONS[0], points=3)
    np.testing.assert_allclose(path[:, -1], POINTS[2:4], rtol=1e-5, atol=1e-5)


# Conditions


def test_conditions_reach_everything():
    model = conditional_flow()
    assert np.isfinite(model.fit(POINTS, CONDITIONS, batch_size=4, verbose=0).history["loss"]).all()
    one = CONDITIONS[0]
    same = np.repeat(one[None], 12, axis=0)
    uses = {
        "log_prob": lambda c: model.log_prob(POINTS, condition=c, verbose=0),
        "bits_per_dim": lambda c: model.bits_per_dim(POINTS, condition=c, verbose=0),
        "sample": lambda c: model.sample(12, condition=c, seed=0, verbose=0),
        "encode": lambda c: model.encode(POINTS, condition=c),
        "decode": lambda c: model.decode(POINTS, condition=c),
    }
    for use in uses.values():
        np.testing.assert_allclose(use(one), use(same), rtol=1e-5, atol=1e-6)
        assert np.abs(use(one) - use(CONDITIONS)).max() > 1e-3
    z = model.encode(POINTS, CONDITIONS, batch_size=5)
    np.testing.assert_allclose(model.decode(z, CONDITIONS), POINTS, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("with_data", [False, True])
def test_a_file_keeps_the_shape_of_conditions(with_data):
    model = conditional_flow()
    if with_data:
        model.fit(POINTS, CONDITIONS, verbose=0)
    loaded = save_and_load(model)
    assert loaded.condition_shape == (3,)
    np.testing.assert_allclose(
        loaded.log_prob(POINTS, CONDITIONS, verbose=0), model.log_prob(POINTS, CONDITIONS, verbose=0), rtol=1e-5
    )
    with pytest.raises(ValueError, match="`condition` must be given"):
        loaded.sample(2)
    assert save_and_load(small_flow()).condition_shape is None


@pytest.mark.parametrize(
    "make", [couplings, lambda: ContinuousFlow(units=[4], steps=1), lambda: MaskedAutoregressive([8])]
)
def test_labels_are_conditions(make):
    model = Flow(make(), seed=0)
    model.compile("adam")
    labels = np.arange(12) % 3
    model.fit(POINTS, labels, verbose=0)
    assert model.condition_shape == ()
    randomize_weights(model.bijector)
    alike = model.log_prob(POINTS, condition=np.full(12, 2), verbose=0)
    np.testing.assert_allclose(model.log_prob(POINTS, condition=2, verbose=0), alike, rtol=1e-5)


def test_conditions_of_a_dataset():
    model = conditional_flow()
    expected = model.evaluate(POINTS, CONDITIONS, verbose=0, return_dict=True)["loss"]
    logs = model.evaluate(Batches(POINTS, CONDITIONS), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(model.fit(Batches(POINTS, CONDITIONS), verbose=0).history["loss"]).all()


def test_data_of_a_dataset_build_the_model():
    model = Flow(couplings(), seed=0)
    model.compile("adam")
    model.fit(Batches(POINTS), verbose=0)
    assert model.data_shape == (4,)


def test_a_call_builds_the_model():
    model = Flow(couplings(), seed=0)
    np.testing.assert_array_equal(to_numpy(model(ops.convert_to_tensor(POINTS))), POINTS)
    assert model.data_shape == (4,)


def test_a_dataset_with_conditions_builds_the_model():
    model = Flow(couplings(), seed=0)
    model.compile("adam")
    assert np.isfinite(model.fit(Batches(POINTS, CONDITIONS), verbose=0).history["loss"]).all()
    assert model.sample(2, CONDITIONS[0], seed=0, verbose=0).shape == (2, 4)


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda m: m.fit(POINTS, verbose=0), "`y` must be given: the model was built for a condition"),
        (lambda m: m.evaluate(POINTS, verbose=0), "`y` must be given"),
        (
            lambda m: m.fit(POINTS, CONDITIONS[:5], verbose=0),
            r"`y` must have shape \(12, 3\). Received: y=shape",
        ),
        (lambda m: m.fit(POINTS, CONDITIONS[:, :2], verbose=0), r"`y` must have shape \(12, 3\)"),
        (lambda m: m.fit(POINTS, CONDITIONS * np.nan, verbose=0), "`y` must be finite"),
        (lambda m: m.fit(POINTS, CONDITIONS, validation_data=(POINTS,), verbose=0), "`y` must be given"),
        (lambda m: m.log_prob(POINTS), "`condition` must be given: the model was built for a condition"),
        (lambda m: m.log_prob(POINTS, CONDITIONS[:5]), r"`condition` must have shape \(12, 3\)"),
        (lambda m: m.bits_per_dim(POINTS), "`condition` must be given"),
        (lambda m: m.encode(POINTS), "`condition` must be given"),
        (lambda m: m.decode(POINTS), "`condition` must be given"),
        (lambda m: m.sample(2), "`condition` must be given"),
        (lambda m: m.sample(2, condition=CONDITIONS), r"`condition` must have shape \(2, 3\)"),
        (lambda m: m.sample(2, condition=1.0), r"`condition` must have shape \(2, 3\)"),
        (lambda m: m.sample(2, condition=CONDITIONS[0] * np.inf), "`condition` must be finite"),
        (lambda m: m.interpolate(POINTS, POINTS), "`condition` must be given"),
    ],
)
def test_bad_conditions(use, match):
    model = conditional_flow()
    with pytest.raises(ValueError, match=match):
        use(model)
    assert int(to_numpy(model.optimizer.iterations)) == 0


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ((POINTS,), "`y` must be given: the model was built for a condition"),
        ((POINTS, CONDITIONS[:, :2]), "`y` must have shape"),
        ((POINTS, CONDITIONS[:, 0]), "`y` must have shape"),
        ((POINTS[:, :2], CONDITIONS), r"`x` must have shape \(n, 4\)"),
    ],
)
def test_bad_conditions_of_a_dataset(batch, match):
    with pytest.raises(ValueError, match=match):
        conditional_flow().fit(Batches(*batch), verbose=0)


@pytest.mark.parametrize(
    "use",
    [
        lambda m: m.fit(POINTS, CONDITIONS, verbose=0),
        lambda m: m.fit(Batches(POINTS, CONDITIONS), verbose=0),
        lambda m: m.evaluate(POINTS, CONDITIONS, verbose=0),
        lambda m: m.log_prob(POINTS, CONDITIONS),
        lambda m: m.encode(POINTS, CONDITIONS),
        lambda m: m.decode(POINTS, CONDITIONS),
        lambda m: m.sample(12, condition=CONDITIONS),
    ],
)
def test_unexpected_conditions_are_refused(use):
    with pytest.raises(ValueError, match="`(y|condition)` must be None: the model was built without a condition"):
        use(small_flow())


def test_a_conditional_flow_recovers_a_linear_gaussian(rng):
    slopes, offset = np.array([[2.0, -1.0]]), np.array([0.5, 1.0])
    c = rng.normal(size=(600, 1)).astype("float32")
    x = (c @ slopes + offset + 0.5 * rng.normal(size=(600, 2))).astype("float32")
    bijectors = [AdditiveCoupling(units=[], flip=flip) for flip in (False, True)]
    model = Flow(Chain(bijectors), LearnedNormalBase(), seed=0)
    model.compile(keras.optimizers.Adam(5e-2))
    model.fit(x, c, batch_size=150, epochs=60, verbose=0)
    for value in (-1.0, 0.0, 2.0):
        samples = model.sample(2000, condition=[value], seed=0, batch_size=2000, verbose=0)
        np.testing.assert_allclose(samples.mean(0), value * slopes[0] + offset, atol=0.15)
        np.testing.assert_allclose(samples.std(0), 0.5, atol=0.1)
    exact = norm.logpdf(x, c @ slopes + offset, 0.5).sum(1)
    assert model.log_prob(x, c, verbose=0).mean() == pytest.approx(exact.mean(), abs=0.05)


# Bad data and bad use


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (POINTS * np.nan, "`x` must be finite. Received: x=NaN or infinite values"),
        (POINTS * np.inf, "`x` must be finite"),
        (POINTS.astype("int32"), "`x` must be floating-point. Received: x=dtype int32"),
        (POINTS[:0], "`x` must hold at least one sample"),
        (POINTS[0], r"`x` must (hold|have shape)"),
        (POINTS[:, :3], r"`x` must have shape \(n, 4\). Received: x=shape \(12, 3\)"),
        (POINTS[:, None], r"`x` must have shape \(n, 4\)"),
    ],
)
def test_bad_data_are_refused_everywhere(x, match):
    model = small_flow()
    uses = [
        lambda: model.fit(x, verbose=0),
        lambda: model.evaluate(x, verbose=0),
        lambda: model.fit(POINTS, validation_data=(x,), verbose=0),
        lambda: model.log_prob(x),
        lambda: model.bits_per_dim(x),
        lambda: model.encode(x),
        lambda: model.interpolate(x, x),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=match):
            use()
    assert int(to_numpy(model.optimizer.iterations)) == 0


@pytest.mark.parametrize("x", [POINTS * np.nan, POINTS.astype("uint8"), POINTS[:0]])
def test_bad_data_are_refused_before_the_model_is_built(x):
    model = Flow(couplings())
    model.compile("adam")
    for use in (lambda: model.fit(x, verbose=0), lambda: model.log_prob(x)):
        with pytest.raises(ValueError, match="`x` must"):
            use()


@pytest.mark.parametrize("x", [LEVELS + 0.03, LEVELS * 2, 127.5 * (LEVELS + 1)])
def test_pixels_off_the_levels_are_refused(x):
    model = image_flow()
    for use in (lambda: model.fit(x, verbose=0), lambda: model.log_prob(x), lambda: model.encode(x)):
        with pytest.raises(ValueError, match=r"`x` must be images in \[-1, 1\] of 17 levels"):
            use()


def test_bad_batches_of_a_dataset_are_refused():
    model = small_flow()
    with pytest.raises(ValueError, match=r"`x` must have shape \(n, 4\)"):
        model.fit(Batches(POINTS[:, :2]), verbose=0)


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda m: m.sample(0), "`n` must be an integer >= 1"),
        (lambda m: m.sample(2.0), "`n` must be an integer >= 1"),
        (lambda m: m.sample(2, temperature=-1), "`temperature` must be >= 0 and finite. Received: temperature=-1"),
        (lambda m: m.sample(2, temperature="1"), "`temperature` must be >= 0"),
        (lambda m: m.sample(2, temperature=float("nan")), "`temperature` must be >= 0"),
        (lambda m: m.sample(2, seed=-1), "`seed` must be an integer >= 0"),
        (lambda m: m.sample(2, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda m: m.sample(2, noise=np.zeros((3, 4))), r"`noise` must have shape \(2, 4\)"),
        (lambda m: m.log_prob(POINTS, seed=-1), "`seed` must be an integer >= 0"),
        (lambda m: m.log_prob(POINTS, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda m: m.bits_per_dim(POINTS, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda m: m.decode(np.zeros((2, 3))), r"`z` must have shape \(n, 4\). Received: z=shape \(2, 3\)"),
        (lambda m: m.decode(np.zeros((0, 4))), "`z` must have shape"),
        (lambda m: m.interpolate(POINTS, POINTS[:2]), "`x_b` must have as many samples as x_a"),
        (lambda m: m.interpolate(POINTS, POINTS, points=1), "`points` must be an integer >= 2"),
        (lambda m: m.compile("adam", loss="mse"), "`loss` must be left out"),
        (lambda m: m.fit(POINTS, sample_weight=np.ones(12), verbose=0), "`sample_weight` must come with `y`"),
        (lambda m: Flow(keras.layers.Dense(2)), "`bijector` must be a bijector"),
        (lambda m: Flow(None), "`bijector` must be a bijector"),
        (lambda m: Flow(Reshape(), "cauchy"), "`base` must be a Base or one of 'normal', 'logistic'"),
        (lambda m: Flow(Reshape(), NICE), "`base` must be a Base"),
        (lambda m: Flow(Reshape(), seed=-1), "`seed` must be an integer >= 0"),
        (lambda m: Flow(Reshape()).sample(1), "`model` must be built: call `fit` or `build` first"),
        (lambda m: Flow(Reshape()).decode(POINTS), "`model` must be built: call `fit` or `build` first"),
    ],
)
def test_bad_use(use, match):
    with pytest.raises(ValueError, match=match):
        use(small_flow())


# Draws


def states(model):
    return [to_numpy(state).copy() for state in model._random_states()]


def test_a_seed_fixes_the_noise_of_dequantization():
    model = image_flow()
    for use in (
        lambda seed: model.log_prob(LEVELS, seed=seed, verbose=0),
        lambda seed: model.bits_per_dim(LEVELS, seed=seed, verbose=0),
        lambda seed: model.encode(LEVELS, seed=seed),
    ):
        np.testing.assert_array_equal(use(3), use(3))
        assert np.abs(use(3) - use(4)).max() > 1e-3
        assert np.abs(use(None) - use(None)).max() > 1e-3


def test_a_seed_fixes_the_signs_of_hutchinson():
    flow = ContinuousFlow(units=[4], steps=1, trace="hutchinson", seed=0)
    model = built(Flow(flow, seed=0), (4,))
    log_p = model.log_prob(POINTS, seed=3, verbose=0)
    np.testing.assert_array_equal(model.log_prob(POINTS, seed=3, verbose=0), log_p)
    assert np.abs(model.log_prob(POINTS, seed=4, verbose=0) - log_p).max() > 1e-4


def test_a_seeded_call_leaves_the_generators_as_they_were():
    model = image_flow()
    before = states(model)
    assert len(before) == 2
    model.log_prob(LEVELS, seed=3, batch_size=5, verbose=0)
    model.encode(LEVELS, seed=3)
    model.sample(2, seed=3, verbose=0)
    np.testing.assert_equal(states(model), before)
    with pytest.raises(ValueError, match="`x` must"):
        model.log_prob(LEVELS * 2, seed=3)
    np.testing.assert_equal(states(model), before)


def test_a_draw_without_a_seed_moves_the_model_generator_alone():
    model = image_flow()
    before = states(model)
    model.log_prob(LEVELS, verbose=0)
    assert sum(not np.array_equal(a, b) for a, b in zip(before, states(model), strict=True)) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_equal_images_get_different_noise(batch_size):
    z = image_flow().encode(np.repeat(LEVELS[:1], 4, axis=0), seed=0, batch_size=batch_size)
    differences = np.abs(z[:, None] - z).max(-1)
    assert differences[~np.eye(4, dtype=bool)].min() > 1e-2


def test_noise_of_training_differs_between_steps():
    model = image_flow()
    model.compile(keras.optimizers.SGD(0.0))
    losses = model.fit(LEVELS, batch_size=12, epochs=4, verbose=0).history["loss"]
    assert len(set(losses)) == 4


# Losses


def test_evaluation_is_the_mean_of_minus_log_prob():
    model = small_flow()
    logs = model.evaluate(POINTS, batch_size=5, verbose=0, return_dict=True)
    assert set(logs) == {"loss", "nll", "bits_per_dim"}
    log_p = model.log_prob(POINTS, verbose=0)
    assert logs["loss"] == pytest.approx(-log_p.mean(), rel=1e-5)
    assert logs["nll"] == pytest.approx(-log_p.mean(), rel=1e-5)
    assert logs["bits_per_dim"] == pytest.approx(model.bits_per_dim(POINTS, verbose=0).mean(), rel=1e-5)
    assert logs["bits_per_dim"] == pytest.approx(-log_p.mean() / (4 * math.log(2)), rel=1e-5)
    history = model.fit(POINTS, validation_data=(POINTS,), verbose=0).history
    assert set(history) == {f"{split}{name}" for split in ("", "val_") for name in ("loss", "nll", "bits_per_dim")}


def test_sample_weights_count():
    model = conditional_flow()
    log_p = model.log_prob(POINTS, CONDITIONS, verbose=0)
    weights = np.arange(12) / 11.0
    logs = model.evaluate(POINTS, CONDITIONS, sample_weight=weights, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(-(weights * log_p).mean(), rel=1e-4)
    model.compile(keras.optimizers.SGD(1.0))
    before = [to_numpy(weight).copy() for weight in model.trainable_weights]
    model.fit(POINTS, CONDITIONS, sample_weight=np.zeros(12), verbose=0)
    np.testing.assert_equal([to_numpy(weight) for weight in model.trainable_weights], before)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="Keras refuses a None in a dataset there")
def test_sample_weights_of_a_dataset_count():
    model = small_flow()
    log_p = model.log_prob(POINTS, verbose=0)
    weights = np.arange(12).astype("float32") / 11
    logs = model.evaluate(Batches(POINTS, None, weights), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(-(weights * log_p).mean(), rel=1e-4)


def test_regularization_counts_once():
    penalty = keras.regularizers.L2(10.0)
    network = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer=penalty)
    model = Flow(AdditiveCoupling(network))
    model.compile(keras.optimizers.SGD(0.0))
    logs = model.evaluate(POINTS, verbose=0, return_dict=True)
    assert logs["loss"] - logs["nll"] == pytest.approx(40, rel=1e-4)
    history = model.fit(POINTS, verbose=0).history
    assert history["loss"][0] - history["nll"][0] == pytest.approx(40, rel=1e-4)
    np.testing.assert_allclose(model.log_prob(POINTS, verbose=0).mean(), -logs["nll"], rtol=1e-5)


def test_losses_are_the_recorded_ones_on_every_backend(request):
    """The same weights and the same batches: equal to 1% over 40 steps, whichever backend wrote the file."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(128, 4)) @ generator.normal(size=(4, 4)) + 3
    x[:, 0] += 0.3 * x[:, 1] ** 2
    bijectors = [ActNorm(), AffineCoupling(units=[8]), Invertible1x1Conv(seed=0), ActNorm()]
    model = Flow(Chain([*bijectors, AffineCoupling(units=[8], flip=True)]), seed=0)
    model.compile(keras.optimizers.Adam(1e-2))
    model.build((None, 4))
    randomize_weights(model.bijector)
    losses = model.fit(x.astype("float32"), batch_size=32, epochs=10, shuffle=False, verbose=0).history["loss"]
    if request.config.getoption("--update-references"):
        np.savez(REFERENCE, losses=losses)
    with np.load(REFERENCE) as reference:
        np.testing.assert_allclose(losses, reference["losses"], rtol=1e-2)
    assert losses[-1] < losses[0] - 1


# Precision


def test_a_flow_in_double_precision():
    with double_precision():
        model = built(Flow(couplings(dtype="float64"), dtype="float64", seed=0), (4,))
        x = POINTS.astype("float64")
        z, log_p = model.encode(x), model.log_prob(x, verbose=0)
        assert z.dtype == log_p.dtype == np.float64
        np.testing.assert_allclose(model.decode(z), x, rtol=1e-12, atol=1e-12)
        assert model.sample(2, seed=0, verbose=0).dtype == np.float64
    single = small_flow()
    for a, b in zip(single.weights, model.weights, strict=True):
        a.assign(to_numpy(b).astype("float32"))
    np.testing.assert_allclose(single.log_prob(POINTS, verbose=0), log_p, rtol=1e-5, atol=1e-5)


def test_half_precision_keeps_densities_in_float32():
    model = built(Flow(couplings(dtype="mixed_bfloat16"), dtype="mixed_bfloat16", seed=0), (4,))
    history = model.fit(POINTS, batch_size=4, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    log_p = model.log_prob(POINTS, verbose=0)
    assert log_p.dtype == np.float32
    np.testing.assert_allclose(model.decode(model.encode(POINTS)), POINTS, rtol=1e-5, atol=1e-5)


# Presets


@pytest.mark.parametrize(
    ("make", "shape", "latents"),
    [
        (lambda: NICE(2, [8], 17, seed=0), (4, 4, 1), (16,)),
        (lambda: NICE(2, [8], None, seed=0), (4, 4, 1), (16,)),
        (lambda: NICE(2, [8], None, "normal", seed=0), (6,), (6,)),
        (lambda: NICE(1, [8], None, LearnedNormalBase(), seed=0), (6,), (6,)),
        (lambda: RealNVP(2, [8], seed=0), (6,), (6,)),
        (lambda: RealNVP(2, [8], levels=17, seed=0), (6,), (6,)),
        (lambda: RealNVP(2, [4], 1, 17, seed=0), (4, 4, 1), (16,)),
        (lambda: RealNVP(1, [4], 2, None, seed=0), (8, 8, 3), (192,)),
        (lambda: Glow(1, 1, [4], 17, seed=0), (4, 4, 1), (16,)),
        (lambda: Glow(2, 1, [4], None, seed=0), (4, 8, 3), (96,)),
    ],
)
def test_presets(make, shape, latents):
    x = LEVELS.reshape(-1)[: 2 * math.prod(shape)] if math.prod(shape) < 90 else np.tile(LEVELS.reshape(-1), 3)
    x = x[: 2 * math.prod(shape)].reshape(2, *shape)
    model = built(make(), shape)
    assert model.latent_shape == latents
    z = model.encode(x, seed=0)
    np.testing.assert_allclose(model.decode(z), x, rtol=1e-3, atol=1e-3)
    log_p = model.log_prob(x, seed=0, verbose=0)
    assert log_p.shape == (2,)
    assert np.isfinite(log_p).all()
    assert model.sample(3, seed=0, verbose=0).shape == (3, *shape)
    loaded = save_and_load(model)
    np.testing.assert_allclose(loaded.log_prob(x, seed=0, verbose=0), log_p, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: NICE(0), "`num_couplings` must be an integer >= 1"),
        (lambda: NICE(units=8), "`units` must be a list"),
        (lambda: NICE(levels=1), "`levels` must be an integer >= 2"),
        (lambda: NICE(base="cauchy"), "`base` must be a Base"),
        (lambda: RealNVP(0), "`num_couplings` must be an integer >= 1"),
        (lambda: RealNVP(scales=-1), "`scales` must be an integer >= 0"),
        (lambda: RealNVP(units=[0]), "`units` must be an integer >= 1"),
        (lambda: RealNVP(levels=0), "`levels` must be an integer >= 2"),
        (lambda: Glow(0), "`scales` must be an integer >= 1"),
        (lambda: Glow(steps=0), "`steps` must be an integer >= 1"),
        (lambda: Glow(units=[0]), "`units` must be an integer >= 1"),
        (lambda: Glow(levels=1), "`levels` must be an integer >= 2"),
        (lambda: NICE(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: RealNVP(levels=17, seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Glow(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Glow(seed=0.5), "`seed` must be an integer >= 0"),
    ],
)
def test_bad_presets(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: NICE(2, [4], None), (0,)),
        (lambda: RealNVP(2, [4]), (0,)),
        (lambda: RealNVP(1, [4], 1), (4,)),
        (lambda: RealNVP(1, [4], 2), (6, 6, 1)),
        (lambda: Glow(1, 1, [4]), (4,)),
        (lambda: Glow(2, 1, [4]), (6, 6, 1)),
        (lambda: Flow(MaskedAutoregressive([4])), (0,)),
    ],
)
def test_presets_refuse_data_of_a_size_that_does_not_fit(make, shape):
    model = make()
    model.compile("adam")
    with pytest.raises(ValueError, match="`x` must have|`x` must be images"):
        model.fit(np.zeros((4, *shape), "float32") - 1, verbose=0)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: NICE(2, [4], None), (3, 3, 1)),
        (lambda: NICE(2, [4], None), (1,)),
        (lambda: RealNVP(2, [4]), (3,)),
        (lambda: RealNVP(2, [4]), (1,)),
        (lambda: Flow(MaskedAutoregressive([4])), (1,)),
        (lambda: Flow(SplineCoupling(units=[4])), (1,)),
    ],
)
@pytest.mark.parametrize("condition", [None, CONDITIONS])
def test_one_feature_and_odd_numbers_of_features_have_densities(make, shape, condition):
    x = np.random.default_rng(3).normal(size=(len(CONDITIONS), *shape)).astype("float32")
    model = make()
    model.compile(keras.optimizers.SGD(0.01))
    assert np.isfinite(model.fit(x, condition, verbose=0).history["loss"]).all()
    randomize_weights(model.bijector)
    np.testing.assert_allclose(model.decode(model.encode(x, condition), condition), x, rtol=1e-4, atol=1e-4)
    assert model.sample(2, None if condition is None else condition[0], seed=0, verbose=0).shape == (2, *shape)


def test_the_density_of_one_feature_given_a_condition_integrates_to_one():
    model = Flow(MaskedAutoregressive([8]))
    model.build((None, 1), (None, 3))
    randomize_weights(model.bijector, scale=1.0)
    x = np.linspace(-20, 20, 801, dtype="float32")[:, None]
    for condition in CONDITIONS[:2]:
        density = np.exp(model.log_prob(x, condition, batch_size=801, verbose=0).astype("float64"))
        np.testing.assert_allclose(density.sum() * 0.05, 1, rtol=1e-3)
