import importlib
import pathlib
import string
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import check, check_integer
from keras_gen.core.files import replacing
from keras_gen.core.replicas import processes
from keras_gen.evaluation.image_grid import image_grid
from keras_gen.evaluation.sampled import sampled
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.callbacks.SampleGrid")
class SampleGrid(keras.callbacks.Callback):
    """Callback that saves an image grid of samples after each epoch, always from the same starting noise.

    Samples that are not finite, such as those of a model that has diverged, are not drawn: a warning says how many
    there are. A picture that cannot be written, for example on a full disk, also causes a warning, and training goes
    on. If the optimizer keeps averages of the weights (`use_ema=True`), the samples are drawn with them. Files require
    Pillow.

    Args:
        filepath: str or path of a PNG file. `{epoch}` is replaced by the epoch number, starting at 1. Missing
            folders are created. `None` writes no file, for use with `on_image`. Defaults to
            `"samples/epoch_{epoch:04d}.png"`.
        n: int >= 1. Number of samples. Defaults to `16`.
        every: int >= 1. Number of epochs between grids. Defaults to `1`.
        scale: int >= 1. Upsampling factor of the pixels. Defaults to `1`.
        seed: int >= 0. Seed of the starting noise. Defaults to `0`.
        on_image: function of the epoch number, starting at 1, and the grid, a uint8 array `(height, width, channels)`,
            or `None`. It hands the picture to any tool; `callbacks.tensorboard_images` makes one for TensorBoard.
            Defaults to `None`.
        **options: passed to the model's `sample`, such as `sampler` and `condition`.

    Raises:
        ValueError: if an argument is outside its range or, when training begins, `options` are invalid for the model.
        ImportError: if Pillow is not installed, and `filepath` is not `None`.

    Example:

    >>> model.fit(images, epochs=50, callbacks=[SampleGrid("run/{epoch:03d}.png", every=10)])
    >>> pictures = keras_gen.callbacks.tensorboard_images("logs")
    >>> model.fit(images, epochs=50, callbacks=[SampleGrid(None, on_image=pictures)])
    """

    def __init__(
        self,
        filepath: str | pathlib.Path | None = "samples/epoch_{epoch:04d}.png",
        n: int = 16,
        every: int = 1,
        scale: int = 1,
        seed: int = 0,
        on_image: Callable[[int, np.ndarray], Any] | None = None,
        **options: Any,
    ):
        super().__init__()
        check(on_image is None or callable(on_image), "on_image", "be a function or None", on_image)
        check(filepath is not None or on_image is not None, "filepath", "be given without an `on_image`", filepath)
        if filepath is not None:
            check(str(filepath).endswith(".png"), "filepath", "end with .png", filepath)
            fields = {field for _, field, _, _ in string.Formatter().parse(str(filepath)) if field is not None}
            check(fields <= {"epoch"}, "filepath", "have no field but {epoch}", filepath)
            importlib.import_module("PIL.Image")  # fails now, not after an epoch
        self.filepath = None if filepath is None else str(filepath)
        self.n = check_integer("n", n)
        self.every = check_integer("every", every)
        self.scale = check_integer("scale", scale)
        self.seed = check_integer("seed", seed, at_least=0)
        self.on_image = on_image
        self.options = {"verbose": 0, **options}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.model.check_sampling(self.n, **self.options)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if (epoch + 1) % self.every:
            return
        images, finite = sampled(self.model, self.n, seed=self.seed, **self.options)
        if images is None or not finite.all():
            received = f"{(~finite).sum()} of {len(finite)} samples are not finite"
            warnings.warn(f"SampleGrid saves no picture of epoch {epoch + 1}: {received}", stacklevel=2)
            return
        if processes.processes()[0] > 0:  # all processes have sampled together; the first one writes
            return
        try:
            self._write(epoch + 1, image_grid(images, scale=self.scale))
        except OSError as error:
            warnings.warn(f"SampleGrid saves no picture of epoch {epoch + 1}: {error}", stacklevel=2)

    def _write(self, epoch: int, grid: np.ndarray) -> None:
        if self.on_image is not None:
            self.on_image(epoch, grid)
        if self.filepath is not None:
            with replacing(pathlib.Path(self.filepath.format(epoch=epoch))) as file:
                keras.utils.save_img(file, grid, data_format="channels_last", file_format="png", scale=False)
