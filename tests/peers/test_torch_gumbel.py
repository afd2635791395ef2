"""Against PyTorch's own Gumbel-softmax and relaxed distribution, with the same noise."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gen.core.fixtures import to_numpy
from keras_gen.ops import concrete_log_prob, gradient, gumbel_softmax

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 5)).astype("float32")
NOISE = RNG.gumbel(size=(6, 5)).astype("float32")
WEIGHT = RNG.normal(size=(6, 5)).astype("float32")


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
@pytest.mark.parametrize("axis", [-1, 0])
def test_value_and_gradient(hard, temperature, axis, monkeypatch):
    # theirs is -log of an exponential draw
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda x: x.copy_(torch.exp(-torch.from_numpy(NOISE))))
    logits = torch.tensor(LOGITS, requires_grad=True)
    theirs = torch.nn.functional.gumbel_softmax(logits, tau=temperature, hard=hard, dim=axis)
    (slope,) = torch.autograd.grad((theirs * torch.from_numpy(WEIGHT)).sum(), logits)

    def ours(x):
        return gumbel_softmax(x, temperature, hard, axis, ops.convert_to_tensor(NOISE))

    x, weight = ops.convert_to_tensor(LOGITS), ops.convert_to_tensor(WEIGHT)
    np.testing.assert_allclose(to_numpy(ours(x)), theirs.detach().numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(to_numpy(gradient(lambda x: ours(x) * weight, x)), slope.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_density(temperature):
    """Theirs is the density of y itself; ours, of its logarithm, is larger by the Jacobian's sum of log y."""
    log_y = torch.log_softmax((torch.from_numpy(LOGITS + NOISE)).double() / temperature, -1)
    peer = torch.distributions.RelaxedOneHotCategorical(
        torch.tensor(temperature), logits=torch.from_numpy(LOGITS).double()
    )
    theirs = peer.log_prob(log_y.exp()) + log_y.sum(-1)
    ours = concrete_log_prob(log_y.numpy().astype("float32"), LOGITS, temperature)
    assert keras.backend.standardize_dtype(ours.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(ours), theirs.numpy(), rtol=1e-4, atol=1e-4)
