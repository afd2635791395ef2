"""Flows in the plane, https://kexue.fm/archives/5807: RealNVP and other flows on known densities.

    KERAS_BACKEND=jax python examples/realnvp_2d.py
    KERAS_BACKEND=torch python examples/realnvp_2d.py --flow spline --epochs 30

Points are uniform on curves, with Gaussian noise, or uniform on a checkerboard: so their true density is known. Flows
are continuous and map connected sets to connected sets: a thin bridge of density remains between the two moons.
`--flow continuous` solves an ODE in each training step and is many times slower than the others.

Writes data, samples and densities in one picture, and the models to `--output`; prints the log-likelihood of test
points under the flow and under the true density, and the integral of the flow's density.
"""

import pathlib
from typing import Any

import keras
import numpy as np
from shared import number_of_steps, save_figure, train, training_parser, warm_cosine

from keras_gen.layers import ActNorm, Chain, ContinuousFlow, MaskedAutoregressive, Permutation, SplineCoupling
from keras_gen.models import Flow, RealNVP

NOISE = 0.15
SIDE, CELLS = 4.0, 160  # half side and cells per side of the plotted square


def moons(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    angle, lower = 2 * np.pi * t % np.pi, t >= 0.5
    x, y = np.where(lower, 1 - np.cos(angle), np.cos(angle)), np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    return 1.6 * (x - 0.5), 1.6 * (y - 0.25)


def circles(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius, angle = np.where(t < 0.5, 1.2, 2.6), 4 * np.pi * t
    return radius * np.cos(angle), radius * np.sin(angle)


def spirals(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    way = np.sqrt(2 * t % 1)
    radius, angle = np.where(t < 0.5, 3, -3) * way, 2 * np.pi * way
    return radius * np.cos(angle), radius * np.sin(angle)


CURVES = {"moons": moons, "circles": circles, "spirals": spirals}
NAMES = [*CURVES, "checkerboard"]


def draw_points(name: str, n: int, seed: int) -> np.ndarray:
    """Draws points in the plane: float32 `(n, 2)`."""
    generator = np.random.default_rng(seed)
    if name == "checkerboard":
        column, row, place = generator.integers(4, size=n), generator.integers(2, size=n), generator.random((n, 2))
        corners = np.stack([1.5 * (column - 2), 1.5 * (2 * row - 2 + column % 2)], axis=1)
        return (corners + 1.5 * place).astype("float32")
    points = np.stack(CURVES[name](generator.random(n)), axis=1)
    return (points + NOISE * generator.standard_normal((n, 2))).astype("float32")


def true_log_density(name: str, points: np.ndarray) -> np.ndarray:
    """Returns the log-density of the distribution of `draw_points`, `(n,)`."""
    if name == "checkerboard":
        return np.full(len(points), -np.log(8 * 1.5**2))
    centers = np.stack(CURVES[name]((np.arange(1000) + 0.5) / 1000), axis=1)
    squares = (points**2).sum(1)[:, None] + (centers**2).sum(1) - 2 * points @ centers.T
    return np.log(np.exp(-0.5 * squares / NOISE**2).mean(1) / (2 * np.pi * NOISE**2))


def build_flow(kind: str, seed: int) -> Flow:
    if kind == "affine":
        return RealNVP(16, units=(64, 64), seed=seed)
    if kind == "spline":
        pairs = [(ActNorm(), SplineCoupling(units=(64, 64), flip=i % 2 == 1)) for i in range(6)]
    elif kind == "autoregressive":
        pairs = [(ActNorm(), MaskedAutoregressive(units=(64, 64)), Permutation("reverse")) for _ in range(8)]
    else:
        pairs = [(ActNorm(), ContinuousFlow(units=(64, 64), steps=8))]
    return Flow(Chain([bijector for pair in pairs for bijector in pair]), seed=seed)


def save_densities(path: pathlib.Path, rows: list[list[np.ndarray]], columns: list[str]) -> None:
    """Plots rows of densities on the square, each column on the scale of its data."""
    brightest = [np.quantile(data, 0.99) for data in rows[0]]
    tiles = np.block([[tile / top for tile, top in zip(row, brightest, strict=True)] for row in rows])

    def draw(axes: Any) -> None:
        axes.imshow(tiles, vmin=0, vmax=1, cmap="inferno")
        for edge in range(CELLS, max(tiles.shape), CELLS):
            for line, size in ((axes.axhline, tiles.shape[0]), (axes.axvline, tiles.shape[1])):
                if edge < size:
                    line(edge - 0.5, color="white")
        axes.set_xticks(CELLS * (np.arange(len(columns)) + 0.5), columns)
        axes.set_yticks(CELLS * (np.arange(3) + 0.5), ["data", "samples", "density"], rotation=90, va="center")
        axes.tick_params(length=0)

    save_figure(path, draw, 2 * len(columns) + 0.4, 6.4)


def main() -> None:
    parser = training_parser(__doc__, "realnvp_2d", epochs=40, batch_size=512)
    parser.add_argument("--flow", choices=["affine", "spline", "autoregressive", "continuous"], default="affine")
    parser.add_argument("--distributions", nargs="+", choices=NAMES, default=NAMES)
    arguments = parser.parse_args()

    edges = np.linspace(-SIDE, SIDE, CELLS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    grid = np.stack(np.meshgrid(middles, middles[::-1]), axis=-1).reshape(-1, 2).astype("float32")
    area = (2 * SIDE / CELLS) ** 2

    def histogram(points: np.ndarray) -> np.ndarray:
        counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=edges)
        return counts[::-1] / (len(points) * area)

    columns = []
    for name in arguments.distributions:
        keras.utils.set_random_seed(arguments.seed)
        points, test = draw_points(name, 20_000, arguments.seed), draw_points(name, 2_000, arguments.seed + 1)
        model = build_flow(arguments.flow, arguments.seed)
        rate = warm_cosine(5e-3, number_of_steps(arguments, len(points)))
        model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.99, clipnorm=10.0))
        train(model, points, None, arguments, validation_data=(test, None), folder=name)

        log_p = model.log_prob(np.concatenate([grid, test]), batch_size=8192, verbose=0)
        density, nats = np.exp(log_p[: len(grid)]).reshape(CELLS, CELLS), log_p[len(grid) :].mean()
        samples = model.sample(20_000, seed=arguments.seed, batch_size=8192, verbose=0)
        columns.append([histogram(points), histogram(samples), density])
        true = true_log_density(name, test).mean()
        print(f"{name}: {nats:.3f} nats (the true density: {true:.3f}), integral {density.sum() * area:.4f}")

    rows = [list(row) for row in zip(*columns, strict=True)]
    save_densities(arguments.output / "densities.png", rows, arguments.distributions)


if __name__ == "__main__":
    main()
