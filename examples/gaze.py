"""Regression with a learned density of its errors, a flow (https://kexue.fm/archives/5807): where does an eye look?

    KERAS_BACKEND=jax python examples/gaze.py

Synthetic eyes are labelled with pitch and yaw, in tens of degrees. Three labels in ten belong to a distraction, up and
to the right of what the eye looks at, and the labels of closing eyes scatter more. One network is trained with three
losses. A Gaussian estimates the mean of the labels, a Laplace density their median: both miss the target. Residual
log-likelihood estimation (arXiv:2107.11291) learns the density of the errors as well, with one flow for all eyes, and
its peak is the target. Writes eyes and densities to `--output`; prints the negative log-likelihood of test labels next
to that of the density that generated them, the smallest in expectation, and the angle between gaze and estimate.
"""

from typing import Any

import keras
import numpy as np
from keras import ops
from shared import full_or_smoke, number_of_steps, save_panels, train, training_parser

from keras_gen.layers import Chain, Permutation, SplineCoupling
from keras_gen.losses import ResidualLogLikelihood
from keras_gen.models import Flow

HEIGHT, WIDTH = 12, 18
SHARES, MODES = np.array([0.7, 0.3]), np.array([[0, 0], [0.5, 0.8]])  # of labels around the gaze: pitch, yaw
SPREADS = np.array([[0.12, 0.15], [0.2, 0.28]])
SIDE = np.linspace(-1.2, 2.0, 161)
ERRORS = np.stack(np.meshgrid(SIDE, SIDE, indexing="ij"), axis=-1).reshape(-1, 2).astype("float32")


def draw_data(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns images `(n, height, width)`, labels and gaze `(n, 2)`, and the scale of errors, 1 to 2, `(n, 1)`."""
    generator = np.random.default_rng(seed)
    gaze, closed = generator.uniform([-1.2, -2.4], [1.2, 2.4], (n, 2)), generator.uniform(size=(n, 1))
    mode = generator.choice(2, n, p=SHARES)
    labels = gaze + (1 + closed) * (MODES[mode] + SPREADS[mode] * generator.standard_normal((n, 2)))
    y, x = np.meshgrid(np.linspace(1, -1, HEIGHT), np.linspace(-1.6, 1.6, WIDTH), indexing="ij")
    right, up = 1.6 * unit_vectors(gaze).T[:2, :, None, None]
    lids = inside(0.9 - 0.6 * closed[:, :, None] - 0.3 * x**2 - y) * inside(0.9 - 0.3 * x**2 + y)
    from_iris = np.hypot(x - right, y - up)
    eyes = lids * (1.3 - 1.2 * inside(0.55 - from_iris) - 0.6 * inside(0.2 - from_iris)) - 0.3
    return eyes.astype("float32"), labels.astype("float32"), gaze, 1 + closed


def inside(distance: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-8 * distance))  # soft, so that pixels tell the place of an edge


def unit_vectors(gaze: np.ndarray) -> np.ndarray:
    pitch, yaw = np.radians(10 * gaze).T
    return np.stack([np.cos(pitch) * np.sin(yaw), np.sin(pitch), np.cos(pitch) * np.cos(yaw)], axis=-1)


def true_nll(errors: np.ndarray, scale: np.ndarray) -> np.ndarray:
    r = (errors / scale)[:, None] - MODES
    log_modes = np.log(SHARES) - (0.5 * (r / SPREADS) ** 2 + np.log(np.sqrt(2 * np.pi) * SPREADS)).sum(-1)
    return 2 * np.log(scale[:, 0]) - np.logaddexp(*log_modes.T)


def build_model(flow: Flow, steps: int) -> keras.Model:
    eyes = keras.Input((HEIGHT, WIDTH))
    h = keras.layers.Dense(64, "silu")(keras.layers.Dense(64, "silu")(keras.layers.Flatten()(eyes)))
    mu, log_sigma = keras.layers.Dense(2)(h), keras.layers.Dense(2)(h)
    model = keras.Model(eyes, keras.layers.Concatenate()([flow(mu), log_sigma]))  # the flow is one of its layers
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss=ResidualLogLikelihood(flow))
    return model


def draw_eyes(axes: Any, title: str, eyes: np.ndarray) -> None:
    axes.imshow(np.block([[np.pad(eye, 1) for eye in row] for row in eyes.reshape(6, 4, HEIGHT, WIDTH)]), cmap="gray")
    axes.set(title=title, xticks=[], yticks=[])


def draw_density(axes: Any, title: str, density: np.ndarray, estimate: np.ndarray) -> None:
    root = density.reshape(len(SIDE), -1) ** 0.5  # in which the smaller mode is seen as well
    axes.imshow(root, origin="lower", extent=10 * SIDE[[0, -1, 0, -1]], cmap="inferno")
    axes.plot(0, 0, "+", color="cyan", markersize=14, label="gaze")
    axes.plot(*10 * estimate[::-1], "o", color="white", fillstyle="none", label="estimate")
    axes.set(title=title, xlabel="error in yaw (degrees)", ylabel="error in pitch")
    axes.legend(loc="upper left", fontsize="small", labelcolor="white", frameon=False)


def main() -> None:
    arguments = training_parser(__doc__, "gaze", epochs=12, batch_size=500).parse_args()
    x, y, _, _ = draw_data(full_or_smoke(100_000, 2_000), arguments.seed)
    x_test, y_test, gaze, scale = draw_data(full_or_smoke(20_000, 500), arguments.seed + 1)
    least = true_nll(y_test - gaze, scale).mean()
    couplings = [SplineCoupling(units=[32, 32], flip=i % 2 == 1, bound=6.0) for i in range(4)]
    even = Permutation("reverse")  # nothing to learn: the flow is its base
    bases = {"Gaussian": Flow(even, "normal"), "Laplace": Flow(even, "laplace")}
    truth = (draw_density, f"labels\n{least:.3f} nats", np.exp(-true_nll(ERRORS, scale[:1])), np.zeros(2))
    panels = [(draw_eyes, "synthetic eyes", x[:24]), truth]
    for name, flow in {**bases, "learned": Flow(Chain(couplings), "laplace")}.items():
        keras.utils.set_random_seed(arguments.seed)
        model = build_model(flow, number_of_steps(arguments, len(x)))
        train(model, x, y, arguments, folder=name.lower())
        predicted = model.predict(x_test, verbose=0)
        peak = 4 * ERRORS[flow.log_prob(4 * ERRORS, batch_size=8192, verbose=0).argmax()]
        estimates = predicted[:, :2] + np.exp(predicted[:, 2:]) * peak
        angle = np.degrees(np.arccos((unit_vectors(estimates) * unit_vectors(gaze)).sum(1).clip(-1, 1))).mean()
        more = model.evaluate(x_test, y_test, batch_size=2000, verbose=0) - least
        print(f"{name}: {more:+.3f} nats from the least of {least:.3f}, mean angle {angle:.2f} degrees")
        tensors = map(ops.convert_to_tensor, (np.float32(gaze[0] + ERRORS), predicted[:1].repeat(len(ERRORS), 0)))
        density = np.exp(-ops.convert_to_numpy(model.loss.call(*tensors)))
        panels.append((draw_density, f"{name}\n{more:+.3f} nats, {angle:.2f}°", density, estimates[0] - gaze[0]))
    draws = [lambda axes, draw=draw, parts=parts: draw(axes, *parts) for draw, *parts in panels]
    save_panels(arguments.output / "gaze.png", draws, columns=5, width=2.8, height=3.2)


if __name__ == "__main__":
    main()
