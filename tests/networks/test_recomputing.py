"""`remat`: the backward pass computes blocks again, with the same gradients and less to store."""

import keras
import numpy as np
import pytest
from keras import ops
from laws.arrays import IMAGES, TOKENS, VECTOR
from offenders import not_refused
from stored import stored_bytes

from keras_gen import layers, models
from keras_gen.core.fixtures import randomize_weights, to_numpy


def every_block(remat):
    """Returns a model in which each kind of block has a place, those with dropout too."""
    images, vector, tokens = inputs = [keras.Input(x.shape[1:]) for x in (IMAGES, VECTOR, TOKENS)]
    h = layers.ResidualBlock(8, 2, dropout=0.5, remat=remat, seed=0)([images, vector])
    h = layers.LightBlock(8, remat=remat)([h, vector])
    h = layers.SelfAttention2D(2, 2, remat=remat)(h)
    h, tokens = layers.MMDiTBlock(2, dual_attention=True, remat=remat)([h, tokens, vector])
    h = layers.CrossAttention2D(2, 2, remat=remat)([h, tokens])
    h = layers.SpatialTransformer(2, 2, 2, remat=remat)([h, tokens])
    _, h = layers.GatedPixelBlock(8, remat=remat)([h, h, vector])
    h = layers.Conditioner(8, [8], dropout=0.5, seed=1, remat=remat)(h)
    h = keras.layers.Reshape((16, 8))(h)
    h = layers.DiTBlock(2, remat=remat)([h, vector])
    h = layers.GatedAttentionUnit(16, 8, remat=remat)(h)
    h = layers.TransformerBlock(2, dropout=0.5, seed=2, remat=remat)(h)
    model = keras.Model(inputs, h)
    randomize_weights(model)
    return model


def trained(remat):
    """Two steps, so that what a first step might have cached is used a second time."""
    model = every_block(remat)
    model.compile(keras.optimizers.SGD(0.5), loss="mse")
    model.fit([IMAGES, VECTOR, TOKENS], np.ones((2, 16, 8), "float32"), epochs=2, shuffle=False, verbose=0)
    return {weight.path: to_numpy(weight) for weight in model.weights}


def test_no_gradient_changes():
    start = {weight.path: to_numpy(weight) for weight in every_block(False).weights}
    plain, again = trained(False), trained(True)
    offenders = []
    for (path, before), (a, b) in zip(start.items(), zip(plain.values(), again.values(), strict=True), strict=True):
        if np.abs(a - b).max() > 1e-6 or not np.abs(a - before).max() > 1e-7:
            offenders.append(f"{path}: moves by {np.abs(a - before).max():.1e}, differs by {np.abs(a - b).max():.1e}")
    assert not offenders, "\n".join(offenders)


def test_less_is_stored():
    """Of eleven blocks the inputs: a fourth of what their layers store."""
    x = [ops.convert_to_tensor(np.repeat(x, 32, axis=0)) for x in (IMAGES, VECTOR, TOKENS)]

    def stored(model):
        return stored_bytes(lambda images: model([images, *x[1:]], training=True), x[0])

    assert 4 * stored(every_block(True)) < stored(every_block(False))


NETWORKS = {
    "UNet": lambda **options: models.UNet((4, 4, 1), (8,), 1, (0,), condition_dim=(None, 8), **options),
    "LightUNet": lambda **options: models.LightUNet((4, 4, 1), (8, 8), 1, **options),
    "UNet2DCondition": lambda **options: models.UNet2DCondition((4, 4, 1), 8, (8,), (1,), groups=2, **options),
    "DiT": lambda **options: models.DiT((4, 4, 1), 2, 8, 2, 2, **options),
    "MMDiT": lambda **options: models.MMDiT((4, 4, 1), 8, 6, 2, 8, 2, 2, **options),
    "PixelTransformer": lambda **options: models.PixelTransformer((4, 4, 1), 2, 8, 2, **options),
    "AutoencoderKL": lambda **options: models.AutoencoderKL((4, 4, 1), 2, (8,), 1, 2, **options),
    "CodeTransformer": lambda **options: models.CodeTransformer(3, 16, 8, 2, 2, **options),
    "CLIPTextEncoder": lambda **options: models.CLIPTextEncoder(11, 6, 8, 1, 2, 8, end_id=1, **options),
    "T5Encoder": lambda **options: models.T5Encoder(11, 8, 1, 2, 4, 8, **options),
    "PixelCNN": lambda **options: models.PixelCNN(3, 4, 2, **options),
    "Glow": lambda **options: models.Glow(2, 1, (8,), **options),
}


@pytest.mark.one_backend
def test_networks_hand_it_to_all_of_their_blocks():
    offenders = []
    for name, make in NETWORKS.items():
        for options in ({}, {"remat": True}):
            network, expected = make(**options), bool(options)
            if not network.built:
                network.build((None, 4, 4, 1))
            # Without hidden layers, as in the priors of Glow, there is nothing to compute again.
            blocks = [layer for layer in network._flatten_layers(include_self=False) if hasattr(layer, "remat")]
            blocks = [layer for layer in blocks if getattr(layer, "units", True)]
            offenders += [
                f"{name}({options}): {b.name}" for b in [network, *blocks] if b.get_config()["remat"] != expected
            ]
            offenders += [] if blocks else [f"{name} has no block"]
    assert not offenders, "\n".join(offenders)


@pytest.mark.one_backend
def test_refused():
    rule = "`remat` must be True or False. Received: remat=1"
    cases = [(name, lambda make=make: make(remat=1), rule) for name, make in NETWORKS.items()]
    given = (lambda: layers.AffineCoupling(layers.Conditioner(2, []), remat=True), "`remat` must be False where a cond")
    assert not not_refused([*cases, ("coupling", *given)])
