"""Adam and AdamW in few passes on PyTorch: Keras's numbers, and what is left to Keras."""

import contextlib

import keras
import numpy as np
import pytest

from keras_gen import config
from keras_gen.core.fixtures import to_numpy
from keras_gen.core.torch.optimizer import METHODS, few_passes
from keras_gen.layers import AdditiveCoupling
from keras_gen.models import Flow

pytestmark = pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch launches kernel by kernel")

SHAPES = [(3, 4), (5,), (), (2, 3, 4, 5)]
OPTIONS = [
    {},
    {"amsgrad": True, "weight_decay": 0.1, "clipvalue": 0.1},
    {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3, "use_ema": True, "ema_momentum": 0.9},
    {"use_ema": True, "ema_overwrite_frequency": 7, "clipnorm": 0.5},
    {"learning_rate": keras.optimizers.schedules.CosineDecay(0.01, 80), "global_clipnorm": 0.5},
    {"gradient_accumulation_steps": 3, "use_ema": True, "loss_scale_factor": 4.0},
]


@pytest.fixture(autouse=True)
def _enabled_again():
    yield
    config.enable_torch_fast_paths()


def variables(dtype="float32"):
    rng = np.random.default_rng(0)
    return [keras.Variable(rng.standard_normal(shape), dtype=dtype, name=f"v{i}") for i, shape in enumerate(SHAPES)]


def steps(optimizer, weights, number, context=few_passes, broken=None):
    """Applies random gradients of all sizes; returns the values of the weights and of the optimizer's variables."""
    import torch

    rng = np.random.default_rng(1)
    for step in range(number):
        gradients = [rng.standard_normal(weight.shape) * 10 ** rng.uniform(-8, 1) for weight in weights]
        gradients = [torch.tensor(x, dtype=weight.value.dtype) for x, weight in zip(gradients, weights, strict=True)]
        if step == broken:
            gradients[0][0, 0] = np.inf
        with torch.no_grad(), context(optimizer):
            optimizer.apply(gradients, weights)
    return [to_numpy(variable).astype("float64") for variable in [*weights, *optimizer.variables]]


def plain(optimizer):
    return contextlib.nullcontext()


def adamw(**options):
    optimizer = keras.optimizers.AdamW(**{"learning_rate": 0.01, **options})
    optimizer.exclude_from_weight_decay(var_names=["v1"])
    return optimizer


def largest_difference(fast, slow):
    """Returns the largest difference, relative to values above 1."""
    return max((np.abs(a - b) / np.maximum(np.abs(b), 1)).max() for a, b in zip(fast, slow, strict=True))


def test_a_hundred_steps_are_those_of_keras():
    differences = {}
    for options in OPTIONS:
        fast, slow = (steps(adamw(**options), variables(), 100, context) for context in (few_passes, plain))
        differences[str(options)] = largest_difference(fast, slow)
    assert not {options: difference for options, difference in differences.items() if not difference <= 1e-6}


def test_scaled_losses():
    """A step of gradients that are not finite is left out, and halves the scale, as in Keras."""

    def run(context):
        optimizer = keras.optimizers.LossScaleOptimizer(
            adamw(use_ema=True, global_clipnorm=1.0), dynamic_growth_steps=5
        )
        return steps(optimizer, variables(), 12, context, broken=7)

    assert largest_difference(run(few_passes), run(plain)) <= 1e-6


def test_gradients_that_are_not_finite_are_seen():
    for options in ({}, {"clipnorm": 1.0}, {"global_clipnorm": 1.0}, {"clipvalue": 1.0}):
        fast, slow = (steps(adamw(**options), variables(), 2, context, broken=1) for context in (few_passes, plain))
        for a, b in zip(fast, slow, strict=True):
            np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b), str(options))


def test_the_number_of_operations_does_not_depend_on_that_of_weights():
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.operations = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.operations += 1
            return function(*args, **(kwargs or {}))

    def operations(copies):
        weights = [weight for _ in range(copies) for weight in variables()]
        optimizer = adamw(use_ema=True, global_clipnorm=1.0)
        optimizer.build(weights)
        gradients = [weight.value.detach() for weight in weights]
        with torch.no_grad(), few_passes(optimizer), Count() as count:
            optimizer.apply(gradients, weights)
        return count.operations

    assert operations(1) == operations(5) <= 40


def test_what_is_left_to_keras():
    """Weights of other dtypes, or in another order than their moments, and optimizers of other classes."""
    import torch

    class Own(keras.optimizers.Adam):
        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, gradient * learning_rate)

    def turned():
        first, *others = variables()
        value = torch.nn.Parameter(first.value.detach().t().contiguous().t())
        return [keras.Variable(value, name="v0"), *others]

    cases = {
        "other dtype": (adamw, lambda: [*variables("bfloat16")[:2], *variables()[2:]]),
        "other order": (adamw, turned),
        "derived": (lambda: Own(0.01), variables),
        "SGD": (lambda: keras.optimizers.SGD(0.01, global_clipnorm=1.0, use_ema=True), variables),
    }
    for name, (make, weights) in cases.items():
        fast, slow = (steps(make(), weights(), 3, context) for context in (few_passes, plain))
        assert largest_difference(fast, slow) <= 1e-6, name


def test_nothing_stays_at_the_optimizer():
    optimizer = adamw()
    with few_passes(optimizer):
        assert METHODS.keys() <= vars(optimizer).keys()
    assert not METHODS.keys() & vars(optimizer).keys()
    config.disable_torch_fast_paths()
    with few_passes(optimizer):
        assert not METHODS.keys() & vars(optimizer).keys()


def test_fit_takes_few_passes(monkeypatch, tmp_path):
    """Also after a file, exactly: the optimizer keeps what Keras's keeps."""
    import torch

    calls = []
    fused = torch._fused_adam_
    monkeypatch.setattr(torch, "_fused_adam_", lambda *args, **options: (calls.append(1), fused(*args, **options)))
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")

    def model():
        keras.utils.set_random_seed(0)
        flow = Flow(AdditiveCoupling(units=[8]), seed=0)
        flow.compile(adamw(use_ema=True, clipnorm=1.0))
        return flow

    def fit(flow, epochs):
        return flow.fit(x, batch_size=8, epochs=epochs, shuffle=False, verbose=0).history["loss"]

    first = model()
    losses = fit(first, 4)
    assert len(calls) == 8
    halfway = model()
    fit(halfway, 2)
    halfway.save(tmp_path / "flow.keras")
    assert fit(keras.models.load_model(tmp_path / "flow.keras"), 2) == losses[2:]
    config.disable_torch_fast_paths()
    np.testing.assert_allclose(fit(model(), 4), losses, rtol=1e-5)
    assert len(calls) == 16
