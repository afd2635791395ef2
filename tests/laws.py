"""The law tables. A new class enters with one line; `test_laws.py` and `test_files.py` do the rest."""

import keras
import numpy as np

from keras_gen import layers, models, samplers, schedules

T = np.array([3, 700], "int32")
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 8)).astype("float32")
GRAY = np.random.default_rng(1).uniform(-1, 1, (2, 4, 4, 1)).astype("float32")
VECTOR = np.random.default_rng(2).normal(size=(2, 6)).astype("float32")
LABELS = np.array([0, 2], "int32")

# name -> (constructor, inputs)
LAYERS = {
    "group_norm": (lambda: layers.GroupNorm(2), (IMAGES,)),
    "light_block": (lambda: layers.LightBlock(4), (IMAGES, VECTOR)),
    "light_unet": (lambda: models.LightUNet((4, 4, 1), (8, 8), 1), (GRAY, T)),
    "residual_block": (lambda: layers.ResidualBlock(4, 2, dropout=0.5, seed=0), (IMAGES, VECTOR)),
    "residual_block_remat": (lambda: layers.ResidualBlock(8, 2, dropout=0.5, remat=True, seed=0), (IMAGES, VECTOR)),
    "self_attention": (lambda: layers.SelfAttention2D(2, 2), (IMAGES,)),
    "sinusoidal_embedding": (lambda: layers.SinusoidalEmbedding(6), (T,)),
    "unet": (lambda: models.UNet((4, 4, 1), (8, 8), 1, (1,), num_classes=3), (GRAY, T, LABELS)),
    "unet_any_size": (lambda: models.UNet((None, None, 1), (8, 8), 1, out_channels=2), (GRAY, T)),
}

# Objects of configuration alone.
CONFIGURED = {
    "cosine_schedule": lambda: schedules.CosineSchedule(50, offset=0.01),
    "discrete_schedule": lambda: schedules.DiscreteSchedule([0.1, 0.2, 0.5]),
    "kexue_schedule": lambda: schedules.KexueSchedule(50),
    "linear_schedule": lambda: schedules.LinearSchedule(50, beta_end=0.2),
    "scaled_linear_schedule": lambda: schedules.ScaledLinearSchedule(50),
    "zero_terminal_snr": lambda: schedules.ZeroTerminalSNR(schedules.LinearSchedule(50)),
    "ddim_sampler": lambda: samplers.DDIMSampler(7, eta=0.5, spacing="trailing", clip_x0=1.0),
    "ddpm_sampler": lambda: samplers.DDPMSampler(7, spacing="linspace"),
}


def tiny_network(num_classes: int | None = None, outputs: int = 1) -> keras.Model:
    """Returns the smallest network that learns something, quick to compile."""
    x, t = keras.Input((8, 8, 1)), keras.Input((), dtype="int32")
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


# name -> (constructor of a compiled model, whether it takes labels); trained on 8 x 8 digits
MODELS = {
    "ddpm": (ddpm, False),
    "ddpm_labels_learned_range": (lambda: ddpm(10, variance="learned_range", weighting="min_snr"), True),
    "ddpm_v_zero_snr": (
        lambda: ddpm(prediction="v", schedule=schedules.ZeroTerminalSNR(schedules.LinearSchedule(20))),
        False,
    ),
}
