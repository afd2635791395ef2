"""VQ-VAE, https://kexue.fm/archives/6760: images as small maps of discrete codes.

    KERAS_BACKEND=jax python examples/vq_vae.py
    KERAS_BACKEND=jax python examples/vq_vae.py --dataset mnist --epochs 20 --num-codes 128
    KERAS_BACKEND=jax python examples/vq_vae.py --upsampling icnr

Writes reconstructions with and without quantization, quantized interpolations, images decoded from a single code each,
and the model to `--output`; prints the error of test images, and the code usage.
"""

from collections.abc import Callable

import keras
import numpy as np
from datasets import load_split
from shared import as_count, parser, save_picture, side_by_side, train
from upsampling import KINDS, transposed

from keras_gen.layers import FiniteScalarQuantizer, VectorQuantizer
from keras_gen.models import VQVAE

LEVELS = (5, 5, 3, 3)  # of finite scalar quantization: 225 codes


def build_model(
    image_shape: tuple[int, ...],
    num_codes: int,
    quantizer: str,
    seed: int,
    up: Callable[[int, str], keras.Layer] = transposed,
) -> VQVAE:
    conv = keras.layers.Conv2D
    halvings = 1 if image_shape[0] <= 16 else 2
    width, channels = 64, 32 if quantizer == "vq" else len(LEVELS)
    x = h = keras.Input(image_shape)
    for _ in range(halvings):
        h = conv(width, 4, 2, "same", activation="relu")(h)
    h = conv(channels, 1)(residual_block(h, width))
    encoder = keras.Model(x, h)
    z = keras.Input(h.shape[1:])
    h = residual_block(conv(width, 3, padding="same")(z), width)
    for _ in range(halvings):
        h = up(width, "relu")(h)
    decoder = keras.Model(z, conv(image_shape[-1], 3, padding="same")(h))
    codebook = VectorQuantizer(num_codes, restart_below=1.0, seed=seed)
    return VQVAE(encoder, decoder, FiniteScalarQuantizer(LEVELS) if quantizer == "fsq" else codebook, seed=seed)


def residual_block(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    h = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(keras.layers.ReLU()(x))
    return keras.layers.Add()([x, keras.layers.Conv2D(width, 1)(h)])


def main() -> None:
    arguments = parser(__doc__, "vq_vae", epochs=60)
    arguments.add_argument("--num-codes", type=as_count, default=64)
    arguments.add_argument("--quantizer", choices=["vq", "fsq"], default="vq", help="a codebook, or rounded scalars")
    arguments.add_argument("--upsampling", choices=KINDS, default="transposed", help="how the decoder doubles images")
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, _), (test, _) = load_split(arguments.dataset, arguments.size)
    output = arguments.output
    up = KINDS[arguments.upsampling]
    model = build_model(images.shape[1:], arguments.num_codes, arguments.quantizer, arguments.seed, up)
    model.compile(keras.optimizers.Adam(2e-3))
    train(model, images, None, arguments, validation_data=(test, None))

    with_codes, without = model.reconstruct(test[:30]), model.reconstruct(test[:30], quantize=False)
    save_picture(output / "reconstructions.png", side_by_side(test[:30], with_codes, without), 9)
    between = model.interpolate(test[:6], test[6:12], points=9)
    save_picture(output / "interpolation.png", between.reshape(-1, *test.shape[1:]), 9)
    shown = np.arange(min(64, model.quantizer.code_sizes[0]))
    one_code = np.broadcast_to(shown.reshape(-1, 1, 1), (len(shown), *model.code_shape))
    save_picture(output / "codes.png", model.decode(one_code), 16)
    logs = model.evaluate(test, batch_size=256, return_dict=True, verbose=0)
    print(
        f"test: squared error {logs['reconstruction']:.4f} per pixel of [-1, 1], perplexity {logs['perplexity']:.1f}, "
        f"{logs['usage']:.0%} of {sum(model.quantizer.code_sizes)} codes used"
    )


if __name__ == "__main__":
    main()
