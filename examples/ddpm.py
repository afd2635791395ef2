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
from keras_gen.schedules import KexueSchedule


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--dataset", default="digits", help="digits, mnist, fashion_mnist, cifar10, an .npz file or a folder"
    )
    parser.add_argument("--size", type=int, default=64, help="height and width for the pictures of a folder")
    parser.add_argument("--backbone", choices=["full", "light"], default="full", help="which of the posts' two U-Nets")
    parser.add_argument("--conditional", action="store_true", help="learn the classes, and sample each of them")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs/ddpm"))
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def build_network(backbone: str, image_shape: tuple[int, ...], num_classes: int | None) -> keras.Model:
    if backbone == "light":
        if num_classes is not None:
            raise ValueError("`--conditional` must come with `--backbone full`. Received: --backbone light")
        return LightUNet(image_shape, widths=(64, 128) if image_shape[0] <= 16 else (64, 64, 128))
    if image_shape[0] <= 16:
        return UNet(image_shape, widths=(32, 64), attention_levels=(1,), num_classes=num_classes)
    return UNet(image_shape, widths=(32, 64, 128), attention_levels=(2,), num_classes=num_classes, dropout=0.1)


def save_picture(path: pathlib.Path, images: np.ndarray, columns: int) -> None:
    scale = max(1, 64 // images.shape[1])
    keras.utils.save_img(path, image_grid(images, columns, scale), data_format="channels_last", scale=False)
    print(f"wrote {path}")


def save_loss_curve(path: pathlib.Path, losses: list[float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    axes.plot(range(1, len(losses) + 1), losses)
    axes.set(xlabel="epoch", ylabel="training loss (mean squared error of eps)", yscale="log")
    figure.savefig(path, dpi=120)
    print(f"wrote {path}")


def main() -> None:
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    images, labels = load_images(arguments.dataset, arguments.size)
    if arguments.conditional and labels is None:
        raise ValueError(f"`--conditional` must come with labels. Received: --dataset {arguments.dataset}")
    labels = labels if arguments.conditional else None
    num_classes = None if labels is None else int(labels.max()) + 1
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)

    # Training
    network = build_network(arguments.backbone, images.shape[1:], num_classes)
    model = DDPM(network, KexueSchedule(), seed=arguments.seed)
    steps = arguments.epochs * -(-len(images) // arguments.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=2e-3, warmup_steps=steps // 20)
    model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.995))
    print(f"{keras.backend.backend()}: {len(images)} images of {images.shape[1:]}, {network.count_params():,} weights")
    quick = DDIMSampler(50, spacing="trailing", clip_x0=1.0)
    classes = None if labels is None else np.arange(100) // 10 % num_classes
    start = time.time()
    history = model.fit(
        images,
        labels,
        batch_size=arguments.batch_size,
        epochs=arguments.epochs,
        callbacks=[
            keras.callbacks.BackupAndRestore(output / "backup", double_checkpoint=True),
            keras.callbacks.CSVLogger(output / "loss.csv", append=True),
            SampleGrid(
                output / "epoch_{epoch:04d}.png",
                every=max(1, arguments.epochs // 5),
                sampler=quick,
                condition=None if classes is None else classes[:16],
            ),
        ],
        verbose=2,
    )
    print(f"trained in {time.time() - start:.0f} s")
