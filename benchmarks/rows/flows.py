"""Flows against nflows, zuko and normflows, with the same weights where they can compute the same."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import nflows.distributions
import nflows.flows
import nflows.transforms
import normflows
import numpy as np
import torch
import zuko
from keras import ops

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.settings import Setting
from keras_gen.core.compiled import compiled
from keras_gen.layers import AdditiveCoupling, AffineCoupling, Chain, Conditioner, SplineCoupling
from keras_gen.models import Flow

COUPLINGS, UNITS, PIXELS, NICE_BATCH, RATE, DECAY = 4, [1000] * 5, 784, 256, 1e-4, 0.004
DIM, AFFINE_COUPLINGS, AFFINE_UNITS, BATCH = 64, 8, [256, 256], 1024
BINS, BOUND = 8, 5.0


class Network(torch.nn.Module):
    """A multilayer perceptron as nflows calls it."""

    def __init__(self, inputs: int, outputs: int, units: Sequence[int]):
        super().__init__()
        self.layers = mlp(inputs, outputs, units)

    def forward(self, x: torch.Tensor, context: Any = None) -> torch.Tensor:
        return self.layers(x)


def mlp(inputs: int, outputs: int, units: Sequence[int]) -> torch.nn.Sequential:
    parts = []
    for before, after in itertools.pairwise([inputs, *units, outputs]):
        parts += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    return torch.nn.Sequential(*parts[:-1])


def linears(module: torch.nn.Module) -> list[torch.nn.Module]:
    return [part for part in module.modules() if isinstance(getattr(part, "weight", None), torch.nn.Parameter)]


def to_ours(source: torch.nn.Module, couplings: Sequence[keras.Layer]) -> None:
    """Copies the weights of all their linear layers, in order."""
    layers = [layer for coupling in couplings for layer in coupling.conditioner.dense]
    for theirs, ours in zip(linears(source), layers, strict=True):
        ours.kernel.assign(theirs.weight.detach().numpy().T)
        ours.bias.assign(theirs.bias.detach().numpy())


def nice_train(quick: bool, setting: Setting) -> Contest:
    steps = 2 if quick else 4
    model, *peers = _nice(setting)
    x = np.random.default_rng(0).standard_normal((steps * NICE_BATCH, PIXELS), "float32")
    model.compile(keras.optimizers.AdamW(RATE, weight_decay=DECAY))

    def ours() -> float:
        return model.fit(x, batch_size=NICE_BATCH, shuffle=False, verbose=0).history["loss"][0]

    def theirs(module: torch.nn.Module, log_prob: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], float]:
        optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=DECAY, eps=1e-7, fused=True)
        return setting.epoch(optimizer, lambda x: -log_prob(x).mean(), [x], NICE_BATCH)

    runs = {OURS: ours, **{name: theirs(*peer) for name, peer in zip(("nflows", "zuko"), peers, strict=True)}}
    contenders = {name: Contender(run, steps) for name, run in runs.items()}
    case = f"{COUPLINGS} couplings of 5 x 1000 units, {PIXELS} dimensions, batch {NICE_BATCH}, `fit` of {steps} steps"
    return Contest(case, contenders, ("nflows", "zuko"))


def nice_log_prob(quick: bool, setting: Setting) -> Contest:
    model, *peers = _nice(setting)
    x = np.random.default_rng(0).standard_normal((NICE_BATCH, PIXELS), "float32")
    contenders = _log_prob_contenders(
        model, x, dict(zip(("nflows", "zuko"), (run for _, run in peers), strict=True)), setting
    )
    case = f"{COUPLINGS} couplings of 5 x 1000 units, {PIXELS} dimensions, batch {NICE_BATCH}"
    return Contest(case, contenders, ("nflows", "zuko"))


def flow_log_prob(quick: bool, setting: Setting) -> Contest:
    """normflows maps latents to data and uses another scale function: equal work, but a different function."""
    model, zuko_flow, normflows_flow = _affine(setting)
    x = np.random.default_rng(0).standard_normal((BATCH, DIM), "float32")
    peers = {"zuko": lambda x: zuko_flow().log_prob(x), "normflows": normflows_flow.log_prob}
    return Contest(_affine_case(), _log_prob_contenders(model, x, peers, setting), ("zuko",))


def flow_sample(quick: bool, setting: Setting) -> Contest:
    model, zuko_flow, normflows_flow = _affine(setting)
    peers = {"zuko": lambda: zuko_flow().sample((BATCH,)), "normflows": lambda: normflows_flow.sample(BATCH)[0]}
    contenders = {OURS: Contender(lambda: model.sample(BATCH, seed=0, batch_size=BATCH, verbose=0))}
    contenders |= {name: Contender(torch.inference_mode()(run)) for name, run in peers.items()}
    return Contest(_affine_case(), contenders)


def spline_coupling(quick: bool, setting: Setting) -> Contest:
    torch.manual_seed(0)
    half, outputs = DIM // 2, DIM // 2 * (3 * BINS - 1)
    peer = nflows.transforms.PiecewiseRationalQuadraticCouplingTransform(
        [0] * half + [1] * half,
        lambda inputs, outputs: Network(inputs, outputs, AFFINE_UNITS),
        BINS,
        tails="linear",
        tail_bound=BOUND,
    )
    peer_flow = nflows.flows.Flow(peer, nflows.distributions.StandardNormal([DIM]))
    coupling = SplineCoupling(Conditioner(outputs, AFFINE_UNITS), num_bins=BINS, bound=BOUND)
    model = Flow(coupling)
    model.build((None, DIM))
    to_ours(peer, [coupling])
    # Zero parameters are the identity in ours; in nflows derivatives are softplus of the parameters.
    last = coupling.conditioner.dense[-1].bias
    bias = np.array(ops.convert_to_numpy(last)).reshape(half, -1)
    bias[:, 2 * BINS :] -= np.log(np.expm1(1 - 1e-3))
    last.assign(bias.reshape(-1))
    x = 2 * np.random.default_rng(0).standard_normal((BATCH, DIM), "float32")
    contenders = _log_prob_contenders(model, x, {"nflows": setting.evaluated(peer_flow).log_prob}, setting)
    return Contest(f"{BINS} bins, 2 x 256 units, {DIM} dimensions, batch {BATCH:,}", contenders, ("nflows",))


def _nice(setting: Setting) -> tuple[Flow, tuple[torch.nn.Module, Callable], tuple[torch.nn.Module, Callable]]:
    """Returns our flow and those of the peers, with the weights of nflows: each peer with its `log_prob`."""
    torch.manual_seed(0)
    masks = [[(place + i) % 2 for place in range(PIXELS)] for i in range(COUPLINGS)]  # 1 for transformed dimensions
    transforms = [
        nflows.transforms.AdditiveCouplingTransform(mask, lambda inputs, outputs: Network(inputs, outputs, UNITS))
        for mask in masks
    ]
    of_nflows = nflows.flows.Flow(
        nflows.transforms.CompositeTransform(transforms), nflows.distributions.StandardNormal([PIXELS])
    )
    additive = {"univariate": zuko.transforms.AdditiveTransform, "shapes": [()]}
    of_zuko = zuko.flows.NICE(PIXELS, 0, transforms=COUPLINGS, hidden_features=UNITS, **additive)
    for source, target in zip(linears(of_nflows), linears(of_zuko), strict=True):
        target.load_state_dict(source.state_dict())
    couplings = [AdditiveCoupling(units=UNITS, split="interleave", flip=i % 2 == 1) for i in range(COUPLINGS)]
    model = Flow(Chain(couplings), seed=0)
    model.build((None, PIXELS))
    to_ours(of_nflows, couplings)
    of_nflows, of_zuko = setting.trained(of_nflows), setting.trained(of_zuko)
    return model, (of_nflows, of_nflows.log_prob), (of_zuko, lambda x: of_zuko().log_prob(x))


def _affine(setting: Setting) -> tuple[Flow, torch.nn.Module, torch.nn.Module]:
    torch.manual_seed(0)
    of_zuko = zuko.flows.NICE(DIM, 0, transforms=AFFINE_COUPLINGS, hidden_features=AFFINE_UNITS)
    options = {"units": AFFINE_UNITS, "split": "interleave", "scale_map": "softclip"}
    couplings = [AffineCoupling(flip=i % 2 == 1, **options) for i in range(AFFINE_COUPLINGS)]
    model = Flow(Chain(couplings), seed=0)
    model.build((None, DIM))
    to_ours(of_zuko, couplings)
    blocks = [
        normflows.flows.AffineCouplingBlock(
            mlp(DIM // 2, DIM, AFFINE_UNITS), split_mode="channel" if i % 2 == 0 else "channel_inv"
        )
        for i in range(AFFINE_COUPLINGS)
    ]
    base = normflows.distributions.base.DiagGaussian(DIM, trainable=False)
    return model, setting.evaluated(of_zuko), setting.evaluated(normflows.NormalizingFlow(base, blocks))


def _affine_case() -> str:
    return f"{AFFINE_COUPLINGS} couplings of 2 x 256 units, {DIM} dimensions, batch {BATCH:,}"


def _log_prob_contenders(
    model: Flow, x: np.ndarray, peers: dict[str, Callable], setting: Setting
) -> dict[str, Contender]:
    inputs, peer_inputs = ops.convert_to_tensor(x), setting.tensor(x)
    density = compiled(model, model.log_density)
    contenders = {OURS: Contender(lambda: density(inputs))}
    for name, log_prob in peers.items():
        contenders[name] = Contender(torch.inference_mode()(functools.partial(log_prob, peer_inputs)))
    return contenders
