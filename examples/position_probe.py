"""The flaw of relative positions, https://kexue.fm/archives/9105: a transformer that cannot map n zeros to 1, ..., n.

    KERAS_BACKEND=jax python examples/position_probe.py
    KERAS_BACKEND=torch python examples/position_probe.py --length 20

All tokens of the input are the same, so only their positions can tell them apart. With relative ones alone, rows of
attention differ, but each sums to 1 and the values are all equal: every position gets the same output, at best the mean
of 1, ..., n, whose squared error is (n^2 - 1) / 12. Each of four changes to the same transformer cures it: absolute
positions, a Toeplitz matrix after the softmax (URPE), rows of norm 1 instead of sum 1, and a different first token,
[CLS].

Writes the outputs and the errors during training to `--output`, and prints the errors next to this floor.
"""

import argparse
import pathlib
from typing import Any

import keras
import numpy as np
from shared import as_count, base_parser, save_panels

from keras_gen.layers import RotaryEmbedding, SinusoidalEmbedding, UniversalAttention

WIDTH, BLOCKS = 32, 2
# name -> what is changed
PROBES: dict[str, dict[str, Any]] = {
    "relative": {},
    "absolute": {"absolute": True},
    "relative, URPE": {"max_distance": 8},
    "relative, l2": {"normalization": "l2"},
    "relative, [CLS]": {"first_token": True},
}


def build_model(
    length: int,
    absolute: bool = False,
    max_distance: int | None = None,
    normalization: str = "softmax",
    first_token: bool = False,
) -> keras.Model:
    """Returns a transformer from tokens `(batch, length)` to numbers `(batch, length)`, after [CLS] if it is there."""
    tokens = keras.Input((length + first_token,), dtype="int32")
    h = keras.layers.Embedding(2, WIDTH)(tokens)
    if absolute:
        h = h + SinusoidalEmbedding(WIDTH)(np.arange(length, dtype="int32"))
    for _ in range(BLOCKS):
        positions = None if absolute else RotaryEmbedding(100.0)
        attention = UniversalAttention(2, max_distance, normalization, positions)
        h = h + attention(keras.layers.LayerNormalization()(h))
        hidden = keras.layers.Dense(4 * WIDTH, "gelu")(keras.layers.LayerNormalization()(h))
        h = h + keras.layers.Dense(WIDTH)(hidden)
    y = keras.layers.Dense(1)(keras.layers.LayerNormalization()(h))
    return keras.Model(tokens, y[:, int(first_token) :, 0])


def probe(options: dict[str, Any], arguments: argparse.Namespace) -> tuple[np.ndarray, list[float]]:
    """Trains one transformer; returns its outputs `(length,)`, and the mean squared error in each epoch."""
    keras.utils.set_random_seed(arguments.seed)
    model = build_model(arguments.length, **options)
    steps = 20
    rate = keras.optimizers.schedules.CosineDecay(5e-3, steps * arguments.epochs)
    model.compile(keras.optimizers.Adam(rate, clipnorm=1.0), loss="mse")
    x = np.zeros((steps, model.input_shape[1]), "int32")
    if options.get("first_token"):
        x[:, 0] = 1
    y = np.tile(np.arange(1, arguments.length + 1, dtype="float32"), (steps, 1))
    losses = model.fit(x, y, batch_size=1, epochs=arguments.epochs, verbose=0).history["loss"]
    return model.predict(x[:1], verbose=0)[0], losses


def save_picture(path: pathlib.Path, results: dict[str, tuple[np.ndarray, list[float]]], floor: float) -> None:
    """Draws the outputs of each transformer beside 1, ..., n, and its error during training."""
    length = len(next(iter(results.values()))[0])
    places = np.arange(1, length + 1)

    def draw_outputs(axes: Any) -> None:
        axes.plot(places, places, color="0.8", linewidth=6, label="target")
        for (name, (outputs, _)), marker in zip(results.items(), "os^vD", strict=True):
            axes.plot(places, outputs, marker, label=name, markersize=5, fillstyle="none")
        axes.set(xlabel="position", ylabel="output", title="outputs for n equal tokens")
        axes.legend()

    def draw_errors(axes: Any) -> None:
        axes.axhline(floor, color="0.3", linestyle=":", label=f"$(n^2 - 1) / 12$ = {floor:.2f}")
        for _, losses in results.values():  # in the colors of the outputs
            axes.plot(20 * np.arange(1, len(losses) + 1), losses)
        axes.set(
            yscale="log", xlabel="step", ylabel="mean squared error", title="relative positions alone stay at the floor"
        )
        axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))

    save_panels(path, [draw_outputs, draw_errors], width=4.6, height=3.6)


def main() -> None:
    parser = base_parser(__doc__, "position_probe")
    parser.add_argument("--length", type=as_count, default=10, help="n, the number of tokens")
    parser.add_argument("--epochs", type=as_count, default=60, help="of 20 steps each")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = {name: probe(options, arguments) for name, options in PROBES.items()}
    floor = (arguments.length**2 - 1) / 12
    for name, (outputs, _) in results.items():
        error = np.mean((outputs - np.arange(1, arguments.length + 1)) ** 2)
        print(f"{name:18} mean squared error {error:8.3g}, outputs from {outputs.min():.3f} to {outputs.max():.3f}")
    print(f"the floor of equal outputs is (n^2 - 1) / 12 = {floor:.2f}")
    save_picture(arguments.output / "probe.png", results, floor)


if __name__ == "__main__":
    main()
