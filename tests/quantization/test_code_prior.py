"""A prior for the codes of a VQ-VAE: compress first, then generate."""

import keras
import numpy as np
import pytest
from laws import vqgan, vqvae

from keras_gen.core.fixtures import save_and_load, to_numpy
from keras_gen.layers import FiniteScalarQuantizer, GroupedVectorQuantizer, VectorQuantizer
from keras_gen.models import FVSBN, MADE, NADE, CodeTransformer, PixelCNN


def compressed(num_codes=8):
    return vqvae(VectorQuantizer(num_codes, seed=0))


def fitted(model, prior, digits, labels=None, **options):
    images = digits[0][:64]
    model.fit(images, batch_size=16, verbose=0)
    prior.compile(keras.optimizers.Adam(1e-2))
    model.fit_prior(prior, images, labels, **{"batch_size": 16, "verbose": 0, **options})
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda: (compressed(), CodeTransformer(8, 16, 8, 1, 2, seed=0)),
        lambda: (compressed(), PixelCNN(8, 4, 2, seed=0)),
        lambda: (compressed(2), NADE(4, seed=0)),
        lambda: (compressed(2), MADE([4], 2, seed=0)),
        lambda: (compressed(2), FVSBN(seed=0)),
        lambda: (
            vqvae(GroupedVectorQuantizer([VectorQuantizer(4, seed=seed) for seed in (0, 1)])),
            PixelCNN(4, 4, 2, seed=0),
        ),
        lambda: (vqvae(FiniteScalarQuantizer((3, 3)), 2), CodeTransformer(9, 16, 8, 1, 2, seed=0)),
    ],
    ids=["transformer", "pixel_cnn", "nade", "made", "fvsbn", "groups", "finite_scalar"],
)
def test_samples_are_decoded_codes_of_the_prior(make, digits):
    model, prior = make()
    fitted(model, prior, digits)
    assert model.prior is prior
    codes = prior.sample(3, seed=5, verbose=0)
    assert codes.shape == (3, *model.code_shape)
    np.testing.assert_array_equal(model.sample(3, seed=5, verbose=0), model.decode(codes))
    noise = np.random.default_rng(0).random((3, *model.code_shape))
    np.testing.assert_array_equal(
        model.sample(3, noise=noise, verbose=0), model.decode(prior.sample(3, noise=noise, verbose=0))
    )


def test_prior_learns_the_codes(digits):
    model, prior = compressed(), CodeTransformer(8, 16, 16, 1, 2, seed=0)
    images, held_out = digits[0][:256], digits[0][256:320]
    model.fit(images, epochs=4, verbose=0)
    prior.compile(keras.optimizers.Adam(1e-2))
    history = model.fit_prior(
        prior, images, batch_size=32, epochs=6, verbose=0, validation_data=(held_out, None)
    ).history
    codes = model.encode(images)
    shares = np.bincount(codes.reshape(-1), minlength=8) / codes.size
    entropy = -16 * np.sum(shares * np.log(shares + 1e-12))  # of independent codes as frequent as these
    assert history["loss"][-1] < entropy
    np.testing.assert_allclose(history["val_loss"][-1], -prior.log_prob(model.encode(held_out), verbose=0).mean(), 1e-4)


def test_fit_leaves_the_prior_alone_and_files_hold_both(digits):
    images, labels = digits[0][:64], digits[1][:64]
    prior = CodeTransformer(8, 16, 8, 1, 2, num_classes=10, condition_dropout=0.2, seed=0)
    model = compressed()
    before = len(model.weights)
    fitted(model, prior, digits, labels)
    weights = [to_numpy(weight).copy() for weight in prior.weights]
    assert len(model.weights) == before
    with pytest.warns(UserWarning, match="fit the prior again"):
        model.fit(images, batch_size=16, verbose=0)
    for weight, value in zip(prior.weights, weights, strict=True):
        np.testing.assert_array_equal(to_numpy(weight), value)
    options = {"condition": [1, 2], "guidance": 1.5, "temperature": 0.8, "seed": 3, "verbose": 0}
    expected = model.sample(2, **options)
    loaded = save_and_load(model)
    np.testing.assert_allclose(loaded.sample(2, **options), expected, atol=1e-6)
    # The prior's own optimizer goes on where it was.
    assert int(loaded.prior.optimizer.iterations) == int(prior.optimizer.iterations) > 0
    loaded.prior.fit(loaded.encode(images), labels, verbose=0)
    with pytest.warns(UserWarning, match="fit the prior again"):
        loaded.fit(images, verbose=0)


def test_vqgan_takes_a_prior_too(digits):
    model = fitted(vqgan(), CodeTransformer(8, 16, 8, 1, 2, seed=0), digits)
    samples = model.sample(2, seed=0, verbose=0)
    np.testing.assert_allclose(save_and_load(model).sample(2, seed=0, verbose=0), samples, atol=1e-6)


def test_without_a_prior_codes_are_drawn_evenly(digits):
    model = compressed()
    model.fit(digits[0][:64], verbose=0)
    codes = np.random.default_rng(4).integers(0, 8, (2, 4, 4, 1))[..., 0]
    np.testing.assert_array_equal(model.sample(2, seed=4, verbose=0), model.decode(codes))


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (CodeTransformer(7, 16, 8, 1, 2), "`prior` must have the codebook's number of codes, 8"),
        (NADE(3), "`prior` must have the codebook's number of codes, 8"),
        (CodeTransformer(8, 15, 8, 1, 2), "`x` must have at most max_length=15 codes"),
        (3, "`prior` must be a model of codes"),
        (keras.Sequential(), "`prior` must be a model of codes"),
    ],
)
def test_priors_that_do_not_fit_are_refused(prior, message, digits):
    model = compressed()
    model.fit(digits[0][:32], verbose=0)
    with pytest.raises(ValueError, match=message):
        model.fit_prior(prior, digits[0][:32])
    assert model.prior is None


def test_options_of_a_prior_need_one(digits):
    model = compressed()
    model.fit(digits[0][:32], verbose=0)
    for options, name in (({"condition": 1}, "condition"), ({"top_k": 2}, "options")):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            model.sample(2, verbose=0, **options)
