import keras

from keras_gen import initializers, layers, models
from laws.arrays import CONDITION, GRAY, IMAGES, LABELS, REAL_T, SIZED_TEXT, TEXT, TOKENS, T

CONVENTIONS = models.UNetConventions(
    groups=2, head_dim=4, max_period=1e3, symmetric_padding=True, middle="plain", scale_shift=True
)
DIT_CONVENTIONS = models.DiTConventions(qk_norm=False, mlp_epsilon=1e-5, columns_first=True, max_period=1e3)


def sub_pixel(filters: int) -> keras.Layer:
    icnr = initializers.ICNR("he_normal")
    convolution = keras.layers.Conv2D(4 * filters, 1, kernel_initializer=icnr, data_format="channels_last")
    return keras.Sequential([convolution, layers.PixelShuffle2D()])


# name -> (constructor, inputs)
NETWORKS = {
    "dit": (lambda: models.DiT((4, 4, 1), 2, 16, 2, 2, num_classes=3), (GRAY, T, LABELS)),
    "dit_sincos": (lambda: models.DiT((4, 4, 1), 2, 8, 1, 1, "sincos", out_channels=2), (GRAY, REAL_T)),
    "dit_conventions": (
        lambda: models.DiT((4, 4, 1), 2, 16, 2, 2, "sincos", num_classes=3, conventions=DIT_CONVENTIONS),
        (GRAY, T, LABELS),
    ),
    "light_unet": (lambda: models.LightUNet((4, 4, 1), (8, 8), 1, upsampling=[sub_pixel(4)]), (GRAY, T)),
    "mmdit": (lambda: models.MMDiT((4, 4, 1), 8, 6, 2, 8, 2, 2, dual_attention=(0,), remat=True), (GRAY, T, TEXT)),
    "mmdit_any_size": (
        lambda: models.MMDiT((None, None, 1), 8, 6, 2, 8, 1, 1, False, table_size=3, base_size=2, out_channels=2),
        (GRAY, REAL_T, TEXT),
    ),
    "pixel_transformer": (
        lambda: models.PixelTransformer((4, 4, 1), 2, 32, 2, condition_dim=3, out_channels=2),
        (GRAY, REAL_T, CONDITION),
    ),
    "unet": (lambda: models.UNet((4, 4, 1), (8, 8), 1, (1,), num_classes=3), (GRAY, T, LABELS)),
    "unet_any_size": (
        lambda: models.UNet((None, None, 1), (8, 8), 1, out_channels=2, upsampling=layers.PixelShuffle2D()),
        (GRAY, T),
    ),
    "unet_conventions_condition": (
        lambda: models.UNet((4, 4, 1), (8, 8), 1, (1,), condition_dim=3, conventions=CONVENTIONS),
        (GRAY, REAL_T, CONDITION),
    ),
    "unet_cross_attention": (
        lambda: models.UNet((4, 4, 1), (8, 8), 1, (1,), condition_dim=(None, 8)),
        (GRAY, REAL_T, TOKENS),
    ),
    "unet2d_condition": (
        lambda: models.UNet2DCondition((4, 4, 8), 8, (8,), (1,), 1, 2, 1, groups=2, upcast_attention=True),
        (IMAGES, T, TOKENS),
    ),
    "unet2d_condition_sizes": (
        lambda: models.UNet2DCondition((4, 4, 8), 8, (8,), (0,), 1, 2, 1, 6, 4, 2, linear_projections=True),
        (IMAGES, REAL_T, SIZED_TEXT),
    ),
}
