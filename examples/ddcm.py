"""Diffusion as compression (DDCM), https://kexue.fm/archives/10711: noise from a codebook, images as codebook indices.

    KERAS_BACKEND=jax python examples/ddcm.py

Takes the model of `examples/ddpm.py`: that of `--model`, or the one next to `--output`, which is trained first if it
is missing. Each step of the sampler uses one of K fixed noise vectors instead of fresh noise; an image is encoded as
the indices that lead to it. Writes reconstructions from few and from many bits, samples of random indices, and the
error (PSNR) against the bits per image to `--output`. The images belong to the training set.
"""

import math
import pathlib
from typing import Any

import numpy as np
from datasets import load_images
from ddpm import load_or_train, sampling_parser
from shared import full_or_smoke, save_figure, save_picture, save_rows

from keras_gen.samplers import CodebookDiffusion, DDPMSampler

STEPS = full_or_smoke((25, 50, 100, 200), (3,))
SIZES = full_or_smoke((4, 16, 64, 256), (4,))
SHOWN = full_or_smoke(((25, 4), (25, 16), (25, 256), (100, 64)), ((3, 4),))


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of pixels in [-1, 1], in decibels."""
    return 20 * math.log10(2) - 10 * math.log10(float(np.mean((x - y) ** 2)))


def save_curves(path: pathlib.Path, curves: dict[int, list[tuple[float, float]]]) -> None:
    def draw(axes: Any) -> None:
        for steps, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=f"{steps} steps")
        axes.set(xlabel="bits of an image", ylabel="PSNR, dB", xscale="log")
        axes.set_title(f"codebooks of {', '.join(map(str, SIZES))}")
        axes.grid(alpha=0.3)
        axes.legend()

    save_figure(path, draw)


def main() -> None:
    arguments = sampling_parser(__doc__, "ddcm").parse_args()
    images, labels = load_images(arguments.dataset, arguments.size)
    model, labels = load_or_train(images, labels, arguments)
    count = full_or_smoke(64, 4)
    x, y = images[:count], None if labels is None else labels[:count]

    curves: dict[int, list[tuple[float, float]]] = {}
    rows = {"image": x[:16]}
    for steps in STEPS:
        for size in SIZES:
            codec = CodebookDiffusion(model, DDPMSampler(steps, clip_x0=1.0), size, arguments.seed)
            indices = codec.encode(x, y, verbose=0)
            again = codec.decode(indices, y, verbose=0)
            curves.setdefault(steps, []).append((codec.bits_per_image, psnr(x, again)))
            if (steps, size) in SHOWN:
                rows[f"{codec.bits_per_image:.0f} bits, {psnr(x, again):.1f} dB"] = again[:16]
            print(f"{steps} steps, {size} draws: {codec.bits_per_image:.0f} bits, PSNR {psnr(x, again):.2f} dB")
    raw = math.prod(x.shape[1:]) * math.log2(17 if arguments.dataset == "digits" else 256)
    save_rows(
        arguments.output / "reconstructions.png", rows, f"made again from bits; all pixels of an image take {raw:.0f}"
    )
    save_curves(arguments.output / "rate_distortion.png", curves)
    samples = codec.sample(count, y, seed=arguments.seed, verbose=0)
    save_picture(arguments.output / "samples.png", samples, 16)


if __name__ == "__main__":
    main()
