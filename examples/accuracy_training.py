"""EXACT, https://kexue.fm/archives/9098: training the expected accuracy under noise, compared with cross-entropy.

    KERAS_BACKEND=jax python examples/accuracy_training.py
    KERAS_BACKEND=jax python examples/accuracy_training.py --dataset mnist --epochs 20

Two negative points, at -0.25 and 0, and a positive one, at 0.25, are to be separated by f = x - b: every b in (0, 0.25)
classifies all three correctly. Cross-entropy and hinge loss are smallest at another b. The expected error is not, if
its sigma is small; but neither is the cross-entropy of k f for a large k, so all that is missing is a temperature.

Then a network learns digits, 20% of which are mislabelled. In the long run cross-entropy memorizes the wrong labels.
The expected error does not, but it hardly corrects what is far wrong, such as a whole class that is missed, unless
training starts with cross-entropy. Writes a picture to `--output`, and prints the figures.
"""

import math
from typing import Any

import keras
import numpy as np
from datasets import load_split
from shared import full_or_smoke, parser, save_panels

from keras_gen.losses import ExpectedError

POINTS, SIGNS = np.array([-0.25, 0, 0.25]), np.array([-1, -1, 1])
B = np.arange(-0.25, 1.9005, 0.001)  # the thresholds that are compared
MARGINS = SIGNS * (POINTS - B[:, None])  # y f
HINGE = np.maximum(0, 1 - MARGINS).mean(axis=1)
WRONG = 0.2  # share of wrong labels


def cross_entropy(k: float) -> np.ndarray:
    return np.logaddexp(0, -k * MARGINS).mean(axis=1)


def expected_error(sigma: float) -> np.ndarray:
    """Returns the loss for noise of f: that of the difference of two logits, f and 0, is sqrt(2) times as large."""
    f = (POINTS - B[:, None]).astype("float32")
    labels = np.broadcast_to(SIGNS < 0, f.shape).astype("int32")  # class 0 is the positive one
    loss = ExpectedError(sigma / math.sqrt(2), reduction=None)(labels, np.stack([f, 0 * f], axis=-1))
    return keras.ops.convert_to_numpy(loss).mean(axis=1)


def print_points() -> None:
    exact = np.array([[0.5 * math.erfc(m / 0.1 / math.sqrt(2)) for m in row] for row in MARGINS]).mean(axis=1)
    print(f"sigma 0.1: closed form, mean of Phi(-y f / sigma), to {np.abs(expected_error(0.1) - exact).max():.1e}")
    rows = [("hinge loss", HINGE, 0.75), ("cross-entropy", cross_entropy(1), 0.7001)]
    rows += [(f"cross-entropy of {k} f", cross_entropy(k), b) for k, b in ((5, 0.1726), (10, 0.1312), (20, 0.1252))]
    known = {0.05: 0.1250, 0.1: 0.1251, 0.2: 0.1512, 0.5: 0.5400, 1.0: B[-1]}  # the last is the end of the grid
    rows += [(f"expected error, sigma {sigma}", expected_error(sigma), b) for sigma, b in known.items()]
    for name, losses, b in rows:
        right = (SIGNS * (POINTS - B[losses.argmin()]) > 0).sum()
        print(f"{name:26} b = {B[losses.argmin()]:.3f}, known {b:.4f}, {right} of 3 right")


def accuracies(plan: list[Any], data: Any, batch_size: int, seed: list[int]) -> list[float]:
    """Returns the accuracy on the test images after each epoch, for a plan of losses and their epochs."""
    (x, y), test = data
    classes = int(y.max()) + 1
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(len(y)) < WRONG, (y + rng.integers(1, classes, len(y))) % classes, y)
    keras.utils.set_random_seed(sum(seed))
    layers = keras.layers.Flatten(), keras.layers.Dense(128, "relu"), keras.layers.Dense(classes)
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    curve = []
    for loss, epochs in plan:
        model.compile(keras.optimizers.Adam(2e-3), loss, metrics=["accuracy"])
        curve += model.fit(x, y, batch_size, epochs, validation_data=test, verbose=0).history["val_accuracy"]
    return curve


def draw_losses(axes: Any) -> None:
    curves = {"cross-entropy": cross_entropy(1), "hinge loss": HINGE}
    curves |= {rf"expected error, $\sigma$ = {sigma}": expected_error(sigma) for sigma in (0.1, 0.5, 1.0)}
    axes.axvspan(0, 0.25, color="0.88")
    for name, losses in curves.items():
        [line] = axes.plot(B, losses, label=name)
        axes.plot(B[losses.argmin()], losses.min(), "o", color=line.get_color())
    for x, sign in zip(POINTS, "\N{MINUS SIGN}\N{MINUS SIGN}+", strict=True):
        axes.text(x, -0.12, sign, ha="center", va="center", bbox={"boxstyle": "circle", "facecolor": "white"})
    axes.set(title="three points, f = x $-$ b; gray: all right", xlabel="b", ylabel="mean loss", ylim=(-0.25, 1.6))
    axes.legend(fontsize=7, loc="upper right")


def draw_scales(axes: Any) -> None:
    scales = np.geomspace(0.04, 1.2, 40)
    axes.axhspan(0, 0.25, color="0.88")
    axes.plot(scales, [B[cross_entropy(1 / s).argmin()] for s in scales], "C0", label="cross-entropy of k f, 1 / k")
    axes.plot(scales, [B[expected_error(s).argmin()] for s in scales], "C2", label=r"expected error, $\sigma$")
    axes.plot(1, B[cross_entropy(1).argmin()], "o", color="C0")
    axes.set(title="b of the smallest loss, by scale", xlabel=r"1 / k, or $\sigma$", ylabel="b", xscale="log")
    axes.legend(fontsize=7)


def draw_training(axes: Any, results: dict[str, np.ndarray]) -> None:
    for (name, curves), color in zip(results.items(), ("C0", "C2", "C4"), strict=True):
        axes.plot(np.arange(1, curves.shape[1] + 1), curves.T, color, label=[name, *[None] * (len(curves) - 1)])
    axes.set(title=f"{WRONG:.0%} wrong labels, {len(curves)} seeds", xlabel="epoch", ylabel="accuracy, right labels")
    axes.legend(fontsize=7)


def main() -> None:
    arguments = parser(__doc__, "accuracy_training", epochs=40, batch_size=128).parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    print_points()
    start, loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True), ExpectedError(1.0)
    epochs, first = arguments.epochs, max(1, arguments.epochs // 4)
    plans = {"cross-entropy": [(start, epochs)], "expected error": [(loss, epochs)]}
    plans["both, one after the other"] = [(start, first), (loss, max(1, epochs - first))]
    data, results = load_split(arguments.dataset, arguments.size), {}
    for name, plan in plans.items():
        runs = [accuracies(plan, data, arguments.batch_size, [arguments.seed, k]) for k in range(full_or_smoke(5, 1))]
        results[name] = np.array(runs)
        last, top = results[name][:, -1], results[name].max(axis=1)
        print(f"{name}: accuracy {last.mean():.4f} {np.round(last, 4)}, at its best epoch {top.mean():.4f}")
    draws = draw_losses, draw_scales, lambda axes: draw_training(axes, results)
    save_panels(arguments.output / "accuracy_training.png", draws, columns=3, width=3.8, height=3)


if __name__ == "__main__":
    main()
