"""Against vector-quantize-pytorch, from the same codes and data."""

import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import to_numpy
from keras_gen.layers import (
    FiniteScalarQuantizer,
    LookupFreeQuantizer,
    ResidualVectorQuantizer,
    VectorQuantizer,
)
from keras_gen.ops import gradient

torch = pytest.importorskip("torch")
peer = pytest.importorskip("vector_quantize_pytorch")

RNG = np.random.default_rng(0)
CODES = RNG.normal(size=(3, 16, 4)).astype("float32")
BATCHES = RNG.normal(size=(3, 2, 20, 4)).astype("float32")
PLAIN = {"kmeans_init": False, "threshold_ema_dead_code": 0, "decay": 0.8}


def place(codebook, codes):
    """Gives their codebook our codes; they draw their own otherwise."""
    with torch.no_grad():
        codebook.embed.copy_(torch.from_numpy(codes)[None])
        codebook.embed_avg.copy_(codebook.embed)
        codebook.cluster_size.fill_(1.0)


def vector_quantizers(levels, **options):
    layers = [VectorQuantizer(16, 0.25, decay=0.8, initializer="zeros", **options) for _ in range(levels)]
    for layer, codes in zip(layers, CODES, strict=False):
        layer.set_codebook(codes)
    return layers


def slope(x, function):
    x = torch.tensor(x, requires_grad=True)
    (result,) = torch.autograd.grad((function(x) * torch.arange(4.0)).sum(), x)
    return result.numpy()


@pytest.mark.parametrize("rotation", [False, True])
def test_steps_of_moving_averages(rotation):
    theirs = peer.VectorQuantize(4, codebook_size=16, commitment_weight=0.25, rotation_trick=rotation, **PLAIN)
    place(theirs._codebook, CODES[0])
    (ours,) = vector_quantizers(1, gradient="rotation" if rotation else "straight_through")
    theirs.train()
    for x in BATCHES:
        weight = ops.arange(4, dtype="float32")
        expected_slope = slope(x, lambda x: theirs(x, freeze_codebook=True)[0])
        found_slope = gradient(lambda x: ours.quantize(x)[0] * weight, ops.convert_to_tensor(x))  # noqa: B023
        np.testing.assert_allclose(to_numpy(found_slope), expected_slope, rtol=1e-4, atol=1e-5)
        quantized, indices, losses = ours.quantize(ops.convert_to_tensor(x), training=True)
        expected, expected_indices, expected_loss = theirs(torch.tensor(x, requires_grad=True))
        np.testing.assert_array_equal(to_numpy(indices), expected_indices.numpy())
        np.testing.assert_allclose(to_numpy(quantized), expected.detach().numpy(), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(to_numpy(losses["commitment"]), expected_loss.item(), rtol=1e-5)
        np.testing.assert_allclose(to_numpy(ours.codes.counts), theirs._codebook.cluster_size[0].numpy(), rtol=1e-5)
        np.testing.assert_allclose(to_numpy(ours.codebook), theirs._codebook.embed[0].numpy(), rtol=1e-4, atol=1e-5)


def test_masks():
    theirs = peer.VectorQuantize(4, codebook_size=16, commitment_weight=0.25, rotation_trick=False, **PLAIN)
    place(theirs._codebook, CODES[0])
    (ours,) = vector_quantizers(1)
    mask = RNG.random((2, 20)) < 0.6
    x = ops.convert_to_tensor(BATCHES[0])
    *_, losses = ours.quantize(x, ops.convert_to_tensor(mask), training=True)
    *_, loss = theirs(torch.tensor(BATCHES[0], requires_grad=True), mask=torch.from_numpy(mask))
    np.testing.assert_allclose(to_numpy(losses["commitment"]), loss.item(), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(ours.codebook), theirs._codebook.embed[0].numpy(), rtol=1e-4, atol=1e-5)


def test_residual_levels():
    """Values alone: their straight-through at every level gives three times the gradient."""
    theirs = peer.ResidualVQ(
        dim=4, num_quantizers=3, codebook_size=16, commitment_weight=0.25, rotation_trick=False, **PLAIN
    )
    ours = ResidualVectorQuantizer(vector_quantizers(3))
    for layer, codes in zip(theirs.layers, CODES, strict=True):
        place(layer._codebook, codes)
    for x in BATCHES:
        quantized, indices, losses = ours.quantize(ops.convert_to_tensor(x), training=True)
        expected, expected_indices, expected_losses = theirs(torch.tensor(x, requires_grad=True))
        np.testing.assert_array_equal(to_numpy(indices), expected_indices.numpy())
        np.testing.assert_allclose(to_numpy(quantized), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(to_numpy(losses["commitment"]), expected_losses.sum().item(), rtol=1e-4)


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (3, 4, 7, 16)])
def test_finite_scalar(levels):
    theirs, ours, x = peer.FSQ(list(levels)), FiniteScalarQuantizer(levels), 3 * BATCHES[0]
    expected, expected_indices = theirs(torch.from_numpy(x))
    quantized, indices, _ = ours.quantize(ops.convert_to_tensor(x))
    np.testing.assert_array_equal(to_numpy(indices), expected_indices.numpy())
    np.testing.assert_allclose(to_numpy(quantized), expected.numpy(), atol=1e-6)
    weight = ops.arange(4, dtype="float32")
    found = gradient(lambda x: ours.quantize(x)[0] * weight, ops.convert_to_tensor(x))
    np.testing.assert_allclose(to_numpy(found), slope(x, lambda x: theirs(x)[0]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_lookup_free(temperature):
    theirs = peer.LFQ(codebook_size=16, entropy_loss_weight=1.0, commitment_loss_weight=0.25, diversity_gamma=1.5)
    ours = LookupFreeQuantizer(16, 0.25, 1.0, 1.5, temperature)
    theirs.train()
    result, parts = theirs(torch.from_numpy(BATCHES[0]), inv_temperature=1 / temperature, return_loss_breakdown=True)
    quantized, indices, losses = ours.quantize(ops.convert_to_tensor(BATCHES[0]))
    np.testing.assert_array_equal(to_numpy(indices), result.indices.numpy())
    np.testing.assert_allclose(to_numpy(quantized), result.quantized.numpy(), atol=1e-6)
    np.testing.assert_allclose(to_numpy(losses["commitment"]), 0.25 * parts.commitment.item(), rtol=1e-5)
    entropy = parts.per_sample_entropy.item() - 1.5 * parts.batch_entropy.item()
    np.testing.assert_allclose(to_numpy(losses["entropy"]), entropy, rtol=1e-3, atol=1e-3)  # theirs clips p at 1e-5
