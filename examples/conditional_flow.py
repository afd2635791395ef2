"""Conditional flows, after https://kexue.fm/archives/5807: simulation-based inference of a posterior.

    KERAS_BACKEND=jax python examples/conditional_flow.py
    KERAS_BACKEND=torch python examples/conditional_flow.py --epochs 10

Simulation-based inference: draw theta from a prior and x from a simulator, and fit p(theta | x) to the pairs. The
simulator can be any program that draws samples. Two cases, in which the true posterior is known:

- `distances`: theta is a point in the plane, x its noisy distances to two stations. Its mirror image is equally
  likely: the posterior has two crescents.
- `linear`: x = A theta + noise, all Gaussian, and so is the posterior, with moments in closed form.

Writes both posteriors of three observations, with samples, and the models to `--output`; prints the divergence of the
flow from the posterior, as a mean over observations, and the errors of its moments.
"""

import pathlib
from typing import Any

import keras
import numpy as np
from shared import number_of_steps, save_figure, train, training_parser

from keras_gen.layers import ActNorm, Chain, SplineCoupling
from keras_gen.models import Flow

STATIONS = np.array([[-1.0, 0.0], [1.0, 0.0]])
MATRIX = np.array([[1.0, 0.5], [-0.3, 0.8]])
EFFECTS = {
    "distances": lambda theta: np.linalg.norm(theta[:, None] - STATIONS, axis=-1),
    "linear": lambda theta: theta @ MATRIX.T,
}
NOISE = np.array([0.15, 0.3])
SIDE, CELLS = 4.0, 120  # half side and cells per side of the square on which posteriors are computed
SHOWN = np.array([[1.2, 1.4], [2.4, 1.2], [0.7, 1.9]])


def simulate(case: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws pairs: theta from N(0, I), and x from the simulator. Both float32 `(n, 2)`."""
    generator = np.random.default_rng(seed)
    theta = generator.standard_normal((n, 2))
    x = EFFECTS[case](theta) + NOISE * generator.standard_normal((n, 2))
    return theta.astype("float32"), x.astype("float32")


def make_grid() -> tuple[np.ndarray, float]:
    """Returns the cell centers, from the top left to the bottom right, `(cells^2, 2)`, and a cell's area."""
    middles = SIDE * ((np.arange(CELLS) + 0.5) / CELLS * 2 - 1)
    grid = np.stack(np.meshgrid(middles, middles[::-1]), axis=-1).reshape(-1, 2)
    return grid.astype("float32"), (2 * SIDE / CELLS) ** 2


def true_posteriors(case: str, x: np.ndarray) -> np.ndarray:
    """Returns the density p(theta | x) on the grid, for each x: `(n, cells^2)`."""
    grid, area = make_grid()
    deviations = (x[:, None] - EFFECTS[case](grid.astype("float64"))) / NOISE
    log_joint = -0.5 * ((deviations**2).sum(-1) + (grid**2).sum(-1))
    joint = np.exp(log_joint - log_joint.max(1, keepdims=True))
    return joint / (joint.sum(1, keepdims=True) * area)


def build_flow(seed: int) -> Flow:
    pairs = [(ActNorm(), SplineCoupling(units=(64, 64), flip=i % 2 == 1, num_bins=12)) for i in range(6)]
    return Flow(Chain([bijector for pair in pairs for bijector in pair]), seed=seed)


def mean_divergence(model: Flow, case: str, x: np.ndarray) -> float:
    """Returns the mean over x of KL(p(theta | x) || flow), in nats."""
    grid, area = make_grid()
    density = true_posteriors(case, x)
    row, cell = np.nonzero(density > 1e-6)  # few cells: the others are negligible
    log_ratio = np.log(density[row, cell]) - model.log_prob(grid[cell], x[row], batch_size=8192, verbose=0)
    return (density[row, cell] * log_ratio).sum() * area / len(x)


def report_moments(model: Flow, x: np.ndarray, seed: int) -> None:
    """Prints the errors of the samples' mean and covariance against the Gaussian posterior, for the linear case."""
    precision = np.eye(2) + MATRIX.T @ np.diag(NOISE**-2) @ MATRIX
    covariance = np.linalg.inv(precision)
    means = x @ np.diag(NOISE**-2) @ MATRIX @ covariance
    draws = 1000
    samples = model.sample(len(x) * draws, x.repeat(draws, axis=0), seed=seed, batch_size=8192, verbose=0)
    samples = samples.reshape(len(x), draws, 2)
    centered = samples - samples.mean(1, keepdims=True)
    found = np.einsum("ndi,ndj->nij", centered, centered) / (draws - 1)
    error = np.sqrt(((samples.mean(1) - means) ** 2).mean())
    chance = np.sqrt(np.trace(covariance) / 2 / draws)
    print(f"linear: error of the posterior's mean {error:.4f}, {chance:.4f} by chance alone")
    print(f"linear: covariance {covariance.ravel().round(4)}, the flow's {found.mean(0).ravel().round(4)}")


def save_posteriors(path: pathlib.Path, model: Flow, x: np.ndarray, seed: int) -> None:
    """Draws, for each x in a row, the posterior, the flow's density and samples."""
    grid, area = make_grid()
    density = true_posteriors("distances", x)
    repeated = x.repeat(len(grid), axis=0)
    log_prob = model.log_prob(np.tile(grid, (len(x), 1)), repeated, batch_size=8192, verbose=0)
    samples = model.sample(len(repeated), repeated, seed=seed, batch_size=8192, verbose=0).reshape(len(x), -1, 2)
    edges = np.linspace(-SIDE, SIDE, CELLS + 1)
    counts = [np.histogram2d(s[:, 1], s[:, 0], bins=edges)[0][::-1] / (len(grid) * area) for s in samples]
    shape = len(x), CELLS, CELLS
    kinds = density.reshape(shape), np.exp(log_prob).reshape(shape), np.stack(counts)
    inner = slice(CELLS // 5, -CELLS // 5)
    tiles = np.block([[kind[i, inner, inner] / density[i].max() for kind in kinds] for i in range(len(x))])

    def draw(axes: Any) -> None:
        size = len(tiles) // len(x)
        axes.imshow(tiles, vmin=0, vmax=1, cmap="inferno")
        for edge in range(size, len(tiles), size):
            axes.axhline(edge - 0.5, color="white")
            axes.axvline(edge - 0.5, color="white")
        middles = size * (np.arange(3) + 0.5)
        axes.set_xticks(middles, ["exact posterior", "flow", "samples of the flow"])
        axes.set_yticks(middles, [f"x = ({a:.1f}, {b:.1f})" for a, b in x], rotation=90, va="center")
        axes.tick_params(length=0)

    save_figure(path, draw, 6.4, 6.4)


def main() -> None:
    arguments = training_parser(__doc__, "conditional_flow", epochs=20, batch_size=512).parse_args()
    for case in EFFECTS:
        keras.utils.set_random_seed(arguments.seed)
        theta, x = simulate(case, 50_000, arguments.seed)
        theta_test, x_test = simulate(case, 2_000, arguments.seed + 1)
        model = build_flow(arguments.seed)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, number_of_steps(arguments, len(x)))
        model.compile(keras.optimizers.Adam(rate, use_ema=True, ema_momentum=0.99, clipnorm=10.0))
        train(model, theta, x, arguments, validation_data=(theta_test, x_test), folder=case)

        print(f"{case}: KL(posterior || flow) {mean_divergence(model, case, x_test[:100]):.4f} nats")
        if case == "linear":
            report_moments(model, x_test[:100], arguments.seed)
        else:
            save_posteriors(arguments.output / "posterior.png", model, SHOWN.astype("float32"), arguments.seed)


if __name__ == "__main__":
    main()
