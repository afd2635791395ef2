"""VQGAN, after https://kexue.fm/archives/6760: "compress first, then generate", by Esser et al., arXiv:2012.09841.

    KERAS_BACKEND=jax python examples/vqgan.py
    KERAS_BACKEND=jax python examples/vqgan.py --dataset fashion_mnist --epochs 4 --num-codes 128

The first half, the compression. A VQ-VAE and a VQGAN are trained with equal networks and budgets, at a low bit rate: 24
bits for a digit of 8 x 8 pixels. Where the codes do not determine the image, the squared error is minimized by the mean
of all possible images, which is blurry; the discriminator and the perceptual loss favor realistic images instead, at
the cost of a larger squared error. On digits the strokes become brighter and their edges sharper, some of them in the
wrong position. The Frechet distance uses the features of another classifier than the one in the VQGAN's loss, trained
on the same images. It compares reconstructions with their originals, on 299 digits by default: it ranks the two models,
but does not measure the quality of new images.

Writes reconstructions of test images, the weight of the adversarial loss over the epochs and both models to `--output`;
prints the squared error and the Frechet distance of the reconstructions, and the fraction that keep their class.
"""

from typing import Any

import keras
import numpy as np
from classifier import classes, train_classifier
from datasets import check_sides, load_split
from shared import as_count, number_of_steps, parser, save_logged, save_rows, train
from vq_vae import residual_block

from keras_gen.layers import VectorQuantizer
from keras_gen.metrics import frechet_distance
from keras_gen.models import VQGAN, VQVAE

conv, up = keras.layers.Conv2D, keras.layers.Conv2DTranspose
WIDTH, CHANNELS = 32, 16


def build_autoencoder(
    image_shape: tuple[int, ...], num_codes: int, seed: int
) -> tuple[keras.Model, keras.Model, VectorQuantizer]:
    x = h = keras.Input(image_shape)
    for _ in range(2):
        h = conv(WIDTH, 4, 2, "same", activation="relu")(h)
    encoder = keras.Model(x, conv(CHANNELS, 1)(residual_block(h, WIDTH)))
    z = keras.Input(encoder.output.shape[1:])
    h = residual_block(conv(WIDTH, 3, padding="same")(z), WIDTH)
    for _ in range(2):
        h = up(WIDTH, 4, 2, "same", activation="relu")(h)
    decoder = keras.Model(z, conv(image_shape[-1], 3, padding="same", activation="tanh")(h))
    return encoder, decoder, VectorQuantizer(num_codes, restart_below=1.0, seed=seed)


def build_discriminator(image_shape: tuple[int, ...]) -> keras.Model:
    """Returns a patch discriminator with a receptive field of 5 pixels for images of less than 16, else of 10."""
    x = keras.Sequential([keras.Input(image_shape)], name="discriminator")
    for filters, size, strides in ((32, 3, 1), (64, 3, 1)) if image_shape[0] < 16 else ((32, 4, 2), (64, 4, 2)):
        x.add(conv(filters, size, strides, "same", kernel_initializer="he_normal"))
        x.add(keras.layers.LeakyReLU(0.2))
    x.add(conv(1, 1))
    return x


def build_vqgan(image_shape: tuple[int, ...], arguments: Any, features: keras.Model | None, start: int) -> VQGAN:
    parts = build_autoencoder(image_shape, arguments.num_codes, arguments.seed)
    weights = {"perceptual_weight": arguments.perceptual, "adversarial_weight": arguments.adversarial}
    critics = (build_discriminator(image_shape), features)
    return VQGAN(*parts, *critics, **weights, start=start, seed=arguments.seed)


def maps_of(classifier: keras.Model) -> keras.Model:
    """Returns a model from images to the classifier's feature maps."""
    return keras.Model(classifier.inputs, [layer.output for layer in classifier.layers if isinstance(layer, conv)])


def adam(rate: float, steps: int) -> keras.optimizers.Optimizer:
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.05)
    return keras.optimizers.Adam(schedule, beta_1=0.5, beta_2=0.9)


def main() -> None:
    arguments = parser(__doc__, "vqgan", epochs=60)
    arguments.add_argument("--num-codes", type=as_count, default=64)
    arguments.add_argument("--perceptual", type=float, default=1.0, help="weight of the distance of features")
    arguments.add_argument("--adversarial", type=float, default=0.8, help="weight of the adversarial loss")
    arguments.add_argument("--start", type=float, default=0.2, help="share of the steps in which it is off")
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    output, seed, shape = arguments.output, arguments.seed, images.shape[1:]
    check_sides(shape)
    features = judge = judge_features = None
    if labels is not None:
        data = (images, labels, test, test_labels)
        features = maps_of(train_classifier(*data, output / "classifier.keras", seed)[0])
        judge, judge_features = train_classifier(*data, output / "judge.keras", seed + 1)

    steps = number_of_steps(arguments, len(images))
    models = {
        "VQ-VAE": VQVAE(*build_autoencoder(shape, arguments.num_codes, seed), seed=seed),
        "VQGAN": build_vqgan(shape, arguments, features, int(arguments.start * steps)),
    }
    rows = {"image": test}
    for name, model in models.items():
        keras.utils.set_random_seed(seed)
        rates = (2e-3,) if name == "VQ-VAE" else (2e-3, 2e-3)
        model.compile(*(adam(rate, steps) for rate in rates))
        train(model, images, None, arguments, validation_data=(test, None), folder=name.lower().replace("-", "_"))
        rows[name] = np.clip(model.reconstruct(test), -1, 1)

    bits = np.prod(models["VQGAN"].code_shape) * np.log2(arguments.num_codes)
    title = f"test images made again from {bits:.0f} bits"
    save_rows(output / "reconstructions.png", {name: row[:20] for name, row in rows.items()}, title)
    log, ylabel = output / "vqgan" / "loss.csv", "weight of the adversarial loss"
    save_logged(output / "adaptive_weight.png", log, ["adaptive_weight"], ylabel)
    for name in models:
        line = f"{name}: squared error {np.mean((rows[name] - test) ** 2):.4f} per pixel of [-1, 1]"
        if judge is not None:
            real, made = (judge_features.predict(x, batch_size=256, verbose=0) for x in (test, rows[name]))
            kept = np.mean(classes(judge, rows[name]) == test_labels)
            line += f", Frechet distance {frechet_distance(real, made):.2f}, {kept:.1%} keep their class"
        print(line)


if __name__ == "__main__":
    main()
