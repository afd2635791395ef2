import functools
import importlib
import io
import pathlib
import time
from collections.abc import Callable

import keras
import numpy as np

from keras_gen.core.checks import check
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.callbacks.tensorboard_images")
def tensorboard_images(log_dir: str | pathlib.Path, name: str = "samples") -> Callable[[int, np.ndarray], None]:
    """Makes a function that writes pictures to TensorBoard, for the `on_image` of `callbacks.SampleGrid`.

    The backend does not matter. Requires the packages `tensorboard` and Pillow.

    Args:
        log_dir: str or path of the folder that TensorBoard shows, as of `keras.callbacks.TensorBoard`. Missing folders
            are created when the first picture is written.
        name: str. The name of the pictures in TensorBoard. Defaults to `"samples"`.

    Returns:
        A function of the step, an int, and a picture, uint8 `(height, width, 1 or 3)`.

    Raises:
        ValueError: if `log_dir` is no path, or `name` is empty or no string.
        ImportError: if a package is not installed.

    Example:

    >>> pictures = keras_gen.callbacks.tensorboard_images("logs")
    >>> pictures(1, keras_gen.ops.image_grid(images))      # images in [-1, 1]
    """
    check(isinstance(log_dir, str | pathlib.Path), "log_dir", "be a str or path", repr(log_dir))
    check(isinstance(name, str) and name != "", "name", "be a string of at least one letter", repr(name))
    importlib.import_module("PIL.Image")  # fails now, not after an epoch, as do the next
    events, summaries, writers = (
        importlib.import_module(f"tensorboard.{module}")
        for module in ("compat.proto.event_pb2", "compat.proto.summary_pb2", "summary.writer.event_file_writer")
    )
    writer = functools.cache(lambda: writers.EventFileWriter(str(log_dir)))

    def write(step: int, picture: np.ndarray) -> None:
        height, width, channels = picture.shape
        png = io.BytesIO()
        keras.utils.save_img(png, picture, data_format="channels_last", file_format="png", scale=False)
        image = summaries.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png.getvalue()
        )
        summary = summaries.Summary(value=[summaries.Summary.Value(tag=name, image=image)])
        writer().add_event(events.Event(step=step, wall_time=time.time(), summary=summary))
        writer().flush()

    return write
