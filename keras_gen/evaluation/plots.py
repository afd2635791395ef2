"""Figures of samples, trajectories, training and schedules.

Each function returns a `matplotlib.figure.Figure`, to be shown in a notebook or written by its `savefig`. Matplotlib is
imported when a figure is drawn, Pillow for animations.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_gen.core.checks import check, check_integer, check_positive, finite_array, on_host
from keras_gen.core.files import replacing
from keras_gen.evaluation.image_grid import image_grid
from keras_gen.export import keras_gen_export

SIDE = 48  # pixels to which smaller images are magnified
GAP = 6


@keras_gen_export("keras_gen.plots.image_rows")
def image_rows(rows: Mapping[str, Any], title: str | None = None) -> Any:
    """Draws rows of images, each with its name on the left.

    Args:
        rows: images `(n, height, width, channels)` in [-1, 1] by the name of their row, all of one shape; or panels of
            such rows by their titles, drawn one below the other.
        title: str or `None`. Title of a single panel. Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there are no rows, or they are not finite images of one shape.

    Example:

    >>> keras_gen.plots.image_rows({"data": images[:8], "samples": model.sample(8)}).savefig("rows.png")
    """
    check(isinstance(rows, Mapping) and len(rows) > 0, "rows", "be a dictionary of images", rows)
    nested = all(isinstance(row, Mapping) for row in rows.values())
    panels = {name: _same_shapes(panel) for name, panel in (rows if nested else {title or "": rows}).items()}
    names = max(len(name) for panel in panels.values() for name in panel)
    count = max(len(row) for panel in panels.values() for row in panel.values())
    lines = max(map(len, panels.values()))
    figure, axes = panels_of(len(panels), 1, 0.2 + 0.09 * names + 0.42 * count, 0.35 + 0.42 * lines)
    for (heading, panel), place in zip(panels.items(), axes, strict=True):
        _draw_rows(place, panel, heading)
    return figure


@keras_gen_export("keras_gen.plots.trajectories")
def trajectories(path: Any, title: str | None = None) -> Any:
    """Draws how images emerge from noise: one row for each image, from the noise on the left to the image.

    Args:
        path: `(frames, n, height, width, channels)`, as returned by a diffusion model's `denoising_path`.
        title: str or `None`. Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if `path` is not an array of finite images.

    Example:

    >>> keras_gen.plots.trajectories(model.denoising_path(4, of="x0")).savefig("trajectories.png")
    """
    path = _frames(path)
    return image_rows({str(i): images for i, images in enumerate(np.moveaxis(path, 1, 0))}, title)


@keras_gen_export("keras_gen.plots.loss_curves")
def loss_curves(history: Any) -> Any:
    """Draws the losses of a training, with those of validation if there are any, on a logarithmic axis if possible.

    Args:
        history: the `History` that `fit` returns, its dictionary, or the path of a file that `CSVLogger` has written.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there is no loss in `history`.

    Example:

    >>> keras_gen.plots.loss_curves(model.fit(images, epochs=20)).savefig("loss.png")
    """
    values = _logged(history)
    figure, (axes,) = panels_of(1, 1, 6, 3.5)
    curves = {"training": values["loss"], "validation": values.get("val_loss")}
    for label, curve in curves.items():
        if curve is not None:
            axes.plot(np.arange(1, len(curve) + 1), curve, label=label)
    axes.set(xlabel="epoch", ylabel="loss")
    if np.nanmin(values["loss"]) > 0:
        axes.set_yscale("log")
    axes.legend()
    return figure


@keras_gen_export("keras_gen.plots.log_snr_curves")
def log_snr_curves(schedules: Mapping[str, Any]) -> Any:
    """Draws the log signal-to-noise ratio of noise schedules over the fraction of their range of times.

        log SNR(t) = log(alpha_t^2 / sigma_t^2)

    Args:
        schedules: noise schedules by name.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if there are no schedules.

    Example:

    >>> schedules = {"linear": keras_gen.schedules.LinearSchedule(), "cosine": keras_gen.schedules.CosineSchedule()}
    >>> keras_gen.plots.log_snr_curves(schedules).savefig("log_snr.png")

    Reference: Kingma et al. 2021, arXiv:2107.00630.
    """
    check(isinstance(schedules, Mapping) and len(schedules) > 0, "schedules", "be a dictionary", schedules)
    figure, (axes,) = panels_of(1, 1, 6, 3.5)
    fractions = np.linspace(0, 1, 200, endpoint=False)
    for name, schedule in schedules.items():
        axes.plot(fractions, schedule.log_snr(schedule.times_at(fractions)), label=name)
    axes.set(xlabel="fraction of the times", ylabel="log SNR")
    axes.legend()
    return figure


@keras_gen_export("keras_gen.plots.latents")
def latents(z: Any, labels: Any = None) -> Any:
    """Draws latents as points in the plane; of more than two dimensions, their first two principal components.

    Args:
        z: `(n, dim)`, as returned by a model's `encode`, dim >= 2.
        labels: `(n,)`, integers that colour the points, or `None`. Defaults to `None`.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: if `z` is not a finite array of vectors, or `labels` has another length.

    Example:

    >>> keras_gen.plots.latents(vae.encode(images), labels).savefig("latents.png")
    """
    z = finite_array("z", z)
    check(z.ndim == 2 and len(z) > 0 and z.shape[1] >= 2, "z", "have shape (n, dim) with dim >= 2", z.shape)
    labels = None if labels is None else np.asarray(on_host(labels))
    check(labels is None or labels.shape == (len(z),), "labels", f"have shape ({len(z)},)", np.shape(labels))
    kind = "latent"
    if z.shape[1] > 2:
        _, _, directions = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
        z, kind = (z - z.mean(axis=0)) @ directions[:2].T, "principal component"
    figure, (axes,) = panels_of(1, 1, 5, 4.5)
    colors = {} if labels is None else {"c": labels, "cmap": "tab10"}
    points = axes.scatter(*z.T, s=4, linewidths=0, **colors)
    axes.set(xlabel=f"{kind} 1", ylabel=f"{kind} 2", aspect="equal")
    if labels is not None:
        axes.legend(*points.legend_elements(), loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


@keras_gen_export("keras_gen.plots.save_gif")
def save_gif(
    filepath: str | pathlib.Path, path: Any, columns: int | None = None, scale: int = 1, seconds: float = 2.0
) -> None:
    """Writes an animation: a grid of images for each frame. Requires Pillow.

    Args:
        filepath: str or path of a GIF file. Missing folders are created.
        path: `(frames, n, height, width, channels)` in [-1, 1], as returned by a diffusion model's `denoising_path`.
        columns: int >= 1 or `None`, as for `image_grid`. Defaults to `None`.
        scale: int >= 1. Upsampling factor of the pixels. Defaults to `1`.
        seconds: float > 0. Duration of the animation, which then begins anew. Defaults to `2.0`.

    Raises:
        ValueError: if an argument is outside its range, or `path` is not an array of finite images.
        ImportError: if Pillow is not installed.

    Example:

    >>> keras_gen.plots.save_gif("denoising.gif", model.denoising_path(16, frames=40), scale=4)
    """
    from PIL import Image

    check(str(filepath).endswith(".gif"), "filepath", "end with .gif", filepath)
    check_positive("seconds", seconds)
    check_integer("scale", scale)
    path = _frames(path)
    grids = [np.squeeze(image_grid(images, columns, scale)) for images in path]
    first, *others = [Image.fromarray(grid) for grid in grids]
    options = {"save_all": True, "append_images": others, "duration": 1000 * seconds / len(grids), "loop": 0}
    with replacing(pathlib.Path(filepath)) as file:
        first.save(file, format="GIF", **options)


def _frames(path: Any) -> np.ndarray:
    path = finite_array("path", path)
    check(path.ndim == 5 and path.size > 0, "path", "have shape (frames, n, height, width, channels)", path.shape)
    return path


def panels_of(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """Returns a figure of panels of the given size in inches, and their axes. Not pyplot's, which has a state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), dpi=120, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _same_shapes(rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {str(name): finite_array("rows", row) for name, row in rows.items()}
    shapes = {array.shape for array in arrays.values()}
    is_one = len(shapes) == 1 and all(len(shape) == 4 and 0 not in shape for shape in shapes)
    check(is_one, "rows", "be images (n, height, width, channels) of one shape", sorted(shapes))
    return arrays


def _draw_rows(axes: Any, rows: dict[str, np.ndarray], title: str) -> None:
    images = np.concatenate(list(rows.values()))
    side = images.shape[1]
    scale = max(1, SIDE // side)
    grid = image_grid(images, len(images) // len(rows), scale, GAP)
    axes.imshow(np.broadcast_to(grid, (*grid.shape[:2], 3)), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks(GAP + (np.arange(len(rows)) + 0.5) * (scale * side + GAP), list(rows))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(title)


def _logged(history: Any) -> dict[str, np.ndarray]:
    if isinstance(history, str | pathlib.Path):
        table = np.atleast_1d(np.genfromtxt(history, delimiter=",", names=True))
        history = {name: table[name] for name in table.dtype.names or ()}
    values = getattr(history, "history", history)
    is_log = isinstance(values, Mapping) and len(values.get("loss", ())) > 0
    check(is_log, "history", "be a History, its dictionary or a file of CSVLogger, with a loss", history)
    return {name: np.asarray(curve, "float64") for name, curve in values.items()}
