"""Shared code of the examples: arguments, resumable training, and pictures."""

import argparse
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.callbacks import Backup
from keras_gen.ops import image_grid
from keras_gen.plots import image_rows, loss_curves


def base_parser(description: str, name: str) -> argparse.ArgumentParser:
    """Returns the parser of the arguments common to all examples: where to write, and the seed."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--output", type=pathlib.Path, default=pathlib.Path("runs") / name)
    result.add_argument("--seed", type=as_seed, default=0)
    return result


def training_parser(description: str, name: str, epochs: int, batch_size: int) -> argparse.ArgumentParser:
    """Returns the parser of an example that trains on data of its own."""
    result = base_parser(description, name)
    result.add_argument("--epochs", type=as_count, default=epochs)
    result.add_argument("--batch-size", type=as_count, default=batch_size)
    return result


def parser(description: str, name: str, epochs: int, batch_size: int = 64) -> argparse.ArgumentParser:
    """Returns the parser of an example that trains on images."""
    result = training_parser(description, name, epochs, batch_size)
    result.add_argument(
        "--dataset", default="digits", help="digits, mnist, fashion_mnist, cifar10, an .npz file or a folder"
    )
    result.add_argument("--size", type=as_count, default=64, help="height and width for the pictures of a folder")
    return result


def as_count(text: str) -> int:
    """Reads an integer >= 1: the type of an argument that counts something."""
    return _as_integer(text, 1, math.inf, "an integer >= 1")


def as_seed(text: str) -> int:
    """Reads a seed that every backend takes, the type of `--seed`."""
    return _as_integer(text, 0, 2**31 - 1, "an integer in 0 .. 2**31 - 1")


def _as_integer(text: str, lowest: int, highest: float, rule: str) -> int:
    if not text.isdecimal() or not lowest <= int(text) <= highest:
        raise argparse.ArgumentTypeError(f"must be {rule}. Received: {text}")
    return int(text)


def number_of_steps(arguments: argparse.Namespace, n: int) -> int:
    """Returns the number of training steps on n samples, those of all epochs together."""
    return arguments.epochs * -(-n // arguments.batch_size)


def warm_cosine(rate: float, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns a learning rate that rises to `rate` in the first twentieth of the steps, then falls to 0 as a cosine."""
    return keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=rate, warmup_steps=steps // 20)


def train(
    model: keras.Model,
    x: np.ndarray | dict[str, np.ndarray] | keras.utils.PyDataset,
    y: np.ndarray | None,
    arguments: argparse.Namespace,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    validation_data: Any = None,
    folder: str = "",
) -> None:
    """Fits a compiled model, saves it, and plots its loss.

    An interrupted run resumes from its last epoch, a finished one does not train again: delete `backup.npz` for that.
    """
    output = arguments.output / folder
    output.mkdir(parents=True, exist_ok=True)
    backup = Backup(output / "backup.npz", every=max(1, arguments.epochs // 100))
    log = output / "loss.csv"
    forget_rows(log, backup.finished_epochs())
    batched, first = isinstance(x, keras.utils.PyDataset), keras.tree.flatten(x)[0]
    size = f"{len(x)} batches" if batched else f"{len(first)} samples of {first.shape[1:]}"
    print(f"{keras.backend.backend()}: {size}")
    start = time.time()
    model.fit(
        x,
        y,
        batch_size=None if batched else arguments.batch_size,
        epochs=arguments.epochs,
        validation_data=validation_data,
        callbacks=[keras.callbacks.CSVLogger(log, append=log.exists()), *callbacks, backup],
        verbose=2,
    )
    print(f"trained in {time.time() - start:.0f} s")
    model.save(output / "model.keras")
    print(f"wrote {output / 'model.keras'}")
    write(loss_curves(log), output / "loss.png")


def forget_rows(log: pathlib.Path, epochs: int) -> None:
    """Removes the rows of epochs that will be trained again: killed between log and backup, a run has such rows."""
    rows = log.read_text().splitlines(keepends=True)[: epochs + 1] if log.exists() and epochs else []
    if rows:
        log.write_text("".join(rows))
    else:
        log.unlink(missing_ok=True)


def load_model(path: pathlib.Path) -> keras.Model:
    """Loads a model that `train` saved; an error names the file."""
    try:
        return keras.models.load_model(path)
    except Exception as error:  # whatever Keras, HDF5 and JSON make of a damaged file
        raise ValueError(f"`model` must be a whole file of a model. Received: model={path}: {error}") from error


def loaded_or_trained(path: pathlib.Path, train_model: Callable[[], keras.Model]) -> keras.Model:
    """Loads the model of an earlier run, or trains one."""
    if path.exists():
        print(f"read {path}")
        return load_model(path)
    return train_model()


def full_or_smoke(full: Any, smoke: Any) -> Any:
    """Returns `smoke` if Keras is configured to limit the epochs of every `fit`, for a smoke test, else `full`."""
    return full if keras.config.max_epochs() is None else smoke


def binarized(images: np.ndarray, seed: int | Sequence[int]) -> np.ndarray:
    """Binarizes each pixel by one draw, with its gray level as the probability of white."""
    white = np.random.default_rng(seed).uniform(-1, 1, images.shape) < images
    return np.where(white, 1, -1).astype("float32")


class RedrawnPixels(keras.utils.PyDataset):
    """Batches of gray images, shuffled and binarized by new draws in each epoch."""

    def __init__(self, images: np.ndarray, batch_size: int, seed: int):
        super().__init__()
        self.gray, self.batch_size, self.seed = images, batch_size, seed
        self.epoch = -1
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.gray) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray]:
        return (self.images[batch * self.batch_size : (batch + 1) * self.batch_size],)

    def on_epoch_end(self) -> None:
        self.epoch += 1
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.gray))
        self.images = binarized(self.gray[order], [self.seed, self.epoch, 1])


def mean_and_error(values: np.ndarray, digits: int = 2) -> str:
    """Returns the mean of values and its standard error, as text."""
    return f"{values.mean():.{digits}f} +- {values.std() / len(values) ** 0.5:.{digits}f}"


def side_by_side(*batches: np.ndarray) -> np.ndarray:
    """Returns the first image of each batch, then the second of each, and so on: neighbours in a grid."""
    return np.stack(batches, axis=1).reshape(-1, *batches[0].shape[1:])


def save_picture(path: pathlib.Path, images: np.ndarray, columns: int) -> None:
    """Writes a grid of images in [-1, 1]."""
    scale = max(1, 48 // images.shape[1])
    keras.utils.save_img(path, image_grid(images, columns, scale, padding=8), data_format="channels_last", scale=False)
    print(f"wrote {path}")


def save_rows(path: pathlib.Path, rows: dict[str, np.ndarray], title: str) -> None:
    """Writes rows of images in [-1, 1], each with its name on the left."""
    save_row_panels(path, {title: rows})


def save_row_panels(path: pathlib.Path, panels: dict[str, dict[str, np.ndarray]]) -> None:
    """Writes panels of rows of images, each panel with its title, one below the other."""
    write(image_rows(panels), path)


def save_figure(path: pathlib.Path, draw: Callable[[Any], None], width: float = 6, height: float = 3.5) -> None:
    """Writes a figure with one panel, plotted by `draw`."""
    save_panels(path, [draw], 1, width, height)


def save_logged(path: pathlib.Path, log: pathlib.Path, columns: Sequence[str], ylabel: str) -> None:
    """Plots columns of the log of a training over the epochs."""
    table = np.atleast_1d(np.genfromtxt(log, delimiter=",", names=True))

    def draw(axes: Any) -> None:
        for column in columns:
            axes.plot(table["epoch"] + 1, table[column], label=column.replace("_", " "))
        axes.set(xlabel="epoch", ylabel=ylabel)
        axes.legend()

    save_figure(path, draw)


def save_panels(
    path: pathlib.Path, draws: Sequence[Callable[[Any], None]], columns: int = 2, width: float = 5, height: float = 3.2
) -> None:
    """Writes a figure of several panels, each of size `width` x `height`, row by row."""
    from matplotlib.figure import Figure

    rows = -(-len(draws) // columns)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for draw, axes in zip(draws, panels.flat, strict=False):
        draw(axes)
    write(figure, path)


def write(figure: Any, path: pathlib.Path) -> None:
    """Writes a figure of Matplotlib."""
    figure.savefig(path, dpi=120, bbox_inches="tight", pad_inches=0.05)
    print(f"wrote {path}")
