import itertools
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import randomize_weights, save_and_load, to_numpy
from keras_gen.ops import k_occurrence
from keras_gen.samplers import HubnessSampler, NormSampler, TruncationSampler

layers = keras.layers
POOL = 200


@keras.saving.register_keras_serializable("tests")
def two_corners(n, seed):
    rng = np.random.default_rng(seed)
    return rng.choice([-1.0, 1.0], (n, 1)) + 0.1 * rng.normal(size=(n, 8))


def hubs(latent_dim=30, **options):
    if "top_fraction" not in options:
        options.setdefault("threshold", 12)
    return HubnessSampler(latent_dim, **{"pool_size": POOL, **options})


def network(*inner, inputs=6, outputs=20):
    """A mapping that is not linear, with weights that are not those of a fresh one."""
    model = keras.Sequential([keras.Input((inputs,)), layers.Dense(outputs, "relu"), *inner])
    randomize_weights(model)
    return model


SAMPLERS = {
    "hubs": lambda *args, **options: HubnessSampler(*args, top_fraction=0.1, **options),
    "norm": lambda *args, **options: NormSampler(*args, fraction=0.1, **options),
    "truncation": lambda *args, **options: TruncationSampler(*args, psi=0.5, **options),
}


# Hubs


def test_latents_above_the_threshold_are_kept_in_order():
    sampler = hubs()
    z, counts = sampler.sample(25, seed=3, return_counts=True, verbose=0)
    expected_z, expected_counts = [], []
    for number in itertools.count():
        pool, _ = sampler.pool(3, number)
        of_pool = k_occurrence(pool)
        expected_z += [row for row, count in zip(pool, of_pool, strict=True) if count > 12]
        expected_counts += [count for count in of_pool if count > 12]
        if len(expected_z) >= 25:
            break
    assert number > 0
    np.testing.assert_array_equal(z, expected_z[:25])
    np.testing.assert_array_equal(counts, expected_counts[:25])
    assert z.dtype == np.dtype("float32")
    assert sampler.acceptance_rate == pytest.approx(len(expected_z) / ((number + 1) * POOL))


def test_the_threshold_itself_is_not_enough():
    counts = hubs().count(hubs().pool(0, 0)[0])
    threshold = int(np.sort(counts)[-5])
    kept = hubs(threshold=threshold).sample(1, seed=0, return_counts=True, verbose=0)[1]
    assert kept[0] > threshold
    below = hubs(threshold=threshold - 0.5).sample(5, seed=0, return_counts=True, verbose=0)[1]
    assert below.min() == threshold


@pytest.mark.parametrize(("fraction", "keep"), [(0.07, 14), (0.1, 20), (0.28, 56), (0.55, 110), (1.0, 200), (1e-4, 1)])
def test_the_top_fraction_is_kept_in_order(fraction, keep):
    sampler = hubs(top_fraction=fraction)
    pool = sampler.pool(0, 0)[0]
    counts = k_occurrence(pool)
    kept, kept_counts = sampler.sample(keep + 1, seed=0, return_counts=True, verbose=0)
    assert sampler.acceptance_rate == pytest.approx(keep / POOL)
    places = [int(np.flatnonzero((pool == row).all(axis=1))[0]) for row in kept[:keep]]
    assert places == sorted(places)
    left = np.delete(counts, places)
    assert left.size == 0 or kept_counts[:keep].min() >= left.max()


def test_published_definitions():
    pool = hubs().pool(5, 0)[0]
    blog = hubs(k=5, threshold=15).sample(3, seed=5, verbose=0)
    np.testing.assert_array_equal(blog, pool[k_occurrence(pool, 5) > 15][:3])
    # the notebook's: the point itself is one of the k, and the threshold is enough
    notebook = hubs(k=5, threshold=14, include_self=True).sample(3, seed=5, verbose=0)
    np.testing.assert_array_equal(notebook, pool[1 + k_occurrence(pool, 4) >= 15][:3])
    # the later paper's: the largest counts among 7 neighbours and the point itself
    later, counts = hubs(k=8, top_fraction=0.05, include_self=True).sample(10, seed=5, return_counts=True, verbose=0)
    own = 1 + k_occurrence(pool, 7)
    np.testing.assert_array_equal(np.sort(counts), np.sort(own)[-10:])
    for row, count in zip(later, counts, strict=True):
        assert own[(pool == row).all(axis=1)].item() == count


def test_metric_and_prior_change_what_is_a_hub():
    pool = hubs().pool(0, 0)[0]
    cosine = hubs(top_fraction=0.05, metric="cosine").sample(10, seed=0, return_counts=True, verbose=0)[1]
    np.testing.assert_array_equal(np.sort(cosine), np.sort(k_occurrence(pool, metric="cosine"))[-10:])
    with pytest.raises(ValueError, match="there are no hubs"):
        hubs(prior="sphere", threshold=40, max_rounds=2).sample(1, seed=0, verbose=0)


def test_block_size_changes_nothing():
    expected = hubs().sample(9, seed=0, verbose=0)
    for block_size in (1, 33, 10_000):
        np.testing.assert_array_equal(hubs(block_size=block_size).sample(9, seed=0, verbose=0), expected)


# Draws


@pytest.mark.parametrize("name", SAMPLERS)
def test_latent_k_depends_on_the_seed_and_k_alone(name):
    sampler = SAMPLERS[name](7, pool_size=60)
    many = sampler.sample(70, seed=4, verbose=0)
    assert many.shape == (70, 7)
    for n in (1, 5, 61):
        np.testing.assert_array_equal(sampler.sample(n, seed=4, verbose=0), many[:n])
    np.testing.assert_array_equal(SAMPLERS[name](7, pool_size=60, seed=9).sample(3, seed=4, verbose=0), many[:3])
    assert len(np.unique(many, axis=0)) == 70
    assert np.abs(sampler.sample(70, seed=5, verbose=0) - many).min() > 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_seed_of_the_sampler_seeds_its_calls(name):
    first, twin, other = (SAMPLERS[name](4, pool_size=40, seed=seed) for seed in (1, 1, 2))
    draws = [sampler.sample(3, verbose=0) for sampler in (first, first, twin, twin, other)]
    np.testing.assert_array_equal(draws[0], draws[2])
    np.testing.assert_array_equal(draws[1], draws[3])
    assert np.abs(draws[0] - draws[1]).min() > 0
    assert np.abs(draws[0] - draws[4]).min() > 0


def test_priors():
    draws = {name: TruncationSampler((3, 2), name, psi=1, pool_size=4000) for name in ("normal", "uniform", "sphere")}
    draws = {name: sampler.sample(4000, seed=0, verbose=0) for name, sampler in draws.items()}
    for z in draws.values():
        assert z.shape == (4000, 3, 2)
        assert z.dtype == np.dtype("float32")
        assert np.abs(z.mean(axis=0)).max() < 0.08
    np.testing.assert_allclose(np.cov(draws["normal"].reshape(4000, 6).T), np.eye(6), atol=0.1)
    assert -1 <= draws["uniform"].min() < -0.99 < 0.99 < draws["uniform"].max() <= 1
    np.testing.assert_allclose(np.linalg.norm(draws["sphere"].reshape(4000, 6), axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_function_is_a_prior(name):
    sampler = SAMPLERS[name](8, two_corners, pool_size=50)
    z = sampler.sample(60, seed=0, verbose=0)
    assert z.dtype == np.dtype("float32")
    assert len(np.unique(z, axis=0)) == 60  # another seed for each pool
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(sampler)))
    for again in (keras.saving.deserialize_keras_object(config), save_and_load(sampler)):
        assert again.prior is two_corners
        np.testing.assert_array_equal(again.sample(60, seed=0, verbose=0), z)


def test_a_prior_may_give_tensors():
    sampler = NormSampler(2, lambda n, seed: keras.random.normal((n, 2), seed=seed), fraction=0.5, pool_size=8)
    np.testing.assert_array_equal(sampler.sample(3, seed=0, verbose=0), sampler.sample(5, seed=0, verbose=0)[:3])


# Mappings


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_prior_is_what_the_mapping_maps(name):
    mapping = network(layers.Dropout(0.5), layers.BatchNormalization(), layers.GaussianNoise(1.0))
    before = [to_numpy(variable).copy() for variable in mapping.variables]
    sampler = SAMPLERS[name](mapping=mapping, pool_size=300)
    w, z = sampler.sample(20, seed=0, return_prior=True, verbose=0)
    assert z.shape == (20, 6)
    expected = to_numpy(mapping(z, training=False))
    if name == "truncation":
        center = to_numpy(mapping(sampler.pool(0, 0)[0], training=False)).mean(axis=0)
        expected = (expected + center) / 2
    np.testing.assert_allclose(w, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(before, mapping.variables, strict=True):
        np.testing.assert_array_equal(a, to_numpy(b))


def test_neighbors_are_counted_behind_the_mapping():
    mapping = network()
    sampler = HubnessSampler(mapping=mapping, top_fraction=1.0, pool_size=POOL)
    w, z, counts = sampler.sample(POOL, seed=0, return_prior=True, return_counts=True, verbose=0)
    np.testing.assert_array_equal(counts, k_occurrence(to_numpy(mapping(z, training=False))))
    assert (counts != k_occurrence(z)).mean() > 0.5
    np.testing.assert_array_equal(sampler.count(w), counts)


@pytest.mark.parametrize("name", SAMPLERS)
def test_latents_may_have_any_shape(name):
    per_layer = keras.Sequential([keras.Input((2, 3)), layers.Flatten(), layers.RepeatVector(4)])
    sampler = SAMPLERS[name]((2, 3), mapping=per_layer, pool_size=30)
    w, z = sampler.sample(5, seed=0, return_prior=True, verbose=0)
    assert w.shape == (5, 4, 6)
    assert z.shape == (5, 2, 3)
    plain = SAMPLERS[name]((2, 3), pool_size=30)
    flat = SAMPLERS[name](6, pool_size=30)
    np.testing.assert_array_equal(plain.sample(5, seed=0, verbose=0).reshape(5, 6), flat.sample(5, seed=0, verbose=0))
    assert plain.sample(5, seed=0, verbose=0).shape == (5, 2, 3)
    # equal rows, or the same numbers in a row: the neighbours are the same
    np.testing.assert_allclose(w[:, 0], flat.sample(5, seed=0, verbose=0), rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_files_hold_the_mapping_and_the_seeds(name):
    sampler = SAMPLERS[name](mapping=network(layers.BatchNormalization()), pool_size=50, seed=3)
    sampler.sample(2, verbose=0)
    loaded = save_and_load(sampler)
    np.testing.assert_allclose(
        loaded.sample(9, seed=1, verbose=0), sampler.sample(9, seed=1, verbose=0), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(loaded.sample(9, verbose=0), sampler.sample(9, verbose=0), rtol=1e-5, atol=1e-6)


def test_a_mapping_may_tell_no_shape_and_use_half_precision():
    sampler = SAMPLERS["norm"](6, mapping=layers.Dense(4, dtype="mixed_bfloat16"), pool_size=30)
    w = sampler.sample(40, seed=0, verbose=0)
    assert w.shape == (40, 4)
    assert w.dtype == np.dtype("float32")
    sampler = SAMPLERS["norm"](6, mapping=keras.Sequential([layers.Flatten(), layers.Dense(4)]), pool_size=30)
    expected = sampler.sample(4, seed=0, verbose=0)
    np.testing.assert_allclose(save_and_load(sampler).sample(4, seed=0, verbose=0), expected, rtol=1e-5, atol=1e-6)


# Too few hubs


def test_in_few_dimensions_there_are_no_hubs():
    sampler = HubnessSampler(2, threshold=50, pool_size=100)
    with pytest.raises(ValueError, match="`threshold` must be exceeded by 7 latents within max_rounds=100") as error:
        sampler.sample(7, seed=0, verbose=0)
    largest = max(sampler.count(sampler.pool(0, number)[0]).max() for number in range(100))
    reported = int(str(error.value).split("the largest count was ")[1].split(",")[0])
    assert 8 <= reported <= largest <= 20
    for part in ("threshold=50", "exceeded by 0 latents", "an acceptance rate of 0.00e+00", "in 2 dimensions"):
        assert part in str(error.value)
    assert sampler.acceptance_rate == 0


def test_no_more_pools_are_drawn_than_asked_for():
    sampler = hubs(max_rounds=2)
    enough = sum((hubs().count(hubs().pool(0, number)[0]) > 12).sum() for number in (0, 1))
    assert len(sampler.sample(int(enough), seed=0, verbose=0)) == enough
    match = f"within max_rounds=2 pools of 200. Received: threshold=12, exceeded by {enough} latents of 2 pools"
    with pytest.raises(ValueError, match=match):
        sampler.sample(int(enough) + 1, seed=0, verbose=0)
    assert sampler.acceptance_rate == pytest.approx(enough / 400)


def rare_hub(at):
    """A prior of 11 points on a line, and in the pool of number `at` of a star around a hub."""
    line = np.zeros((11, 11))
    line[:, 0] = 2.0 ** np.arange(11)
    star = np.concatenate([np.full((1, 11), 0.05), np.eye(11)[:10]])
    calls = itertools.count()
    return lambda n, seed: star if next(calls) == at else line


def test_rare_hubs_are_waited_for():
    """One hub in fifteen pools is found: ten pools without one tell little of the ninety that may follow."""
    sampler = HubnessSampler(11, rare_hub(14), k=1, threshold=5, pool_size=11)
    found, counts = sampler.sample(1, seed=0, return_counts=True, verbose=0)
    np.testing.assert_allclose(found, np.full((1, 11), 0.05))
    assert counts.tolist() == [10]
    assert sampler.acceptance_rate == pytest.approx(1 / (15 * 11))


# Their relatives


def test_norm_sampler_takes_the_nearest_to_the_mean_of_the_same_pools():
    sampler = NormSampler(30, fraction=0.05, pool_size=POOL)
    z = sampler.sample(25, seed=6, verbose=0)
    expected = []
    for number in range(3):
        pool, _ = HubnessSampler(30, threshold=50, pool_size=POOL).pool(6, number)
        norms = np.linalg.norm(pool - pool.mean(axis=0), axis=1)
        expected.append(pool[norms <= np.sort(norms)[9]])
    np.testing.assert_array_equal(z, np.concatenate(expected)[:25])


@pytest.mark.parametrize(("fraction", "keep"), [(0.07, 14), (0.28, 56), (0.55, 110), (1.0, 200), (1e-4, 1)])
def test_norm_sampler_keeps_the_share(fraction, keep):
    sampler = NormSampler(3, fraction=fraction, pool_size=POOL)
    z = sampler.sample(keep + 1, seed=0, verbose=0)
    in_first = [bool((sampler.pool(0, 0)[0] == row).all(axis=1).any()) for row in z]
    assert in_first == [True] * keep + [False]


def test_hubs_are_nearly_the_smallest_norms():
    chosen = [
        {row.tobytes() for row in sampler.sample(150, seed=0, verbose=0)}
        for sampler in (
            HubnessSampler(128, top_fraction=0.075, pool_size=2000),
            NormSampler(128, fraction=0.075, pool_size=2000),
        )
    ]
    assert len(chosen[0] & chosen[1]) > 90


def test_truncation_moves_towards_one_center():
    mapping = network()
    samplers = {psi: TruncationSampler(mapping=mapping, psi=psi, pool_size=50) for psi in (0, 0.7, 1, 2)}
    w, z = samplers[1].sample(120, seed=5, return_prior=True, verbose=0)
    np.testing.assert_allclose(w, to_numpy(mapping(z)), rtol=1e-4, atol=1e-5)
    centers = [samplers[0].sample(120, seed=seed, verbose=0) for seed in (5, 6)]
    for center in centers:
        np.testing.assert_array_equal(center, np.repeat(centers[0][:1], 120, axis=0))
    # of one pool, which is the mean of the mapping's outputs within its error
    several = np.concatenate([samplers[1].pool(seed, 0)[1] for seed in range(1, 40)])
    assert np.abs(centers[0][0] - several.mean(axis=0)).max() < 5 * several.std(axis=0).max() / np.sqrt(50)
    for psi in (0.7, 2):
        found = samplers[psi].sample(120, seed=5, verbose=0)
        np.testing.assert_allclose(found, centers[0] + psi * (w - centers[0]), rtol=1e-4, atol=1e-5)


# Errors


@pytest.mark.parametrize("name", SAMPLERS)
def test_there_is_nothing_to_learn(name):
    sampler = SAMPLERS[name](3, pool_size=10)
    sampler.compile("sgd")
    match = "`model` must be trainable; a latent sampler is not. Received: model="
    for call in (sampler.fit, sampler.evaluate):
        with pytest.raises(ValueError, match=match):
            call(np.zeros((4, 3), "float32"))


def wide(**options):
    return HubnessSampler(4, **{"threshold": 5, **options})


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: HubnessSampler(4), "`threshold` must be given, or else `top_fraction`, but not both. Received: "),
        (lambda: wide(top_fraction=0.1), "`threshold` must be given, or else .*=5, top_fraction=0.1"),
        (lambda: wide(threshold=-1), "`threshold` must be >= 0 and finite. Received: threshold=-1"),
        (lambda: wide(threshold="5"), "`threshold` must be >= 0 and finite. Received: threshold='5'"),
        (lambda: wide(threshold=np.nan), "`threshold` must be >= 0 and finite. Received: threshold=nan"),
        *(
            (
                lambda share=share: HubnessSampler(4, top_fraction=share),
                r"`top_fraction` must be in \(0, 1\]. Received: ",
            )
            for share in (0, -0.1, 1.1, "0.5")
        ),
        *(
            (lambda share=share: NormSampler(4, fraction=share), r"`fraction` must be in \(0, 1\]. Received: fraction=")
            for share in (0, -0.1, 1.1, None)
        ),
        (lambda: wide(k=0), "`k` must be an integer >= 1. Received: k=0"),
        (lambda: wide(k="5"), "`k` must be an integer >= 1. Received: k='5'"),
        (lambda: wide(pool_size=5), "`pool_size` must be more than k = 5. Received: pool_size=5"),
        (lambda: wide(pool_size=0), "`pool_size` must be an integer >= 1. Received: pool_size=0"),
        (lambda: wide(max_rounds=0), "`max_rounds` must be an integer >= 1. Received: max_rounds=0"),
        (lambda: wide(block_size=0), "`block_size` must be an integer >= 1. Received: block_size=0"),
        (lambda: wide(metric="precomputed"), "`metric` must be one of 'euclidean', 'cosine'. Received: metric="),
        (lambda: wide(seed=-1), "`seed` must be an integer >= 0. Received: seed=-1"),
        (
            lambda: wide(prior="cauchy"),
            "`prior` must be a function .*, or one of 'normal', .* Received: prior='cauchy'",
        ),
        (lambda: wide(mapping="dense"), "`mapping` must be None, a layer or a model. Received: mapping=dense"),
        (
            lambda: HubnessSampler(threshold=5),
            "`latent_dim` must be given, unless the mapping .*Received: latent_dim=None",
        ),
        (lambda: NormSampler(mapping=layers.Dense(3)), "`latent_dim` must be given, unless the mapping"),
        (lambda: HubnessSampler((3, 0), threshold=5), "`latent_dim` must be an integer >= 1. Received: latent_dim=0"),
        (lambda: wide(mapping=Doubled()), "`mapping` must keep the batch size. Received: .* returns 4 rows for 2"),
        (lambda: wide().sample(0), "`n` must be an integer >= 1. Received: n=0"),
        (lambda: wide().sample(1, seed=-1), "`seed` must be an integer >= 0. Received: seed=-1"),
        (lambda: NormSampler(4).sample(1.5), "`n` must be an integer >= 1. Received: n=1.5"),
        (lambda: TruncationSampler(4).sample(None), "`n` must be an integer >= 1. Received: n=None"),
        (lambda: TruncationSampler(4, psi=-0.1), "`psi` must be >= 0 and finite. Received: psi=-0.1"),
        (lambda: TruncationSampler(4, psi="1"), "`psi` must be >= 0 and finite. Received: psi='1'"),
        (lambda: TruncationSampler(4, pool_size=0), "`pool_size` must be an integer >= 1"),
        (
            lambda: TruncationSampler(3, two_corners, pool_size=9).sample(1),
            r"`prior` must return draws of shape \(9, 3\). Received: prior=shape \(9, 8\)",
        ),
    ],
)
def test_bad_input(call, match):
    with pytest.raises(ValueError, match=match):
        call()


class Doubled(layers.Layer):
    def call(self, x):
        return ops.concatenate([x, x], axis=0)
