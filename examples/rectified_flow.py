"""Rectified flow, https://kexue.fm/archives/9497: straight trajectories from noise to data, straightened by reflow.

    KERAS_BACKEND=jax python examples/rectified_flow.py
    KERAS_BACKEND=jax python examples/rectified_flow.py --pairing optimal

First in the plane, from a Gaussian to a ring of eight: sampling trajectories for random and for optimal pairs, before
and after reflow. Then for images, scikit-learn's digits by default: samples in 1 to 20 steps, before and after reflow.
Writes pictures, loss curves and models to `--output`; prints the straightness of the trajectories, the error of one
step against a hundred, and Frechet distances of the pixels, relative to that of two random halves of the data. An
interrupted run resumes, and a stage whose model exists is not trained again.
"""

import argparse
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from datasets import count_classes, load_images
from ddpm import build_network, frechet_unit
from keras import ops
from shared import (
    as_count,
    full_or_smoke,
    loaded_or_trained,
    number_of_steps,
    parser,
    save_panels,
    save_row_panels,
    train,
    warm_cosine,
)

from keras_gen.layers import SinusoidalEmbedding
from keras_gen.metrics import frechet_distance
from keras_gen.models import RectifiedFlow
from keras_gen.samplers import EulerSampler
from keras_gen.schedules import LogitNormalTime

STEPS = full_or_smoke(100, 1)  # of Euler's method, where its error must be negligible


def ring(n: int, seed: int) -> np.ndarray:
    """Draws points near eight centers on a circle of radius 3."""
    generator = np.random.default_rng(seed)
    angle = generator.integers(8, size=n) * np.pi / 4
    points = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.2 * generator.standard_normal((n, 2))
    return points.astype("float32")


def build_plane_network() -> keras.Model:
    x, t = keras.Input((2,)), keras.Input(())
    h = ops.concatenate([x, SinusoidalEmbedding(32)(t / 100)], axis=-1)
    for _ in range(3):
        h = keras.layers.Dense(128, "swish")(h)
    return keras.Model([x, t], keras.layers.Dense(2)(h))


def compile_model(model: RectifiedFlow, rate: float, updates: int) -> None:
    model.compile(keras.optimizers.Adam(warm_cosine(rate, updates), use_ema=True, ema_momentum=0.995))


def one_step_error(model: RectifiedFlow, condition: np.ndarray | None, n: int, seed: int) -> float:
    """Returns the root mean square difference between samples in one step and in many."""
    options = {"condition": condition, "seed": seed, "batch_size": 1000, "verbose": 0}
    one, many = (model.sample(n, EulerSampler(steps), **options) for steps in (1, STEPS))
    return float(np.sqrt(np.mean((one - many) ** 2)))


def plane_panel(model: RectifiedFlow, title: str, data: np.ndarray, seed: int) -> Callable[[Any], None]:
    """Prints the straightness of a model's trajectories, and returns a function that plots some of them."""
    n = full_or_smoke(2000, 8)
    options = {"seed": seed, "batch_size": 1000, "verbose": 0}
    straightness, error = model.straightness(n, steps=STEPS, **options), one_step_error(model, None, n, seed)
    print(f"{title}: straightness {straightness:.3f}, error of one step {error:.3f}")
    ways = model.denoising_path(full_or_smoke(60, n), STEPS, EulerSampler(STEPS), **options)

    def draw(axes: Any) -> None:
        axes.scatter(*data[:300].T, s=3, color="0.75")
        axes.plot(*ways.transpose(2, 0, 1), color="C0", linewidth=0.6)
        axes.scatter(*ways[0].T, s=3, color="C2", zorder=2)
        axes.scatter(*ways[-1].T, s=3, color="C3", zorder=2)
        axes.set_title(f"{title}\nstraightness {straightness:.3f}\none step is off by {error:.2f}", fontsize=8)
        axes.set(xlim=(-4, 4), ylim=(-4, 4), xticks=[], yticks=[], aspect="equal")

    return draw


def run_plane(arguments: argparse.Namespace) -> None:
    plane = argparse.Namespace(**{**vars(arguments), "epochs": 30, "batch_size": 64})
    data, panels = ring(10_000, arguments.seed), []
    updates = number_of_steps(plane, len(data))
    for pairing in full_or_smoke(("random", "optimal"), ("optimal",)):

        def train_flow(pairing: str = pairing) -> RectifiedFlow:
            keras.utils.set_random_seed(arguments.seed)
            model = RectifiedFlow(build_plane_network(), pairing=pairing, seed=arguments.seed)
            compile_model(model, 3e-3, updates)
            train(model, data, None, plane, folder=f"plane_{pairing}")
            return model

        model = loaded_or_trained(arguments.output / f"plane_{pairing}" / "model.keras", train_flow)
        panels.append(plane_panel(model, f"{pairing} pairs", data, arguments.seed))
        compile_model(model, 1e-3, updates)
        model.reflow(
            len(data), sampling_seed=arguments.seed, epochs=plane.epochs, batch_size=plane.batch_size, verbose=0
        )
        panels.append(plane_panel(model, f"{pairing} pairs, after reflow", data, arguments.seed))
    save_panels(arguments.output / "paths.png", panels, 4, 2.1, 2.7)


def run_images(arguments: argparse.Namespace) -> None:
    images, labels = load_images(arguments.dataset, arguments.size)
    updates = number_of_steps(arguments, len(images))
    output, seed = arguments.output, arguments.seed

    def train_flow() -> RectifiedFlow:
        keras.utils.set_random_seed(seed)
        network = build_network("full", images.shape[1:], count_classes(labels))
        model = RectifiedFlow(network, time_sampler=LogitNormalTime(), pairing=arguments.pairing, seed=seed)
        compile_model(model, 2e-3, updates)
        train(model, images, labels, arguments, folder="images")
        return model

    model = loaded_or_trained(output / "images" / "model.keras", train_flow)
    kept = np.random.default_rng(seed).permutation(len(images))[: full_or_smoke(500, 16)]
    x, y = images[kept], None if labels is None else labels[kept]
    panels = {"before reflow": sample_images(model, x, y, frechet_unit(images, seed, len(x)), arguments)}

    pairs = full_or_smoke(arguments.pairs, 16)
    label = None if labels is None else np.random.default_rng(seed).choice(labels, pairs)
    epochs = max(1, arguments.epochs // 2)
    compile_model(model, 1e-3, epochs * -(-pairs // arguments.batch_size))
    model.reflow(
        pairs,
        label,
        EulerSampler(full_or_smoke(50, 1)),
        seed,
        epochs=epochs,
        batch_size=arguments.batch_size,
        verbose=2,
    )
    model.save(output / "reflowed.keras")
    print(f"wrote {output / 'reflowed.keras'}")
    panels["after reflow"] = sample_images(model, x, y, frechet_unit(images, seed, len(x)), arguments)
    save_row_panels(output / "images.png", panels)


def sample_images(
    model: RectifiedFlow, x: np.ndarray, y: np.ndarray | None, unit: float, arguments: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Returns the first samples in 1 to 20 steps, and prints the distance of all samples from the images."""
    rows = {}
    for steps in full_or_smoke((1, 2, 5, 20), (1,)):
        samples = model.sample(len(x), EulerSampler(steps), y, seed=arguments.seed, batch_size=250, verbose=0)
        name = "1 step" if steps == 1 else f"{steps} steps"
        rows[name] = samples[:16]
        print(f"{name}: Frechet distance {frechet_distance(samples, x) / unit:.2f} times that of two halves")
    n = full_or_smoke(100, 16)
    label = None if y is None else y[:n]
    straightness = model.straightness(n, label, full_or_smoke(50, 1), arguments.seed, verbose=0)
    print(f"straightness {straightness:.4f}, error of one step {one_step_error(model, label, n, arguments.seed):.3f}")
    return rows


def main() -> None:
    arguments = parser(__doc__, "rectified_flow", epochs=40)
    arguments.add_argument("--pairing", choices=("random", "optimal"), default="random", help="for the images")
    arguments.add_argument("--pairs", type=as_count, default=4000, help="of noise and sample, for the reflow of images")
    arguments = arguments.parse_args()
    run_plane(arguments)
    run_images(arguments)


if __name__ == "__main__":
    main()
