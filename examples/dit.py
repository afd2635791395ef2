"""Diffusion without a U-Net, https://kexue.fm/archives/9984: transformers over image patches, on digits by default.

    KERAS_BACKEND=jax python examples/dit.py
    KERAS_BACKEND=torch python examples/dit.py --backbone pixel --epochs 20

`dit` modulates its blocks by time and label (adaLN-Zero); `pixel` is the post's: gated attention units, with the time
embedding added to the tokens. Writes samples, the loss curve and the model to `--output`. An interrupted run resumes
from its last epoch.
"""

import argparse

import keras
import numpy as np
from datasets import count_classes, load_images
from shared import as_count, number_of_steps, parser, save_picture, train, warm_cosine

from keras_gen.callbacks import SampleGrid
from keras_gen.models import DDPM, DiT, PixelTransformer
from keras_gen.samplers import DDIMSampler
from keras_gen.schedules import CosineSchedule

QUICK = DDIMSampler(50, spacing="trailing", clip_x0=1.0)
# Two gated attention units have about the same number of weights as one transformer block.
BACKBONES = {"dit": (DiT, 4), "pixel": (PixelTransformer, 8)}


def parse_arguments() -> argparse.Namespace:
    arguments = parser(__doc__, "dit", epochs=40)
    arguments.add_argument(
        "--backbone", choices=BACKBONES, default="dit", help="blocks steered by the time, or the post's"
    )
    arguments.add_argument(
        "--patch-size", type=as_count, default=None, help="2 for images up to 16 pixels wide, else 4"
    )
    arguments.add_argument("--width", type=as_count, default=96, help="channels of a token")
    arguments.add_argument("--depth", type=as_count, default=None, help="number of blocks (4) or units (8)")
    arguments.add_argument("--unconditional", action="store_true", help="do not use the labels")
    return arguments.parse_args()


def main() -> None:
    arguments = parse_arguments()
    keras.utils.set_random_seed(arguments.seed)
    output = arguments.output
    images, labels = load_images(arguments.dataset, arguments.size)
    if arguments.unconditional:
        labels = None
    num_classes = count_classes(labels)

    patch_size = arguments.patch_size or (2 if images.shape[1] <= 16 else 4)
    backbone, depth = BACKBONES[arguments.backbone]
    size = {"patch_size": patch_size, "width": arguments.width, "depth": arguments.depth or depth}
    network = backbone(images.shape[1:], num_classes=num_classes, **size)
    print(f"{network.count_params():,} weights")
    # v has a similar scale at all times; eps dominates the input at late times and hardly contributes at early ones.
    model = DDPM(network, CosineSchedule(), prediction="v", seed=arguments.seed)
    rate = warm_cosine(2e-3, number_of_steps(arguments, len(images)))
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0, use_ema=True, ema_momentum=0.995))
    grid = SampleGrid(
        output / "epoch_{epoch:04d}.png",
        every=max(1, arguments.epochs // 4),
        sampler=QUICK,
        condition=None if labels is None else np.arange(16) % num_classes,
    )
    train(model, images, labels, arguments, [grid])

    rows, columns = 8, 10
    condition = None if labels is None else np.tile(np.arange(columns) % num_classes, rows)
    samples = model.sample(rows * columns, QUICK, condition, seed=arguments.seed, batch_size=80)
    save_picture(output / "samples.png", samples, columns)


if __name__ == "__main__":
    main()
