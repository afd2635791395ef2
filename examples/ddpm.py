"""DDPM, https://kexue.fm/archives/9119, /9152 and /9164: learn to generate images, on scikit-learn's digits by default.

    KERAS_BACKEND=jax python examples/ddpm.py
    KERAS_BACKEND=torch python examples/ddpm.py --dataset fashion_mnist --backbone light --epochs 20

Writes pictures and the model to `--output`. A killed run goes on from its last epoch when started again.
"""

import argparse
import pathlib
import time

import keras
import numpy as np
from datasets import load_images

from keras_gen.callbacks import SampleGrid
from keras_gen.metrics import frechet_distance
from keras_gen.models import DDPM, LightUNet, UNet
from keras_gen.ops import image_grid
from keras_gen.samplers import DDIMSampler, DDPMSampler
from keras_gen.schedules import CosineSchedule, KexueSchedule

SCHEDULES = {"cosine": CosineSchedule, "kexue": KexueSchedule}
QUICK = DDIMSampler(50, spacing="trailing", clip_x0=1.0)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", default="digits", help="digits, mnist, fashion_mnist, cifar10, an .npz file or a folder"
    )
    parser.add_argument("--size", type=int, default=64, help="height and width for the pictures of a folder")
    parser.add_argument("--backbone", choices=["full", "light"], default="full", help="which of the posts' two U-Nets")
    parser.add_argument("--schedule", choices=SCHEDULES, default="cosine", help="the posts' is for larger images")
    parser.add_argument(
        "--unconditional", action="store_true", help="do not use the labels (the light U-Net never does)"
    )
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/ddpm"))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build_network(backbone: str, image_shape: tuple[int, ...], num_classes: int | None) -> keras.Model:
    if backbone == "light":
        return LightUNet(image_shape, widths=(64, 128) if image_shape[0] <= 16 else (64, 64, 128))
    if image_shape[0] <= 16:
        return UNet(image_shape, widths=(32, 64), blocks_per_level=1, attention_levels=(1,), num_classes=num_classes)
    return UNet(image_shape, widths=(32, 64, 128), attention_levels=(2,), num_classes=num_classes, dropout=0.1)


def save_picture(path: pathlib.Path, images: np.ndarray, columns: int) -> None:
    scale = max(1, 48 // images.shape[1])
    keras.utils.save_img(path, image_grid(images, columns, scale, padding=8), data_format="channels_last", scale=False)
    print(f"wrote {path}")


def save_loss_curve(path: pathlib.Path, log: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    table = np.atleast_1d(np.genfromtxt(log, delimiter=",", names=True))
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(table["epoch"] + 1, table["loss"])
    axes.set(xlabel="epoch", ylabel="mean squared error of the predicted noise", yscale="log")
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def report_frechet(model: DDPM, images: np.ndarray, labels: np.ndarray | None, seed: int) -> None:
    """Prints how far as many samples as images are from them, in units of what chance does to two random halves."""
    generator = np.random.default_rng(seed)
    halves = [np.array_split(generator.permutation(images), 2) for _ in range(10)]
    unit = np.mean([frechet_distance(*half) for half in halves])
    samples = model.sample(len(images), QUICK, condition=labels, seed=seed, batch_size=256)
    distance = frechet_distance(samples, images)
    print(f"Frechet distance of the pixels: {distance:.3f}, {distance / unit:.2f} times that of two random halves")


def train(model: DDPM, images: np.ndarray, labels: np.ndarray | None, arguments: argparse.Namespace) -> None:
    steps = arguments.epochs * -(-len(images) // arguments.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=2e-3, warmup_steps=steps // 20)
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.995))
    start = time.time()
    model.fit(
        images,
        labels,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        callbacks=[
            keras.callbacks.BackupAndRestore(arguments.output / "backup", double_checkpoint=True),
            keras.callbacks.CSVLogger(arguments.output / "loss.csv", append=(arguments.output / "backup").exists()),
            SampleGrid(
                arguments.output / "epoch_{epoch:04d}.png",
                every=max(1, arguments.epochs // 4),
                sampler=QUICK,
                condition=None if labels is None else np.arange(16) % (labels.max() + 1),
            ),
        ],
        verbose=2,
    )
    print(f"trained in {time.time() - start:.0f} s")


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
    output.mkdir(parents=True, exist_ok=True)

    network = build_network(arguments.backbone, images.shape[1:], num_classes)
    model = DDPM(network, SCHEDULES[arguments.schedule](), seed=arguments.seed)
    print(f"{keras.backend.backend()}: {len(images)} images of {images.shape[1:]}, {network.count_params():,} weights")
    train(model, images, labels, arguments)
    model.save(output / "model.keras")
    print(f"wrote {output / 'model.keras'}")
    save_loss_curve(output / "loss.png", output / "loss.csv")

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
