"""The law tables. A new class enters with one line; `test_laws.py` and `test_files.py` do the rest."""

import keras
import numpy as np

from keras_gen import layers, losses, metrics, models, samplers, schedules

T = np.array([3, 700], "int32")
REAL_T = np.array([0.5, 700.25], "float32")
CONVENTIONS = models.UNetConventions(
    groups=2, head_dim=4, max_period=1e3, symmetric_padding=True, middle="plain", scale_shift=True
)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 8)).astype("float32")
TOKENS = np.random.default_rng(7).normal(size=(2, 6, 8)).astype("float32")
HEADS = np.random.default_rng(8).normal(size=(2, 6, 3, 8)).astype("float32")
GRAY = np.random.default_rng(1).uniform(-1, 1, (2, 4, 4, 1)).astype("float32")
VECTOR = np.random.default_rng(2).normal(size=(2, 6)).astype("float32")
PAIRS = np.random.default_rng(3).normal(size=(2, 5, 2)).astype("float32")
DECAY = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
LABELS = np.array([0, 2], "int32")
CONDITION = np.random.default_rng(6).normal(size=(2, 3)).astype("float32")
LEVELS = (np.random.default_rng(5).integers(0, 17, (2, 4, 4, 1)) / 8 - 1).astype("float32")
NUMBERS = np.random.default_rng(4).uniform(0.01, 0.99, (2, 6)).astype("float32")

# name -> (constructor, inputs)
LAYERS = {
    "finite_scalar_quantizer": (lambda: layers.FiniteScalarQuantizer((4, 3)), (PAIRS,)),
    "gaussian_sampling": (lambda: layers.GaussianSampling(kl_weight=0.1, seed=0), (VECTOR, VECTOR)),
    "conditioner": (lambda: layers.Conditioner(3, [8], dropout=0.5, seed=0), (VECTOR,)),
    "cross_attention": (lambda: layers.CrossAttention2D(2, 2), (IMAGES, TOKENS)),
    "dit": (lambda: models.DiT((4, 4, 1), 2, 16, 2, 2, num_classes=3), (GRAY, T, LABELS)),
    "dit_sincos": (lambda: models.DiT((4, 4, 1), 2, 8, 1, 1, "sincos", out_channels=2), (GRAY, REAL_T)),
    "dit_block": (lambda: layers.DiTBlock(2, positions=layers.RotaryEmbedding2D(2, 3)), (TOKENS, VECTOR)),
    "gated_attention_unit": (
        lambda: layers.GatedAttentionUnit(4, 8, layers.RotaryEmbedding2D(3, 2, base=1e3)),
        (TOKENS,),
    ),
    "group_norm": (lambda: layers.GroupNorm(2), (IMAGES,)),
    "grouped_vector_quantizer": (
        lambda: layers.GroupedVectorQuantizer([layers.VectorQuantizer(5, seed=seed) for seed in (0, 1)]),
        (IMAGES,),
    ),
    "gumbel_softmax": (lambda: layers.GumbelSoftmax(DECAY, seed=0), (VECTOR,)),
    "light_block": (lambda: layers.LightBlock(4), (IMAGES, VECTOR)),
    "light_unet": (lambda: models.LightUNet((4, 4, 1), (8, 8), 1), (GRAY, T)),
    "lookup_free_quantizer": (lambda: layers.LookupFreeQuantizer(4), (PAIRS,)),
    "gated_pixel_block": (lambda: layers.GatedPixelBlock(8), (IMAGES, IMAGES[::-1].copy())),
    "gated_pixel_block_strict_groups_embedding": (
        lambda: layers.GatedPixelBlock(4, 5, strict=True, groups=2),
        (IMAGES, IMAGES[::-1].copy(), VECTOR),
    ),
    "masked_conv_2d": (lambda: layers.MaskedConv2D(6, (3, 5), groups=2), (IMAGES,)),
    "masked_conv_2d_strict": (lambda: layers.MaskedConv2D(3, strict=True), (IMAGES,)),
    "masked_dense": (lambda: layers.MaskedDense([1, 2, 3, 1, 2, 3], [1, 2, 3]), (VECTOR,)),
    "learned_normal_base": (layers.LearnedNormalBase, (VECTOR,)),
    "logistic_base": (layers.LogisticBase, (VECTOR,)),
    "moving_average": (lambda: layers.MovingAverage(0.9), (VECTOR,)),
    "normal_base": (layers.NormalBase, (VECTOR,)),
    "pixel_transformer": (
        lambda: models.PixelTransformer((4, 4, 1), 2, 32, 2, condition_dim=3, out_channels=2),
        (GRAY, REAL_T, CONDITION),
    ),
    "residual_block": (lambda: layers.ResidualBlock(4, 2, dropout=0.5, seed=0), (IMAGES, VECTOR)),
    "residual_block_remat": (lambda: layers.ResidualBlock(8, 2, dropout=0.5, remat=True, seed=0), (IMAGES, VECTOR)),
    "residual_vector_quantizer": (
        lambda: layers.ResidualVectorQuantizer([layers.VectorQuantizer(5, restart_below=1, seed=0) for _ in range(2)]),
        (IMAGES,),
    ),
    "rotary_embedding": (lambda: layers.RotaryEmbedding(1e3), (HEADS,)),
    "rotary_embedding_2d": (lambda: layers.RotaryEmbedding2D(2, 3, base=1e3), (HEADS,)),
    "self_attention": (lambda: layers.SelfAttention2D(2, 2), (IMAGES,)),
    "sinusoidal_embedding": (lambda: layers.SinusoidalEmbedding(6), (T,)),
    "transformer_block": (lambda: layers.TransformerBlock(2), (TOKENS,)),
    "transformer_block_rotary": (
        lambda: layers.TransformerBlock(2, 3, layers.RotaryEmbedding(1e3), dropout=0.5, seed=0),
        (TOKENS,),
    ),
    "unet": (lambda: models.UNet((4, 4, 1), (8, 8), 1, (1,), num_classes=3), (GRAY, T, LABELS)),
    "unet_any_size": (lambda: models.UNet((None, None, 1), (8, 8), 1, out_channels=2), (GRAY, T)),
    "unet_conventions_condition": (
        lambda: models.UNet((4, 4, 1), (8, 8), 1, (1,), condition_dim=3, conventions=CONVENTIONS),
        (GRAY, REAL_T, CONDITION),
    ),
    "unet_cross_attention": (
        lambda: models.UNet((4, 4, 1), (8, 8), 1, (1,), condition_dim=(None, 8)),
        (GRAY, REAL_T, TOKENS),
    ),
    "von_mises_fisher_sampling": (lambda: layers.VonMisesFisherSampling(3.0, seed=0), (VECTOR,)),
    "uniform_base": (layers.UniformBase, (NUMBERS,)),
    "vector_quantizer": (lambda: layers.VectorQuantizer(5, num_heads=2, restart_below=1, seed=0), (IMAGES,)),
    "vector_quantizer_cosine_rotation": (
        lambda: layers.VectorQuantizer(5, distance="cosine", gradient="rotation", seed=0),
        (IMAGES,),
    ),
    "vector_quantizer_loss": (
        lambda: layers.VectorQuantizer(5, codebook_update="loss", initializer="random_normal"),
        (IMAGES,),
    ),
}


def level(flip: bool, **dtype) -> layers.Chain:
    coupling = layers.AffineCoupling(units=[4], split="channel", flip=flip, **dtype)
    return layers.Chain([layers.Squeeze(**dtype), layers.ActNorm(**dtype), coupling], **dtype)


def learned_noise(**dtype) -> layers.Dequantize:
    coupling = layers.AffineCoupling(units=[4], split="checkerboard", **dtype)
    return layers.Dequantize(17, coupling, seed=0, **dtype)


# name -> (constructor, x) or (constructor, x, condition); the constructors take a dtype
BIJECTORS = {
    "act_norm": (layers.ActNorm, VECTOR),
    "act_norm_images": (layers.ActNorm, IMAGES),
    "additive_coupling": (lambda **dtype: layers.AdditiveCoupling(units=[8], **dtype), VECTOR),
    "additive_coupling_condition": (lambda **dtype: layers.AdditiveCoupling(units=[8], **dtype), VECTOR, CONDITION),
    "additive_coupling_given": (
        lambda **dtype: layers.AdditiveCoupling(keras.layers.Dense(3, "tanh", **dtype), **dtype),
        VECTOR,
    ),
    "additive_coupling_checkerboard": (
        lambda **dtype: layers.AdditiveCoupling(units=[4], split="checkerboard", **dtype),
        GRAY,
    ),
    "affine_coupling_interleave": (
        lambda **dtype: layers.AffineCoupling(units=[8], split="interleave", flip=True, **dtype),
        VECTOR,
    ),
    "affine_coupling_checkerboard": (
        lambda **dtype: layers.AffineCoupling(units=[4], split="checkerboard", flip=True, **dtype),
        GRAY,
    ),
    "affine_coupling_condition": (
        lambda **dtype: layers.AffineCoupling(units=[4], split="channel", scale_map="sigmoid", **dtype),
        IMAGES[:, :2, :2],
        CONDITION,
    ),
    "chain": (lambda **dtype: level(False, **dtype), GRAY),
    "continuous_flow": (lambda **dtype: layers.ContinuousFlow(units=[8], steps=32, **dtype), PAIRS[:, 0]),
    "continuous_flow_adaptive": (
        lambda **dtype: layers.ContinuousFlow(units=[8], tolerance=1e-6, **dtype),
        PAIRS[:, 0],
        CONDITION,
    ),
    "dequantize": (lambda **dtype: layers.Dequantize(17, seed=0, **dtype), LEVELS),
    "dequantize_learned": (learned_noise, LEVELS),
    "invert": (lambda **dtype: layers.Invert(layers.MaskedAutoregressive([8], **dtype), **dtype), VECTOR),
    "invertible_1x1_conv": (lambda **dtype: layers.Invertible1x1Conv(seed=0, **dtype), IMAGES[:, :2, :2]),
    "invertible_1x1_conv_matrix": (lambda **dtype: layers.Invertible1x1Conv([[0, 2], [3, 1]], **dtype), PAIRS[:, 0]),
    "logit_transform": (layers.LogitTransform, NUMBERS),
    "masked_autoregressive": (lambda **dtype: layers.MaskedAutoregressive([8], **dtype), VECTOR),
    "masked_autoregressive_condition": (
        lambda **dtype: layers.MaskedAutoregressive([8, 8], "silu", "softclip", **dtype),
        VECTOR,
        CONDITION,
    ),
    "multi_scale": (
        lambda **dtype: layers.MultiScale([level(True, **dtype), level(False, **dtype)], **dtype),
        GRAY,
    ),
    "permutation": (lambda **dtype: layers.Permutation(seed=0, **dtype), VECTOR),
    "permutation_reverse": (lambda **dtype: layers.Permutation("reverse", **dtype), IMAGES[:, :2, :2]),
    "reshape": (layers.Reshape, GRAY),
    "scale": (lambda **dtype: layers.Scale(3.0, **dtype), VECTOR),
    "scale_images": (layers.Scale, IMAGES[:, :2, :2]),
    "spline_coupling": (lambda **dtype: layers.SplineCoupling(units=[8], **dtype), 3 * VECTOR),
    "spline_coupling_images": (
        lambda **dtype: layers.SplineCoupling(units=[4], split="channel", num_bins=4, **dtype),
        IMAGES[:, :2, :2],
    ),
    "squeeze": (layers.Squeeze, GRAY),
}
LAYERS |= {name: (make, (x,)) for name, (make, x, *condition) in BIJECTORS.items() if not condition}

# Bijectors whose forward direction is a step function plus noise.
DISCRETE = {"dequantize", "dequantize_learned"}

# Layers whose purpose is to sample, in inference too.
SAMPLING = DISCRETE | {"gaussian_sampling", "gumbel_softmax", "von_mises_fisher_sampling"}

# Objects of configuration alone.
CONFIGURED = {
    "cosine_schedule": lambda: schedules.CosineSchedule(50, offset=0.01),
    "cos_map_time": schedules.CosMapTime,
    "discrete_schedule": lambda: schedules.DiscreteSchedule([0.1, 0.2, 0.5]),
    "edm_schedule": lambda: schedules.EDMSchedule(0.01, 20.0),
    "kexue_schedule": lambda: schedules.KexueSchedule(50),
    "linear_schedule": lambda: schedules.LinearSchedule(50, beta_end=0.2),
    "log_normal_sigma": lambda: schedules.LogNormalSigma(-1.0, 0.9),
    "logit_normal_time": lambda: schedules.LogitNormalTime(0.5, 0.9),
    "mode_time": lambda: schedules.ModeTime(0.5),
    "rectified_flow_schedule": schedules.RectifiedFlowSchedule,
    "scaled_linear_schedule": lambda: schedules.ScaledLinearSchedule(50),
    "shifted": lambda: schedules.Shifted(schedules.RectifiedFlowSchedule(), 2.0),
    "sub_vp_schedule": lambda: schedules.SubVPSchedule(0.2, 15.0),
    "uniform_time": schedules.UniformTime,
    "ve_schedule": lambda: schedules.VESchedule(0.02, 30.0),
    "vp_schedule": lambda: schedules.VPSchedule(0.2, 15.0),
    "code_perplexity": lambda: metrics.CodePerplexity((3, 4)),
    "code_usage": lambda: metrics.CodeUsage(3),
    "bernoulli_likelihood": losses.BernoulliLikelihood,
    "categorical_likelihood": lambda: losses.CategoricalLikelihood(3),
    "gradient_penalty": lambda: losses.GradientPenalty(3.0),
    "hinge_loss": losses.HingeLoss,
    "non_saturating_loss": losses.NonSaturatingLoss,
    "r1_penalty": lambda: losses.R1Penalty(3.0),
    "relativistic_loss": losses.RelativisticLoss,
    "wasserstein_loss": losses.WassersteinLoss,
    "gaussian_likelihood": lambda: losses.GaussianLikelihood(0.3),
    "unet_conventions": lambda: CONVENTIONS,
    "zero_terminal_snr": lambda: schedules.ZeroTerminalSNR(schedules.LinearSchedule(50)),
    "frechet_distance": lambda: metrics.FrechetDistance(keras.layers.Flatten()),
    "precision_recall": lambda: metrics.PrecisionRecall(None, 5),
    "hubness_sampler": lambda: samplers.HubnessSampler(
        (2, 3), "uniform", keras.layers.Flatten(), 4, top_fraction=0.1, pool_size=50, metric="cosine", include_self=True
    ),
    "norm_sampler": lambda: samplers.NormSampler(3, "sphere", fraction=0.5, pool_size=50, seed=1),
    "truncation_sampler": lambda: samplers.TruncationSampler(3, psi=0.5, pool_size=50),
    "analytic_dpm_sampler": lambda: samplers.AnalyticDPMSampler(7, 0.5, "trailing", 1.0),
    "classifier_free_guidance": lambda: samplers.ClassifierFreeGuidance(2.0, 0.7, (0.1, 5.0), batched=False),
    "classifier_guidance": lambda: samplers.ClassifierGuidance(classifier(), 2.0),
    "ddim_sampler": lambda: samplers.DDIMSampler(7, eta=0.5, spacing="trailing", clip_x0=1.0),
    "ddpm_sampler": lambda: samplers.DDPMSampler(7, spacing="linspace"),
    "dpm_solver_pp_sampler": lambda: samplers.DPMSolverPPSampler(7, 1, sde=True, spacing="log_snr", clip_x0=1.0),
    "euler_sampler": lambda: samplers.EulerSampler(7, "karras", 1.0),
    "heun_sampler": lambda: samplers.HeunSampler(7, 3.0, (0.1, 5.0), 1.003, "karras", 1.0),
    "probability_flow_sampler": lambda: samplers.ProbabilityFlowSampler(1e-4, 1.0),
    "reverse_sde_sampler": lambda: samplers.ReverseSDESampler(7, 2, 0.1, "linspace", 1.0),
}


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


def classifier() -> keras.Model:
    x, t = keras.Input((8, 8, 1)), keras.Input(())
    h = keras.layers.Concatenate()([keras.layers.Flatten()(x), keras.layers.Reshape((1,))(t)])
    return keras.Model([x, t], keras.layers.Dense(10)(h))


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
