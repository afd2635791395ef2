"""Gradients through discrete choices, https://kexue.fm/archives/6705: bias and variance of the estimators.

    KERAS_BACKEND=jax python examples/gradient_estimators.py

Four categorical variables take the values 0, 1/2 and 1, and `f(b) = (mean of the values - 0.9)^2` is minimized. The 81
outcomes are enumerated, so that the true gradient of E f(b) with respect to the logits is known.

Every unbiased estimator evaluates f at three points for one estimate: REINFORCE at three draws, REBAR and RELAX at one
draw and at two relaxed ones, where they also use the derivative. RELAX's critic, f at a learned temperature plus a
small network, is trained by `fit` first. The moving average has converged to the mean of f, its best possible value.

The ranking depends on f: with the REBAR paper's target, 0.45, the minimum of the relaxed f is not at any draw, and
three draws are better spent on REINFORCE.

Writes two pictures to `--output`.
"""

import itertools
import pathlib
from typing import Any

import keras
import numpy as np
from keras import ops
from shared import as_count, base_parser, save_figure, write

from keras_gen.estimators import gumbel_rao, rebar, reinforce, relax, straight_through_gumbel
from keras_gen.layers import MovingAverage
from keras_gen.ops import gradient

VALUES = np.array([0, 0.5, 1], "float32")
TARGET = 0.9
VARIABLES, SETTINGS, RUNS = 4, 4, 64
OUTCOMES = np.eye(len(VALUES), dtype="float32")[list(itertools.product(range(len(VALUES)), repeat=VARIABLES))]


def f(b: Any) -> Any:
    return ops.square(ops.mean(ops.sum(ops.multiply(b, VALUES), axis=-1), axis=-1) - TARGET)


def enumerate_outcomes(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns E f(b) `(n,)` and its gradient for logits `(n, variables, values)`."""
    log_theta = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    weighted = np.exp(np.einsum("nvk,bvk->nb", log_theta, OUTCOMES)) * ops.convert_to_numpy(f(OUTCOMES))
    mean = weighted.sum(1)
    return mean, np.einsum("nb,bvk->nvk", weighted, OUTCOMES) - mean[:, None, None] * np.exp(log_theta)


class Critic(keras.Layer):
    """`eta f(softmax(z / temperature))` plus a small network with initial output 0: REBAR's critic before training."""

    def __init__(self):
        super().__init__()
        self.eta = self.add_weight(shape=(), initializer="ones")
        self.log_temperature = self.add_weight(shape=(), initializer=keras.initializers.Constant(np.log(0.5)))
        self.network = keras.Sequential(
            [
                keras.Input((VARIABLES, len(VALUES))),
                keras.layers.Flatten(),
                keras.layers.Dense(32, "tanh"),
                keras.layers.Dense(1, kernel_initializer="zeros"),
            ]
        )

    def call(self, z: Any) -> Any:
        # 0.1 is the scale of f: a network trained jointly with fast logits must not exceed it.
        return self.eta * f(ops.softmax(z * ops.exp(-self.log_temperature))) + 0.1 * self.network(z)[:, 0]


class Estimator(keras.Model):
    """Estimates E f(b) for given logits; `predict` returns the gradients, `fit` trains the critic only."""

    def __init__(self, estimate: Any, seed: int, average: Any = None, critic: Any = None):
        super().__init__()
        self.estimate, self.average, self.critic = estimate, average, critic
        self.seed, self.seed_generator = seed, keras.random.SeedGenerator(seed)

    def call(self, logits: Any) -> Any:
        # A fixed seed, as no state may change while a derivative is computed; hence predict in one batch.
        return gradient(lambda logits: self.estimate(self, logits, self.seed, training=False), logits)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return ops.mean(self.estimate(self, x, self.seed_generator, training=training))


class Learner(Estimator):
    """Minimizes E f(b) over its own logits, in many runs at once: each row of the batch is an independent run."""

    def __init__(self, *arguments: Any, **parts: Any):
        super().__init__(*arguments, **parts)
        self.logits = self.add_weight(shape=(RUNS, VARIABLES, len(VALUES)), initializer="zeros")

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return super().compute_loss(self.logits + x, training=training)


def average_baseline(model: Estimator, logits: Any, seed: Any, training: bool) -> Any:
    return reinforce(f, logits, lambda values: model.average(values, training=training), num_samples=3, seed=seed)


# name -> (evaluations of f, estimate, jointly trained parts)
ESTIMATORS = {
    "REINFORCE": (3, lambda model, logits, seed, training: reinforce(f, logits, num_samples=3, seed=seed), {}),
    "with moving average": (3, average_baseline, {"average": MovingAverage}),
    "with leave-one-out": (
        3,
        lambda model, logits, seed, training: reinforce(f, logits, "leave_one_out", num_samples=3, seed=seed),
        {},
    ),
    "REBAR": (3, lambda model, logits, seed, training: rebar(f, logits, seed=seed), {}),
    "RELAX": (3, lambda model, logits, seed, training: relax(f, logits, model.critic, seed=seed), {"critic": Critic}),
    "straight-through": (1, lambda model, logits, seed, training: straight_through_gumbel(f, logits, seed=seed), {}),
    "Gumbel-Rao": (1, lambda model, logits, seed, training: gumbel_rao(f, logits, seed=seed), {}),
}
UNBIASED = list(ESTIMATORS)[:5]


def measure(name: str, settings: np.ndarray, samples: int, seed: int) -> dict[str, float]:
    """Returns the bias of an estimator, its standard error, the largest z-score and the variance."""
    _, estimate, parts = ESTIMATORS[name]
    model = Estimator(estimate, seed, **{part: make() for part, make in parts.items()})
    objective, exact = enumerate_outcomes(settings)
    if model.average:
        model.average(ops.convert_to_tensor(objective), training=True)  # its value after many steps
    if model.critic:
        model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.02, 1000)))
        model.fit(np.tile(settings, (5000, 1, 1)), batch_size=200, epochs=10, verbose=0)
    estimates = model.predict(np.tile(settings, (samples, 1, 1)), batch_size=samples * len(settings), verbose=0)
    estimates = estimates.reshape(samples, *settings.shape).astype("float64")
    difference, variance = estimates.mean(0) - exact, estimates.var(0)
    scale = np.linalg.norm(exact)
    return {
        "bias": np.linalg.norm(difference) / scale,
        "chance": np.sqrt(variance.sum() / samples) / scale,
        "z": np.abs(difference / np.sqrt(variance / samples)).max(),
        "variance": variance.sum() / scale**2,
    }


def learn(name: str, seed: int) -> list[float]:
    """Returns the mean over runs of E f(b) after every 5 steps, with one estimate per step."""
    _, estimate, parts = ESTIMATORS[name]
    model = Learner(estimate, seed, **{part: make() for part, make in parts.items()})
    model.compile(keras.optimizers.Adam(0.05))
    curve = [enumerate_outcomes(np.zeros((1, VARIABLES, len(VALUES))))[0].mean()]

    def record(epoch: int, logs: Any) -> None:
        curve.append(enumerate_outcomes(ops.convert_to_numpy(model.logits))[0].mean())

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=record)]
    rows = np.zeros((5 * RUNS, VARIABLES, len(VALUES)), "float32")
    model.fit(rows, batch_size=RUNS, epochs=40, verbose=0, callbacks=callbacks)
    return curve


def print_table(results: dict[str, dict[str, float]]) -> None:
    print(f"\n{'estimator':21}{'points of f':>12}{'bias':>9}{'chance':>9}{'max |z|':>9}{'variance':>10}")
    for name, row in results.items():
        numbers = f"{row['bias']:9.4f}{row['chance']:9.4f}{row['z']:9.1f}{row['variance']:10.3f}"
        print(f"{name:21}{ESTIMATORS[name][0]:12}{numbers}")
    print("bias, its part by chance: norm / norm of the true gradient; variance: sum / its square\n")


def draw_figure(results: dict[str, dict[str, float]], path: pathlib.Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for unbiased, color in ((True, "C0"), (False, "C1")):
        rows = {name: row for name, row in results.items() if (name in UNBIASED) == unbiased}
        names = [f"{name} ({ESTIMATORS[name][0]})" for name in rows]
        label = "unbiased" if unbiased else "biased"
        bars = left.barh(names, [row["variance"] for row in rows.values()], color=color, label=label)
        left.bar_label(bars, fmt="%.2g", padding=3)
        chance = right.barh(names, [2 * row["chance"] for row in rows.values()], color="0.85")
        right.scatter([row["bias"] for row in rows.values()], names, color=color, zorder=2)
    left.invert_yaxis()
    left.margins(x=0.2)
    left.set(xscale="log", xlabel="variance / |gradient|$^2$", ylabel="estimator (points of f)")
    left.legend()
    right.set(xscale="log", xlabel="|mean of estimates - gradient| / |gradient|")
    right.legend([chance], ["2 standard errors"])
    write(figure, path)


def draw_curves(curves: dict[str, list[float]], path: pathlib.Path) -> None:
    def draw(axes: Any) -> None:
        for name, curve in curves.items():
            axes.plot(5 * np.arange(len(curve)), curve, label=name, linestyle="-" if name in UNBIASED else "--")
        axes.set(xlabel="step", ylabel=f"E f(b), mean of {RUNS} runs", yscale="log")
        axes.legend()

    save_figure(path, draw, 6, 3.6)


def main() -> None:
    parser = base_parser(__doc__, "gradient_estimators")
    parser.add_argument(
        "--samples", type=as_count, default=10_000, help="estimates at each of the settings of the logits"
    )
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    arguments.output.mkdir(parents=True, exist_ok=True)

    shape = (SETTINGS, VARIABLES, len(VALUES))
    settings = np.random.default_rng(arguments.seed).normal(size=shape).astype("float32")
    results = {name: measure(name, settings, arguments.samples, arguments.seed) for name in ESTIMATORS}
    print_table(results)
    draw_figure(results, arguments.output / "estimators.png")
    draw_curves({name: learn(name, arguments.seed) for name in ESTIMATORS}, arguments.output / "learning.png")


if __name__ == "__main__":
    main()
