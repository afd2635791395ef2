from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen import layers, models, schedules
from laws.layers import DECAY


def tiny_network(num_classes: int | None = None, outputs: int = 1, real_times: bool = False) -> keras.Model:
    """Returns the smallest network that learns something, quick to compile."""
    x, t = keras.Input((8, 8, 1)), keras.Input((), dtype="float32" if real_times else "int32")
    embedding = keras.layers.Dense(8)(layers.SinusoidalEmbedding(8)(t))
    inputs = [x, t]
    if num_classes is not None:
        inputs.append(keras.Input((), dtype="int32"))
        embedding = keras.layers.Add()([embedding, keras.layers.Embedding(num_classes, 8)(inputs[2])])
    h = keras.layers.Conv2D(8, 3, padding="same")(x)
    h = keras.layers.Activation("silu")(keras.layers.Add()([h, keras.layers.Reshape((1, 1, 8))(embedding)]))
    h = keras.layers.Dropout(0.1, seed=0)(h)
    return keras.Model(inputs, keras.layers.Conv2D(outputs, 3, padding="same", kernel_initializer="zeros")(h))


def ddpm(num_classes: int | None = None, **options) -> models.DDPM:
    outputs = 2 if options.get("variance") == "learned_range" else 1
    options.setdefault("schedule", schedules.CosineSchedule(20))
    model = models.DDPM(tiny_network(num_classes, outputs), seed=0, **options)
    model.compile(keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.9))
    return model


def continuous(cls: type, labels: bool = False, **options) -> keras.Model:
    """Returns a compiled model in continuous time; with labels of a network that knows the null class."""
    network = tiny_network(real_times=True)
    if labels:
        network = models.DiT((8, 8, 1), 4, 16, 1, 2, num_classes=10)
    return compiled(cls(network, seed=0, **options))


def told_network(by_parts: bool = True) -> keras.Model:
    """Returns a network of points that is told tokens and a vector, or the numbers of both in one vector."""
    x, t = keras.Input((2,)), keras.Input(())
    condition = {"tokens": keras.Input((2, 3)), "pooled": keras.Input((4,))} if by_parts else keras.Input((10,))
    features = joined(condition) if by_parts else condition
    h = (
        keras.layers.Dense(8)(x)
        + keras.layers.Dense(8)(layers.SinusoidalEmbedding(4)(t))
        + keras.layers.Dense(8)(features)
    )
    return keras.Model([x, t, condition], keras.layers.Dense(2)(ops.tanh(h)))


def joined(condition: dict[str, Any]) -> Any:
    """Returns tokens and vector of `told_network` side by side."""
    return ops.concatenate([condition["pooled"], ops.reshape(condition["tokens"], (-1, 6))], axis=1)


def autoencoder(latent_dim: int, outputs: int = 1) -> tuple[keras.Model, keras.Model]:
    """Returns the smallest encoder, with `outputs` heads, and decoder that learn something."""
    x, z = keras.Input((8, 8, 1)), keras.Input((latent_dim,))
    h = keras.layers.Dense(16, "relu")(keras.layers.Flatten()(x))
    heads = [keras.layers.Dense(latent_dim)(h) for _ in range(outputs)]
    h = keras.layers.Dense(64)(keras.layers.Dropout(0.1, seed=0)(keras.layers.Dense(16, "relu")(z)))
    return keras.Model(x, heads if outputs > 1 else heads[0]), keras.Model(z, keras.layers.Reshape((8, 8, 1))(h))


def compiled(model: keras.Model) -> keras.Model:
    model.compile(keras.optimizers.Adam(1e-2))
    return model


def gumbel_vae() -> models.GumbelVAE:
    encoder, decoder = autoencoder(12)
    encoder = keras.Sequential([encoder, keras.layers.Reshape((4, 3))])
    decoder = keras.Sequential([keras.Input((4, 3)), keras.layers.Flatten(), decoder])
    return compiled(models.GumbelVAE(encoder, decoder, DECAY, seed=0))


def vqvae(quantizer: keras.Layer, channels: int = 4) -> models.VQVAE:
    conv, up = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    encoder = keras.Sequential([keras.Input((8, 8, 1)), conv(8, 2, 2, activation="relu"), conv(channels, 1)])
    decoder = keras.Sequential([keras.Input((4, 4, channels)), up(8, 2, 2, activation="relu"), conv(1, 1)])
    return compiled(models.VQVAE(encoder, decoder, quantizer, seed=0))


def vqgan(**options) -> models.VQGAN:
    """Returns a model with a discriminator of patches, which draws, and two maps of features."""
    plain, dense, x = (
        vqvae(layers.VectorQuantizer(8, restart_below=1, seed=0)),
        keras.layers.Dense,
        keras.Input((8, 8, 1)),
    )
    patches = [keras.layers.Conv2D(8, 3, 2, activation="leaky_relu"), keras.layers.Dropout(0.1, seed=0), dense(1)]
    first = keras.layers.Conv2D(4, 3, activation="relu")(x)
    features = keras.Model(x, [first, keras.layers.Conv2D(4, 3, 2)(first)])
    critics = (keras.Sequential([keras.Input((8, 8, 1)), *patches]), features)
    model = models.VQGAN(plain.encoder, plain.decoder, plain.quantizer, *critics, seed=0, **options)
    model.compile(*(keras.optimizers.Adam(rate, beta_1=0.5) for rate in (1e-2, 2e-3)))
    return model


def latent_diffusion() -> models.LatentDiffusion:
    conv, x, z = keras.layers.Conv2D, keras.Input((8, 8, 1)), keras.Input((2, 2, 2))
    encoder = keras.Model(x, [conv(2, 4, 4)(x), conv(2, 4, 4)(x)])
    decoder = keras.Model(z, keras.layers.Conv2DTranspose(1, 4, 4)(z))
    vae = models.VAE(encoder, decoder, "gaussian", seed=1)
    vae.build((None, 8, 8, 1))
    network = models.UNet((2, 2, 2), (8,), 1, num_classes=10)
    return compiled(models.LatentDiffusion(vae, models.DDPM(network, schedules.CosineSchedule(20), seed=2), seed=0))


def couplings() -> list[layers.Bijector]:
    spline = layers.SplineCoupling(layers.Conditioner(32 * 11, [16], dropout=0.1, seed=0), num_bins=4)
    return [layers.ActNorm(), spline, layers.Permutation(), layers.MaskedAutoregressive([16])]


def gan(mapping: bool = False, **options) -> models.GAN:
    dense = keras.layers.Dense
    generator = [keras.Input((6,)), dense(32), keras.layers.BatchNormalization(), keras.layers.ReLU(), dense(64)]
    discriminator = [keras.Input((8, 8, 1)), keras.layers.Flatten(), dense(32, "leaky_relu")]
    model = models.GAN(
        keras.Sequential([*generator, keras.layers.Reshape((8, 8, 1))]),
        keras.Sequential([*discriminator, keras.layers.Dropout(0.1, seed=0), dense(1)]),
        mapping=keras.Sequential([keras.Input((6,)), dense(6, "relu")]) if mapping else None,
        seed=0,
        **options,
    )
    rates = [1e-3, 4e-3, *([1e-4] if mapping else [])]
    model.compile(*(keras.optimizers.Adam(rate, beta_1=0.5) for rate in rates))
    return model


def binary(images: np.ndarray) -> np.ndarray:
    return (images > 0).astype("int32")


def four_levels(images: np.ndarray) -> np.ndarray:
    return ((images + 1) * 1.5).round().astype("int32")


# name -> (constructor of a compiled model, whether it takes labels); trained on 8 x 8 digits, or what a function that
# comes third makes of them
MODELS = {
    "code_transformer": (
        lambda: compiled(models.CodeTransformer(4, 70, dim=8, depth=1, num_heads=2, dropout=0.1, seed=0)),
        False,
        four_levels,
    ),
    "code_transformer_rotary_labels": (
        lambda: compiled(
            models.CodeTransformer(4, 64, 8, 2, 2, "rotary", num_classes=10, condition_dropout=0.1, seed=0)
        ),
        True,
        four_levels,
    ),
    "fvsbn": (lambda: compiled(models.FVSBN(seed=0)), False, binary),
    "made": (lambda: compiled(models.MADE([16, 16], 3, "random", seed=0)), False, binary),
    "nade": (lambda: compiled(models.NADE(8, ordering=list(range(63, -1, -1)), seed=0)), False, binary),
    "pixel_cnn": (lambda: compiled(models.PixelCNN(4, 4, 2, seed=0)), False, four_levels),
    "pixel_cnn_labels": (
        lambda: compiled(models.PixelCNN(4, 4, 2, num_classes=10, condition_dropout=0.1, seed=0)),
        True,
        four_levels,
    ),
    "autoencoder_kl": (
        lambda: compiled(models.AutoencoderKL((8, 8, 1), 2, (4,), 1, 2, kl_weight=0.01, seed=0)),
        False,
    ),
    "cluster_vae": (
        lambda: compiled(models.ClusterVAE(*autoencoder(3, 2), keras.layers.Dense(4), 4, "gaussian", seed=0)),
        False,
    ),
    "cvae": (lambda: compiled(models.CVAE(*autoencoder(3, 2), 10, seed=0)), True),
    "gumbel_vae": (gumbel_vae, False),
    "vae": (lambda: compiled(models.VAE(*autoencoder(3, 2), kl_weight=0.5, seed=0)), False),
    "vae_flow_prior": (
        lambda: compiled(models.VAE(*autoencoder(4, 2), prior=models.RealNVP(2, [8], seed=1), seed=0)),
        False,
    ),
    "von_mises_fisher_vae": (lambda: compiled(models.VonMisesFisherVAE(*autoencoder(3), 5, seed=0)), False),
    "vqgan": (lambda: vqgan(start=6), False),
    "vqvae": (lambda: vqvae(layers.VectorQuantizer(8, restart_below=1, seed=0)), False),
    "vqvae_finite_scalar": (lambda: vqvae(layers.FiniteScalarQuantizer((3, 3)), 2), False),
    "flow": (
        lambda: compiled(
            models.Flow(layers.Chain([layers.Reshape(), *couplings()]), layers.LearnedNormalBase(), seed=0)
        ),
        False,
    ),
    "flow_condition": (lambda: compiled(models.NICE(2, [16], None, seed=0)), True),
    "gan": (gan, False),
    "gan_hinge_r1_mapping": (lambda: gan(True, loss="hinge", penalty="r1"), False),
    "gan_relativistic": (lambda: gan(loss="relativistic", ema_momentum=None), False),
    "gan_wasserstein_gradient": (lambda: gan(loss="wasserstein", penalty="gradient"), False),
    "glow": (lambda: compiled(models.Glow(2, 1, [8], 17, seed=0)), False),
    "latent_diffusion": (latent_diffusion, True),
    "nice": (lambda: compiled(models.NICE(2, [16], 17, seed=0)), False),
    "real_nvp": (lambda: compiled(models.RealNVP(2, [8], 1, 17, seed=0)), False),
    "ddpm": (ddpm, False),
    "edm": (lambda: continuous(models.EDM, schedule=schedules.EDMSchedule(0.01, 20.0), sigma_data=0.7), False),
    "rectified_flow": (
        lambda: continuous(models.RectifiedFlow, time_sampler=schedules.LogitNormalTime(0.1), pairing="optimal"),
        False,
    ),
    "rectified_flow_shifted": (
        lambda: continuous(models.RectifiedFlow, schedule=schedules.Shifted(schedules.RectifiedFlowSchedule())),
        False,
    ),
    "score_sde": (lambda: continuous(models.ScoreSDE), False),
    "score_sde_labels": (
        lambda: continuous(
            models.ScoreSDE, True, schedule=schedules.VESchedule(), prediction="edm", condition_dropout=0.2
        ),
        True,
    ),
    "ddpm_labels_learned_range": (lambda: ddpm(10, variance="learned_range", weighting="min_snr"), True),
    "ddpm_v_zero_snr": (
        lambda: ddpm(prediction="v", schedule=schedules.ZeroTerminalSNR(schedules.LinearSchedule(20))),
        False,
    ),
}
