"""A network whose outputs are used as logits must not end in a sigmoid: it trains, to gray."""

import warnings

import keras
from keras import ops
from laws.models import autoencoder, vqvae

from keras_gen import layers, losses, models


def ending(activation, *parts, dim=3, outputs=8):
    return keras.Sequential([keras.Input((dim,)), keras.layers.Dense(outputs, activation=activation), *parts])


def functional(last):
    z = keras.Input((3,))
    return keras.Model(z, keras.layers.Reshape((8,))(last(keras.layers.Dense(8)(z))))


def warnings_of(make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    return [str(warning.message) for warning in caught if "used as logits" in str(warning.message)]


def vae(decoder, likelihood="bernoulli"):
    return models.VAE(autoencoder(3, 2)[0], decoder, likelihood)


def gan(end, loss="non_saturating"):
    return models.GAN(ending(None), ending(end, dim=8, outputs=1), loss)


class Probabilities(losses.NonSaturatingLoss):
    takes_logits = False


def gumbel(end):
    encoder = keras.Sequential([keras.Input((8,)), keras.layers.Dense(12, end), keras.layers.Reshape((4, 3))])
    return models.GumbelVAE(encoder, keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(8)]))


def cluster(end):
    return models.ClusterVAE(*autoencoder(3, 2), keras.layers.Dense(4, activation=end), 4)


def vqgan(end):
    plain = vqvae(layers.VectorQuantizer(8))
    patches = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3, activation=end)])
    return models.VQGAN(plain.encoder, plain.decoder, plain.quantizer, patches)


WARNED = {
    "sigmoid": ("decoder", lambda: vae(ending("sigmoid"))),
    "tanh": ("decoder", lambda: vae(ending("tanh"))),
    "reshaped": ("decoder", lambda: vae(ending("sigmoid", keras.layers.Reshape((8,))))),
    "layer": ("decoder", lambda: vae(ending(None, keras.layers.Activation("sigmoid")))),
    "softmax layer": ("decoder", lambda: vae(ending(None, keras.layers.Softmax()), losses.CategoricalLikelihood(8))),
    "nested": ("decoder", lambda: vae(keras.Sequential([ending("sigmoid")]))),
    "functional": ("decoder", lambda: vae(functional(keras.layers.Activation("sigmoid")))),
    "operation": ("decoder", lambda: vae(functional(ops.sigmoid))),
    "gumbel": ("encoder", lambda: gumbel("softmax")),
    "cluster": ("classifier", lambda: cluster("softmax")),
    "gan": ("discriminator", lambda: gan("sigmoid")),
    "gan hinge": ("discriminator", lambda: gan("tanh", "hinge")),
    "vqgan": ("discriminator", lambda: vqgan("sigmoid")),
}
SILENT = {
    "logits": lambda: vae(ending(None)),
    "within": lambda: vae(ending("sigmoid", keras.layers.Dense(8))),
    "unbounded": lambda: vae(ending("relu")),
    "gaussian": lambda: vae(ending("tanh"), "gaussian"),
    "empty": lambda: vae(keras.Sequential()),
    "gumbel": lambda: gumbel(None),
    "cluster": lambda: cluster(None),
    "gan": lambda: gan(None),
    "gan of probabilities": lambda: gan("sigmoid", Probabilities()),
    "vqgan": lambda: vqgan(None),
}


def test_bounded_logits_are_warned_of():
    offenders = []
    for name, (argument, make) in WARNED.items():
        messages = warnings_of(make)
        if len(messages) != 1 or not messages[0].startswith(f"`{argument}` ends in the activation '"):
            offenders.append(f"{name}: {messages}")
    offenders += [f"{name}: {messages}" for name, make in SILENT.items() if (messages := warnings_of(make))]
    assert not offenders, "\n".join(offenders)
