"""Gumbel-softmax against PyTorch's implementation. Each draws its own noise."""

import numpy as np
import torch
from keras import ops

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.settings import Setting
from keras_gen.core.compiled import compiled
from keras_gen.layers import GumbelSoftmax

SHAPE = (4096, 32, 10)


def gumbel_softmax(quick: bool, setting: Setting) -> Contest:
    logits = np.random.default_rng(0).standard_normal(SHAPE, "float32")
    layer = GumbelSoftmax(temperature=0.5, seed=0)
    inputs, peer_inputs = ops.convert_to_tensor(logits), setting.tensor(logits)
    layer(inputs)
    draw = compiled(layer, lambda logits: layer(logits))

    @torch.inference_mode()
    def theirs() -> torch.Tensor:
        return torch.nn.functional.gumbel_softmax(peer_inputs, tau=0.5)

    contenders = {
        OURS: Contender(lambda: draw(inputs)),
        "torch.nn.functional": Contender(theirs),
    }
    return Contest("logits " + " x ".join(f"{size:,}" for size in SHAPE), contenders)
