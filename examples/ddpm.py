"""DDPM, https://kexue.fm/archives/9119, /9152 and /9164: image generation, on scikit-learn's digits by default.

    KERAS_BACKEND=jax python examples/ddpm.py
    KERAS_BACKEND=torch python examples/ddpm.py --dataset fashion_mnist --backbone light --epochs 20

Writes pictures and the model to `--output`. An interrupted run resumes from its last epoch.
"""

import argparse
import pathlib
from collections.abc import Sequence

import keras
import numpy as np
from datasets import count_classes, load_images
from shared import as_count, load_model, number_of_steps, parser, save_picture, train, warm_cosine

from keras_gen.callbacks import SampleGrid
from keras_gen.metrics import frechet_distance
from keras_gen.models import DDPM, LightUNet, UNet
from keras_gen.samplers import DDIMSampler, DDPMSampler, DiffusionSampler
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
    arguments.add_argument("--widths", type=as_count, nargs="+", help="of the network's levels; default: by the size")
    arguments.add_argument("--steps", type=as_count, help="of the last sampling; default: all of the schedule")
    arguments.add_argument("--condition-dropout", type=float, default=0.0, help="share of labels hidden in training")
    return arguments.parse_args()


def build_network(
    backbone: str, image_shape: tuple[int, ...], num_classes: int | None, widths: Sequence[int] | None = None
) -> keras.Model:
    """Builds one of the two U-Nets; `widths` defaults to two levels for images of up to 16 x 16, else three."""
    small = image_shape[0] <= 16
    if backbone == "light":
        return LightUNet(image_shape, widths or ((64, 128) if small else (64, 64, 128)))
    widths = widths or ((32, 64) if small else (32, 64, 128))
    options = {"blocks_per_level": 1} if small else {"dropout": 0.1}
    return UNet(image_shape, widths, attention_levels=(len(widths) - 1,), num_classes=num_classes, **options)


def frechet_unit(images: np.ndarray, seed: int, n: int | None = None) -> float:
    """Returns the mean distance of two random halves of the images, or of two random sets of `n` if `n` is smaller."""
    generator = np.random.default_rng(seed)
    halves = [np.array_split(generator.permutation(images), 2) for _ in range(10)]
    return float(np.mean([frechet_distance(a[:n], b[:n]) for a, b in halves]))


def report_frechet(model: DDPM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> None:
    """Prints the distance of an equal number of samples from the images, relative to that of two random halves."""
    unit = frechet_unit(images, seed)
    samples = model.sample(len(images), QUICK, condition=labels, seed=seed, batch_size=256)
    distance = frechet_distance(samples, images)
    print(f"Frechet distance of the pixels: {distance:.3f}, {distance / unit:.2f} times that of two random halves")


def fit(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray | None,
    arguments: argparse.Namespace,
    sampler: DiffusionSampler = QUICK,
) -> None:
    """Trains a diffusion model, with four pictures of samples by `sampler` during training."""
    rate = warm_cosine(2e-3, number_of_steps(arguments, len(images)))
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.995))
    grid = SampleGrid(
        arguments.output / "epoch_{epoch:04d}.png",
        every=max(1, arguments.epochs // 4),
        sampler=sampler,
        condition=None if labels is None else np.arange(16) % count_classes(labels),
    )
    train(model, images, labels, arguments, [grid])


def sampling_parser(description: str, name: str) -> argparse.ArgumentParser:
    """Returns the parser of an example that samples a model of this one, see `load_or_train`."""
    result = parser(description, name, epochs=50)
    result.add_argument("--model", type=pathlib.Path, help="default: ddpm/model.keras next to `--output`, or trained")
    return result


def load_or_train(
    images: np.ndarray, labels: np.ndarray | None, arguments: argparse.Namespace, condition_dropout: float = 0.0
) -> tuple[DDPM, np.ndarray | None]:
    """Loads the model written by a run of this example, or trains it as a default run does if there is none.

    Args:
        images: float32 `(n, height, width, channels)` in [-1, 1], those of `arguments.dataset`.
        labels: int32 `(n,)`, or `None`.
        arguments: those of `sampling_parser`.
        condition_dropout: fraction of labels dropped in training. Defaults to `0.0`.

    Returns:
        model: the trained model.
        labels: the labels if the model is conditional, else `None`.
    """
    folder = "ddpm" if condition_dropout == 0 else "ddpm_dropout"
    if arguments.dataset != "digits":
        folder += f"_{pathlib.Path(arguments.dataset).stem}"
    path = arguments.model or arguments.output.parent / folder / "model.keras"
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.model is None and not path.exists():
        keras.utils.set_random_seed(arguments.seed)
        network = build_network("full", images.shape[1:], count_classes(labels))
        model = DDPM(network, CosineSchedule(), condition_dropout=condition_dropout, seed=arguments.seed)
        fit(model, images, labels, argparse.Namespace(**{**vars(arguments), "output": path.parent}))
        return model, labels
    model = load_model(path)
    print(f"read {path}")
    if model.image_shape != images.shape[1:]:
        raise ValueError(f"`--model` must be of images of {images.shape[1:]}. Received: {path} of {model.image_shape}")
    return model, labels if len(model.network.inputs) == 3 else None


def main() -> None:
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    output = arguments.output
    images, labels = load_images(arguments.dataset, arguments.size)
    if len(images) < 8:
        raise ValueError(f"`--dataset` must hold at least 8 images. Received: {len(images)} in {arguments.dataset}")
    if arguments.unconditional or arguments.backbone == "light":
        labels = None
    num_classes = count_classes(labels)

    network = build_network(arguments.backbone, images.shape[1:], num_classes, arguments.widths)
    schedule, dropout = SCHEDULES[arguments.schedule](), arguments.condition_dropout
    model = DDPM(network, schedule, condition_dropout=dropout, seed=arguments.seed)
    print(f"{network.count_params():,} weights")
    fit(model, images, labels, arguments)

    rows, columns = 8, 10
    condition = None if labels is None else np.tile(np.arange(columns) % num_classes, rows)
    sampler = DDPMSampler(arguments.steps, clip_x0=1.0)
    samples = model.sample(rows * columns, sampler, condition, seed=arguments.seed, batch_size=80)
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
