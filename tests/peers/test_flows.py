"""Against zuko, nflows and normflows, with the same weights: the same densities."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.calculus.gradient import double_precision
from keras_gen.core.fixtures import to_numpy
from keras_gen.layers import (
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    Conditioner,
    Invert,
    MaskedAutoregressive,
    SplineCoupling,
)
from keras_gen.models import Flow
from keras_gen.ops import rational_quadratic_spline

torch = pytest.importorskip("torch")

D, UNITS = 6, [16, 16]
X = np.random.default_rng(0).normal(size=(20, D))
C = np.random.default_rng(1).normal(size=(20, 3))
PRECISIONS = [("float32", 1e-4), ("float64", 1e-10)]


def precise(dtype):
    return double_precision() if dtype == "float64" else contextlib.nullcontext()


def randomized(module, dtype, scale=0.5):
    """Draws the weights of a torch module; its last layers would start near zero."""
    module = module.to(getattr(torch, dtype))
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        draw = scale * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.data = (draw / max(1, weight[0].numel() if weight.ndim > 1 else 1) ** 0.5).to(weight.dtype)
    return module


def linears(module):
    return [part for part in module.modules() if isinstance(getattr(part, "weight", None), torch.nn.Parameter)]


def copy_weights(source, layers):
    """From torch's linear layers, which hold kernels transposed."""
    for theirs, ours in zip(linears(source), layers, strict=True):
        ours.kernel.assign(theirs.weight.detach().numpy().T)
        ours.bias.assign(theirs.bias.detach().numpy())


def mlp(inputs, outputs):
    sizes = [inputs, *UNITS, outputs]
    parts = []
    for before, after in itertools.pairwise(sizes):
        parts += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


class Network(torch.nn.Module):
    """An `mlp` as nflows calls it."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.network = mlp(inputs, outputs)

    def forward(self, x, context=None):
        return self.network(x)


def agree(model, theirs, dtype, tolerance, condition=None):
    """Compares log_prob, and that decoding leads back."""
    x = X.astype(dtype)
    ours = model.log_prob(x, condition, verbose=0)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(model.decode(model.encode(x, condition), condition), x, atol=tolerance)


def tensor(array, dtype):
    return torch.from_numpy(array.astype(dtype))


# Zuko


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", ["additive", "affine"])
def test_zuko_couplings(kind, conditional, dtype, tolerance):
    """Their k-th mask keeps the even numbers for even k."""
    flows, transforms = pytest.importorskip("zuko.flows"), pytest.importorskip("zuko.transforms")
    options = {"univariate": transforms.AdditiveTransform, "shapes": [()]} if kind == "additive" else {}
    peer = flows.NICE(D, 3 * conditional, transforms=4, hidden_features=UNITS, **options)
    peer = randomized(peer, dtype)
    with precise(dtype):
        coupling = AdditiveCoupling if kind == "additive" else AffineCoupling
        options = {"units": UNITS, "split": "interleave", "dtype": dtype}
        if kind == "affine":
            options["scale_map"] = "softclip"
        couplings = [coupling(flip=i % 2 == 1, **options) for i in range(4)]
        model = Flow(Chain(couplings, dtype=dtype), dtype=dtype)
        model.build((None, D), (None, 3) if conditional else None)
        for theirs, ours in zip(peer.transform.transforms, couplings, strict=True):
            copy_weights(theirs, ours.conditioner.dense)
        x, c = tensor(X, dtype), tensor(C, dtype) if conditional else None
        agree(model, peer(c).log_prob(x), dtype, tolerance, C if conditional else None)


# nflows


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_nflows_additive_couplings(dtype, tolerance):
    """Their mask is 1 where numbers change."""
    transforms = pytest.importorskip("nflows.transforms")
    distributions, flows = pytest.importorskip("nflows.distributions"), pytest.importorskip("nflows.flows")

    masks = [[int(place >= D // 2) ^ (i % 2) for place in range(D)] for i in range(4)]
    theirs = [transforms.AdditiveCouplingTransform(mask, Network) for mask in masks]
    peer = flows.Flow(transforms.CompositeTransform(theirs), distributions.StandardNormal([D]))
    peer = randomized(peer, dtype)
    with precise(dtype):
        couplings = [AdditiveCoupling(units=UNITS, flip=i % 2 == 1, dtype=dtype) for i in range(4)]
        model = Flow(Chain(couplings, dtype=dtype), dtype=dtype)
        model.build((None, D))
        for source, ours in zip(theirs, couplings, strict=True):
            copy_weights(source, ours.conditioner.dense)
        agree(model, peer.log_prob(tensor(X, dtype)), dtype, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_nflows_masked_autoregressive_flow(dtype, tolerance):
    """Their scale is softplus(s) + 1e-3, and stands before the shift."""
    autoregressive = pytest.importorskip("nflows.transforms.autoregressive")
    distributions, flows = pytest.importorskip("nflows.distributions"), pytest.importorskip("nflows.flows")
    made = autoregressive.MaskedAffineAutoregressiveTransform(D, 16, num_blocks=1, use_residual_blocks=False)
    peer = randomized(flows.Flow(made, distributions.StandardNormal([D])), dtype)
    with precise(dtype):
        maf = MaskedAutoregressive(UNITS, scale_map=lambda s: ops.log(ops.softplus(s) + 1e-3), dtype=dtype)
        model = Flow(maf, dtype=dtype)
        model.build((None, D))
        copy_weights(made, [*maf.hidden, maf.last])
        swapped = np.arange(2 * D) ^ 1
        maf.last.kernel.assign(to_numpy(maf.last.kernel)[:, swapped])
        maf.last.bias.assign(to_numpy(maf.last.bias)[swapped])
        agree(model, peer.log_prob(tensor(X, dtype)), dtype, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("bins", [2, 7])
@pytest.mark.parametrize("inverse", [False, True])
def test_nflows_splines(inverse, bins, dtype, tolerance):
    """Our derivatives are those of theirs for parameters less `UNIT_DERIVATIVE`; the tails included."""
    splines = pytest.importorskip("nflows.transforms.splines.rational_quadratic")
    x = np.random.default_rng(0).uniform(-4, 4, 200)
    parameters = np.random.default_rng(1).normal(size=(200, 3 * bins - 1))
    moved = parameters.copy()
    moved[:, 2 * bins :] += np.log(np.expm1(1 - 1e-3))
    parts = np.split(moved, [bins, 2 * bins], axis=1)
    theirs = splines.unconstrained_rational_quadratic_spline(
        tensor(x, dtype), *(tensor(part, dtype) for part in parts), inverse=inverse, tail_bound=3.0
    )
    with precise(dtype):
        arrays = (ops.convert_to_tensor(array.astype(dtype)) for array in (x, parameters))
        ours = rational_quadratic_spline(*arrays, 3.0, inverse)
        assert {keras.backend.standardize_dtype(part.dtype) for part in ours} == {dtype}
        ours = [to_numpy(part) for part in ours]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_nflows_spline_couplings(dtype, tolerance):
    coupling = pytest.importorskip("nflows.transforms.coupling")
    bins = 5

    peer = coupling.PiecewiseRationalQuadraticCouplingTransform(
        [0] * (D // 2) + [1] * (D // 2), Network, bins, tails="linear", tail_bound=2.0
    )
    peer = randomized(peer, dtype)
    # without the hidden width as a factor of widths and heights, which they take from a network that states it
    assert not hasattr(peer.transform_net, "hidden_features")
    theirs, their_log_det = peer(tensor(X, dtype))
    with precise(dtype):
        ours = SplineCoupling(
            Conditioner(D // 2 * (3 * bins - 1), UNITS, dtype=dtype), num_bins=bins, bound=2.0, dtype=dtype
        )
        x = ops.convert_to_tensor(X.astype(dtype))
        ours(x)
        copy_weights(peer, ours.conditioner.dense)
        bias = to_numpy(ours.conditioner.dense[-1].bias).reshape(D // 2, -1).copy()
        bias[:, 2 * bins :] -= np.log(np.expm1(1 - 1e-3))
        ours.conditioner.dense[-1].bias.assign(bias.reshape(-1))
        y, log_det = ours(x)
    np.testing.assert_allclose(to_numpy(y), theirs.detach().numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(to_numpy(log_det), their_log_det.detach().numpy(), rtol=tolerance, atol=tolerance)


# normflows


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize(("theirs", "ours"), [("exp", "exp"), ("sigmoid_inv", "sigmoid")])
def test_normflows_affine_couplings(theirs, ours, dtype, tolerance):
    """They go from latents to data."""
    normflows = pytest.importorskip("normflows")
    blocks = [
        normflows.flows.AffineCouplingBlock(
            mlp(D // 2, D), scale_map=theirs, split_mode="channel" if i % 2 == 0 else "channel_inv"
        )
        for i in range(3)
    ]
    peer = normflows.NormalizingFlow(normflows.distributions.base.DiagGaussian(D, trainable=False), blocks)
    peer = randomized(peer, dtype)
    with precise(dtype):
        couplings = [AffineCoupling(units=UNITS, flip=i % 2 == 1, scale_map=ours, dtype=dtype) for i in range(3)]
        model = Flow(Chain([Invert(coupling, dtype=dtype) for coupling in couplings[::-1]], dtype=dtype), dtype=dtype)
        model.build((None, D))
        for block, coupling in zip(blocks, couplings, strict=True):
            copy_weights(block, coupling.conditioner.dense)
        agree(model, peer.log_prob(tensor(X, dtype)), dtype, tolerance)
