import keras
import numpy as np
import pytest
from keras import ops
from laws import vqvae

from keras_gen.callbacks import SampleGrid
from keras_gen.core.fixtures import made_alike, randomize_weights, save_and_load, to_numpy
from keras_gen.layers import FiniteScalarQuantizer, GroupedVectorQuantizer, ResidualVectorQuantizer, VectorQuantizer
from keras_gen.models import VQVAE


def pair(channels=4, data=(8, 8, 1)):
    encoder = keras.Sequential([keras.Input(data), keras.layers.Conv2D(channels, 2, 2)])
    decoder = keras.Sequential([keras.Input((4, 4, channels)), keras.layers.Conv2DTranspose(1, 2, 2)])
    return encoder, decoder


def trained(images, quantizer=None, **options):
    model = vqvae(quantizer or VectorQuantizer(8, seed=0), **options)
    model.fit(images[:64], batch_size=16, verbose=0)
    return model


@pytest.fixture(scope="module")
def model(digits):
    keras.utils.set_random_seed(0)
    return trained(digits[0])


def test_what_is_encoded_is_decoded(model, digits):
    images = digits[0][:5]
    codes = model.encode(images, batch_size=2)
    assert (codes.shape, codes.dtype) == ((5, 4, 4), np.dtype("int32"))
    vectors = model.encoder(images)
    np.testing.assert_array_equal(codes, to_numpy(model.quantizer.encode(vectors)))
    decoded = model.decode(codes)
    expected = to_numpy(model.decoder(model.quantizer(vectors)))
    np.testing.assert_allclose(decoded, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.reconstruct(images), decoded)
    plain = model.reconstruct(images, quantize=False, batch_size=3)
    np.testing.assert_allclose(plain, to_numpy(model.decoder(vectors)), rtol=1e-5, atol=1e-5)


def test_vectors_are_those_of_the_encoder(model, digits):
    images = digits[0][:5]
    vectors = model.encode_vectors(images, batch_size=2)
    assert (vectors.shape, vectors.dtype) == ((5, 4, 4, 4), np.dtype("float32"))
    np.testing.assert_allclose(vectors, to_numpy(model.encoder(images)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.decode_vectors(vectors, batch_size=3), model.reconstruct(images), atol=1e-5)
    codes = to_numpy(model.quantizer.decode(ops.convert_to_tensor(model.encode(images))))
    np.testing.assert_allclose(model.decode_vectors(codes), model.reconstruct(images), atol=1e-5)


def test_interpolation_ends_at_the_reconstructions(model, digits):
    a, b = digits[0][:2], digits[0][2:4]
    path = model.interpolate(a, b, points=5, batch_size=3)
    assert path.shape == (2, 5, 8, 8, 1)
    np.testing.assert_allclose(path[:, 0], model.reconstruct(a), atol=1e-5)
    np.testing.assert_allclose(path[:, -1], model.reconstruct(b), atol=1e-5)
    middle = 0.5 * (to_numpy(model.encoder(a)) + to_numpy(model.encoder(b)))
    codes = to_numpy(model.quantizer.encode(ops.convert_to_tensor(middle)))
    np.testing.assert_allclose(path[:, 2], model.decode(codes), atol=1e-5)


def test_samples_are_decoded_codes(model):
    samples = model.sample(5, seed=3, verbose=0)
    for n, batch_size in ((5, 2), (3, 256)):
        again = model.sample(n, seed=3, batch_size=batch_size, verbose=0)
        np.testing.assert_allclose(again, samples[:n], rtol=1e-5, atol=1e-5)
    codes = np.arange(32).reshape(2, 4, 4) % 8
    np.testing.assert_array_equal(model.sample(2, noise=codes, verbose=0), model.decode(codes))


@pytest.mark.parametrize(
    ("quantizer", "code_shape", "sizes"),
    [
        (lambda: VectorQuantizer(8, num_heads=2), (4, 4, 2), 8),
        (lambda: FiniteScalarQuantizer((3, 2, 2, 2)), (4, 4), 24),
        (lambda: ResidualVectorQuantizer([VectorQuantizer(8), VectorQuantizer(3)]), (4, 4, 2), (8, 3)),
        (lambda: GroupedVectorQuantizer([VectorQuantizer(3), VectorQuantizer(8)]), (4, 4, 2), (3, 8)),
    ],
)
def test_works_with_every_quantizer(quantizer, code_shape, sizes, digits):
    model = trained(digits[0], quantizer())
    codes = model.encode(digits[0][:20])
    assert codes.shape == (20, *code_shape)
    assert (codes < sizes).all()
    np.testing.assert_array_equal(model.decode(codes), model.reconstruct(digits[0][:20]))
    assert model.sample(2, seed=0, verbose=0).shape == (2, 8, 8, 1)
    with pytest.raises(ValueError, match="`codes` must be in 0 .. "):
        model.decode(codes + np.max(sizes))
    if isinstance(sizes, tuple):  # each codebook has its own number of codes
        with pytest.raises(ValueError, match="`codes` must be in 0 .. "):
            model.decode(np.full_like(codes, min(sizes)))


def test_logs_are_the_parts_of_the_loss(digits):
    images = digits[0][:40]
    model = made_alike(lambda: vqvae(VectorQuantizer(8, initializer="random_normal", decay=0.999999)))
    randomize_weights(model.encoder)
    vectors = to_numpy(model.encoder(images))
    codes = model.encode(images)
    quantized = to_numpy(model.quantizer.decode(codes))
    reconstruction = ((images - model.decode(codes)) ** 2).mean()
    commitment = 0.25 * ((vectors - quantized) ** 2).mean()
    p = np.bincount(codes.ravel(), minlength=8) / codes.size
    logs = model.evaluate(images, batch_size=10, verbose=0, return_dict=True)
    expected = {
        "loss": reconstruction + commitment,
        "reconstruction": reconstruction,
        "commitment": commitment,
        "perplexity": np.exp(-(p * np.log(np.maximum(p, 1e-30))).sum()),
        "usage": (p > 0).mean(),
    }
    assert set(logs) == set(expected)
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-4), name
    history = model.fit(images, batch_size=10, validation_data=(images,), verbose=0).history
    assert set(history) == {*expected, *(f"val_{name}" for name in expected)}
    assert np.isfinite(list(history.values())).all()
    loss = vqvae(VectorQuantizer(8, codebook_update="loss"))
    assert "codebook" in loss.fit(images, verbose=0).history


def test_datasets_weights_and_pictures(digits, tmp_path):
    images = digits[0][:32]

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return images[16 * index : 16 * (index + 1)]

    model = made_alike(lambda: vqvae(VectorQuantizer(8, seed=0)))
    model.fit(Batches(), verbose=0, callbacks=[SampleGrid(tmp_path / "{epoch}.png", n=4)])
    assert (tmp_path / "1.png").exists()
    x, errors = ops.convert_to_tensor(images), ((images - model.reconstruct(images)) ** 2).mean((1, 2, 3))
    commitment = float(to_numpy(model.quantizer.quantize(model.encoder(x))[2]["commitment"]))
    for weight in (np.zeros(32), np.ones(32), np.arange(32.0)[:, None]):
        loss = model.compute_loss(x, sample_weight=ops.convert_to_tensor(weight.astype("float32")), training=False)
        assert float(to_numpy(loss)) == pytest.approx((weight.ravel() * errors).mean() + commitment, rel=1e-4)


def test_half_precision_trains(digits):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = vqvae(VectorQuantizer(8, restart_below=1.0, seed=0))
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.quantizer.compute_dtype == "bfloat16"
    assert np.isfinite(model.fit(digits[0][:64], batch_size=16, epochs=2, verbose=0).history["loss"]).all()
    samples = model.sample(2, seed=0, verbose=0)
    assert samples.dtype == "float32"
    assert model.reconstruct(digits[0][:2]).dtype == "float32"
    assert np.isfinite(samples).all()


def test_a_file_goes_on_training(model, digits):
    images = digits[0][:32]
    loaded = save_and_load(model)
    np.testing.assert_array_equal(loaded.encode(images), model.encode(images))
    np.testing.assert_allclose(to_numpy(loaded.quantizer.codes.counts), to_numpy(model.quantizer.codes.counts))
    assert np.isfinite(loaded.fit(images, verbose=0).history["loss"]).all()


IMAGES = np.zeros((4, 8, 8, 1), "float32")
CODES = np.zeros((2, 4, 4), "int32")
VECTORS = np.zeros((2, 4, 4, 4), "float32")


@pytest.mark.parametrize(
    ("use", "match"),
    [
        (lambda m: m.encode(IMAGES.astype("uint8")), "`x` must be floating-point images.* Received: x=dtype uint8"),
        (lambda m: m.encode(IMAGES[:0]), "`x` must hold at least one image"),
        (lambda m: m.encode(IMAGES + np.nan), "`x` must be finite"),
        (lambda m: m.encode(IMAGES[:, :4]), r"`x` must have shape \(n, 8, 8, 1\). Received: x=shape \(4, 4, 8, 1\)"),
        (lambda m: m.encode(IMAGES, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda m: m.reconstruct(IMAGES[..., 0], quantize=False), "`x` must have shape"),
        (lambda m: m.decode(CODES.astype("float32")), r"`codes` must be integers of shape \(n, 4, 4\). Received"),
        (lambda m: m.decode(CODES[0]), "`codes` must be integers of shape"),
        (lambda m: m.decode(CODES[:0]), "`codes` must be integers of shape"),
        (lambda m: m.decode(CODES + 8), r"`codes` must be in 0 .. 7. Received: codes=values in \[8, 8\]"),
        (lambda m: m.decode(CODES - 1), "`codes` must be in 0 .. 7"),
        (lambda m: m.encode_vectors(IMAGES[:, :4]), r"`x` must have shape \(n, 8, 8, 1\)"),
        (
            lambda m: m.decode_vectors(IMAGES),
            r"`vectors` must have shape \(n, 4, 4, 4\). Received: vectors=shape \(4, 8, 8, 1\)",
        ),
        (lambda m: m.decode_vectors(VECTORS * np.nan), "`vectors` must be finite"),
        (lambda m: m.decode_vectors(VECTORS.astype("int32")), "`vectors` must be floating-point"),
        (lambda m: m.decode_vectors(VECTORS[:0]), "`vectors` must hold at least one sample"),
        (lambda m: m.decode_vectors(VECTORS, batch_size=0), "`batch_size` must be an integer >= 1"),
        (lambda m: m.interpolate(IMAGES, IMAGES[:2]), r"`x_b` must have the shape of x_a"),
        (lambda m: m.interpolate(IMAGES, IMAGES, points=1), "`points` must be an integer >= 2"),
        (lambda m: m.sample(0), "`n` must be an integer >= 1"),
        (lambda m: m.sample(3, noise=CODES), "`noise` must hold codes for 3 samples. Received: noise=shape \\(2,"),
        (lambda m: m.sample(2, seed=-1), "`seed` must be an integer >= 0"),
        (lambda m: m.compile("adam", loss="mse"), "`loss` must be left out"),
    ],
)
def test_bad_input(use, match, model):
    with pytest.raises(ValueError, match=match):
        use(model)


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (IMAGES.astype("int32"), None, "`x` must be floating-point images"),
        (IMAGES + np.inf, None, "`x` must be finite"),
        (IMAGES[:, :, :4], None, "`x` must have shape"),
        (IMAGES, np.zeros(4), "`y` must be None: the model takes no labels"),
    ],
)
def test_bad_data_is_refused_before_a_step(x, y, match):
    model = vqvae(VectorQuantizer(8))
    with pytest.raises(ValueError, match=match):
        model.fit(x, y, verbose=0)
    assert int(model.optimizer.iterations) == 0


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        ((IMAGES.astype("uint8"),), "`x` must be floating-point images"),
        ((IMAGES[..., 0],), "`x` must have shape"),
        ((IMAGES, np.zeros(4)), "`y` must be None"),
    ],
)
def test_bad_batches_of_a_dataset_are_refused(batch, match):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return batch

    with pytest.raises(ValueError, match=match):
        vqvae(VectorQuantizer(8)).fit(Batches(), verbose=0)


def whole_image_decoder():
    return keras.Sequential([keras.Input((4, 4, 4)), keras.layers.Conv2D(1, 1)])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda e, d: VQVAE(lambda x: x, d, VectorQuantizer(4)), "`encoder` must be a keras.Layer or keras.Model"),
        (lambda e, d: VQVAE(e, None, VectorQuantizer(4)), "`decoder` must be a keras.Layer or keras.Model"),
        (lambda e, d: VQVAE(e, d, keras.layers.Dense(4)), "`quantizer` must be a quantizer layer"),
        (
            lambda e, d: VQVAE(e, whole_image_decoder(), VectorQuantizer(4)),
            r"`decoder` must give outputs of shape \(8, 8",
        ),
        (lambda e, d: VQVAE(e, d, VectorQuantizer(4, num_heads=3)), "`num_heads` must divide 4 channels"),
        (lambda e, d: VQVAE(e, d, FiniteScalarQuantizer((3, 3))), "`x` must have 2 channels"),
        (lambda e, d: VQVAE(e, d, VectorQuantizer(4), seed=-1), "`seed` must be an integer >= 0"),
        (
            lambda e, d: VQVAE(keras.layers.Conv2D(4, 2, 2), d, VectorQuantizer(4)).sample(1),
            "`model` must be built",
        ),
        (
            lambda e, d: VQVAE(keras.layers.Conv2D(4, 2, 2), d, VectorQuantizer(4)).decode_vectors(VECTORS),
            "`model` must be built",
        ),
    ],
)
def test_bad_construction(make, match):
    with pytest.raises(ValueError, match=match):
        make(*pair())
