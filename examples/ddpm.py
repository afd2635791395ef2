"""DDPM, https://kexue.fm/archives/9119, /9152 and /9164: learn to generate images, on scikit-learn's digits by default.

    KERAS_BACKEND=jax python examples/ddpm.py
    KERAS_BACKEND=torch python examples/ddpm.py --dataset fashion_mnist --backbone light --epochs 20

Writes pictures and the model to `--output`. A killed run goes on from its last epoch when started again.
"""

import argparse

import keras
import numpy as np
from datasets import load_images
from shared import parser, save_picture, train

from keras_gen.callbacks import SampleGrid
from keras_gen.metrics import frechet_distance
from keras_gen.models import DDPM, LightUNet, UNet
from keras_gen.samplers import DDIMSampler, DDPMSampler
from keras_gen.schedules import CosineSchedule, KexueSchedule

SCHEDULES = {"cosine": CosineSchedule, "kexue": KexueSchedule}
QUICK = DDIMSampler(50, spacing="trailing", clip_x0=1.0)


def parse_arguments() -> argparse.Namespace:
    arguments = parser(__doc__, "ddpm", epochs=50)
    arguments.add_argument("--backbone", choices=["full", "light"], default="full", help="which of the posts' U-Nets")
    arguments.add_argument("--schedule", choices=SCHEDULES, default="cosine", help="the posts' is for larger images")
    arguments.add_argument(
        "--unconditional", action="store_true", help="do not use the labels (the light U-Net never does)"
    )
    return arguments.parse_args()


def build_network(backbone: str, image_shape: tuple[int, ...], num_classes: int | None) -> keras.Model:
    if backbone == "light":
        return LightUNet(image_shape, widths=(64, 128) if image_shape[0] <= 16 else (64, 64, 128))
    if image_shape[0] <= 16:
        return UNet(image_shape, widths=(32, 64), blocks_per_level=1, attention_levels=(1,), num_classes=num_classes)
    return UNet(image_shape, widths=(32, 64, 128), attention_levels=(2,), num_classes=num_classes, dropout=0.1)


def report_frechet(model: DDPM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> None:
    """Prints how far as many samples as images are from them, in units of what chance does to two random halves."""
    generator = np.random.default_rng(seed)
    halves = [np.array_split(generator.permutation(images), 2) for _ in range(10)]
    unit = np.mean([frechet_distance(*half) for half in halves])
    samples = model.sample(len(images), QUICK, condition=labels, seed=seed, batch_size=256)
    distance = frechet_distance(samples, images)
    print(f"Frechet distance of the pixels: {distance:.3f}, {distance / unit:.2f} times that of two random halves")


def fit(model: DDPM, images: np.ndarray, labels: np.ndarray | None, arguments: argparse.Namespace) -> None:
    steps = arguments.epochs * -(-len(images) // arguments.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=2e-3, warmup_steps=steps // 20)
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.995))
    grid = SampleGrid(
        arguments.output / "epoch_{epoch:04d}.png",
        every=max(1, arguments.epochs // 4),
        sampler=QUICK,
        condition=None if labels is None else np.arange(16) % (labels.max() + 1),
    )
    train(model, images, labels, arguments, [grid])


def main() -> None:
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    output = arguments.output
    images, labels = load_images(arguments.dataset, arguments.size)
    if len(images) < 8:
        raise ValueError(f"`--dataset` must hold at least 8 images. Received: {len(images)} in {arguments.dataset}")
    if arguments.unconditional or arguments.backbone == "light":
        labels = None
    num_classes = None if labels is None else int(labels.max()) + 1

    network = build_network(arguments.backbone, images.shape[1:], num_classes)
    model = DDPM(network, SCHEDULES[arguments.schedule](), seed=arguments.seed)
    print(f"{network.count_params():,} weights")
    fit(model, images, labels, arguments)

    rows, columns = 8, 10
    condition = None if labels is None else np.tile(np.arange(columns) % num_classes, rows)
    samples = model.sample(rows * columns, DDPMSampler(clip_x0=1.0), condition, arguments.seed, batch_size=80)
    save_picture(output / "samples.png", samples, columns)

    label = None if labels is None else condition[:4]
    path = model.denoising_path(4, frames=9, sampler=QUICK, condition=label, seed=arguments.seed)
    save_picture(output / "path.png", path.swapaxes(0, 1).reshape(-1, *images.shape[1:]), 10)

    pairs = images[:4], images[4:8]
    # the label of the nearer image
    label = None if labels is None else np.repeat(np.stack([labels[:4], labels[4:8]], axis=1), [5, 4], axis=1).ravel()
    between = model.interpolate(*pairs, t0=500, points=9, sampler=QUICK, condition=label, seed=arguments.seed)
    save_picture(output / "interpolation.png", between.reshape(-1, *images.shape[1:]), 9)

    if arguments.dataset == "digits":
        report_frechet(model, images, labels, arguments.seed)


if __name__ == "__main__":
    main()
