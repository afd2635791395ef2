"""Softmax and cross-entropy for several labels (https://kexue.fm/archives/7359, 9064), and its n x m attempt (9158).

    KERAS_BACKEND=jax python examples/multi_label.py

Which digit lies where? A canvas of 5 x 5 cells holds 1 to 4 digits: 250 labels, of which 1% are positive. The network
learns them by `multilabel_crossentropy`, and by binary cross-entropies; a label is found where its logit is > 0.

For n items and m classes, post 9158 tries two sums. l1 is the softmax cross-entropy if each class has one item. l3,
with the mean of the logits, fails for hard labels, as the post says: for logits (10, 5, -5) and the second class it is
small. Writes a picture to `--output`, and prints F1 on canvases of test images, and the values of l1 and l3.
"""

import argparse
from typing import Any

import keras
import numpy as np
from datasets import load_split
from shared import full_or_smoke, parser, save_panels

from keras_gen.losses import multilabel_crossentropy

CELLS, SIDE = 5, 8
FAILURE, SECOND = np.array([[10.0, 5, -5]]), np.eye(3)[[1]]


def canvases(images: np.ndarray, labels: np.ndarray, n: int, seed: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns n canvases, and labels `(n, 250)` by row, column and class."""
    rng = np.random.default_rng(seed)
    images = keras.ops.convert_to_numpy(keras.ops.image.resize(images, (SIDE, SIDE)))
    x = np.full((n, CELLS, SIDE, CELLS, SIDE, images.shape[-1]), images.min(), "float32")
    y = np.zeros((n, CELLS, CELLS, 10), "int32")
    for canvas in range(n):
        for cell in rng.choice(CELLS**2, rng.integers(1, 5), replace=False):
            row, column, image = cell // CELLS, cell % CELLS, rng.integers(len(images))
            x[canvas, row, :, column] = images[image]
            y[canvas, row, column, labels[image]] = 1
    return x.reshape(n, CELLS * SIDE, CELLS * SIDE, -1), y.reshape(n, -1)


def f1(y: np.ndarray, s: np.ndarray, threshold: float = 0) -> float:
    return float(2 * (y * (s > threshold)).sum() / (y.sum() + (s > threshold).sum()))


def learn(loss: Any, train: Any, x: np.ndarray, arguments: argparse.Namespace, seed: int) -> list[np.ndarray]:
    """Returns the logits of the canvases x after each epoch."""
    keras.utils.set_random_seed(arguments.seed + seed)
    layers = [keras.layers.Conv2D(width, 3, 2, "same", activation="relu") for width in (16, 32, 64)]
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers, keras.layers.Conv2D(10, 1), keras.layers.Flatten()])
    model.compile(keras.optimizers.Adam(2e-3), loss)
    logits: list[np.ndarray] = []
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: logits.append(model.predict(x, verbose=0)))
    model.fit(*train, arguments.batch_size, arguments.epochs, verbose=0, callbacks=[keep])
    return logits


def l1(s: np.ndarray, t: np.ndarray) -> float:
    return float(np.log(1 + (t * (np.exp(s).sum(axis=1, keepdims=True) * np.exp(-s) - 1)).sum(axis=0)).sum())


def l3(s: np.ndarray, t: np.ndarray) -> float:
    return float(np.log(1 + (t * np.exp(s.mean(axis=1, keepdims=True) - s)).sum(axis=0)).sum())


def print_attempt() -> None:
    three = np.array([[2.0, 1, 0], [0, 1, 3], [1, 1, 1]]), np.eye(3)[[0, 2, 1]], "l1 1.6760643, l3 1.1794169"
    for s, t, known in (three, (FAILURE, SECOND, "l1 5.0067157, l3 0.1730080")):
        softmax = -(t * (s - np.log(np.exp(s).sum(axis=1, keepdims=True)))).sum()
        print(f"softmax cross-entropy {softmax:.7f}, l1 {l1(s, t):.7f}, l3 {l3(s, t):.7f}; known: {known}")


def draw_canvases(axes: Any, x: np.ndarray, y: np.ndarray, s: np.ndarray) -> None:
    axes.imshow(np.concatenate(x, axis=1)[..., 0], cmap="gray")
    y, s = (values.reshape(-1, CELLS, CELLS, 10) > 0 for values in (y, s))
    for labels, color in ((s & y, "lime"), (s & ~y, "red"), (~s & y, "orange")):
        for canvas, row, column, digit in np.argwhere(labels):
            axes.text((canvas * CELLS + column + 1) * SIDE - 1, row * SIDE + 2, digit, color=color, weight="bold")
    axes.vlines(np.arange(1, len(x)) * CELLS * SIDE - 0.5, -0.5, CELLS * SIDE - 0.5, "white")
    axes.set(title="found: green, wrongly: red, missed: orange", xticks=[], yticks=[])


def draw_f1(axes: Any, curves: dict[str, np.ndarray]) -> None:
    for color, (name, runs) in zip(("C1", "C0"), curves.items(), strict=True):
        axes.plot(np.arange(1, runs.shape[1] + 1), runs.T, color, label=[name, None, None][: len(runs)])
    axes.set(title="1% of 250 labels are positive", xlabel="epoch", ylabel="F1 on test canvases", ylim=(0, 1))
    axes.legend(title="cross-entropy", fontsize=8)


def draw_attempt(axes: Any) -> None:
    s = np.linspace(-2, 15, 200)
    axes.axvspan(-2, 10, color="0.9", label="class 1 wins: wrong")
    for loss, label in ((l1, "l1, softmax cross-entropy"), (l3, "l3, of post 9158")):
        axes.plot(s, [loss(np.array([[10, value, -5]]), SECOND) for value in s], label=label)
        axes.plot(5, loss(FAILURE, SECOND), "oC3")
    axes.set(title="logits (10, s, $-$5), of class 2", xlabel="s", ylabel="loss")
    axes.legend(fontsize=8)


def main() -> None:
    arguments = parser(__doc__, "multi_label", epochs=12).parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    print_attempt()
    parts = zip(load_split(arguments.dataset, arguments.size), (full_or_smoke(3000, 100), 500), strict=True)
    train, test = (canvases(*part, n, [arguments.seed, n]) for part, n in parts)
    print(f"{train[1].mean():.2%} of {train[1].shape[1]} labels are positive")
    curves = {}
    losses = {"binary": keras.losses.BinaryCrossentropy(from_logits=True), "multi-label": multilabel_crossentropy}
    for name, loss in losses.items():
        runs = [learn(loss, train, test[0], arguments, seed) for seed in range(full_or_smoke(3, 1))]
        curves[name] = np.array([[f1(test[1], s) for s in run] for run in runs])
        best = [max(f1(test[1], run[-1], threshold) for threshold in np.arange(-6, 6, 0.25)) for run in runs]
        print(f"{name} cross-entropy: F1 by epoch {np.round(curves[name].mean(axis=0), 3)}")
        print(f"at the end, by seed {np.round(curves[name][:, -1], 3)}; at the best threshold {np.round(best, 3)}")
    shown = test[0][:2], test[1][:2], runs[0][-1][:2]
    draws = [lambda axes: draw_canvases(axes, *shown), lambda axes: draw_f1(axes, curves), draw_attempt]
    save_panels(arguments.output / "multi_label.png", draws, columns=3, width=4, height=3)


if __name__ == "__main__":
    main()
