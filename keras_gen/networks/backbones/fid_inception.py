"""The Inception network behind the published Frechet distances."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops
from keras.layers import AveragePooling2D, MaxPooling2D

from keras_gen.core.checks import check, check_choice, check_images_dtype
from keras_gen.core.foreign.files import open_file
from keras_gen.core.foreign.weights import Entry, ForeignTensors, entries
from keras_gen.core.torch.kernels import Conv2D
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.resizing import bicubic_weights, bilinear_weights, resize

SIZE = 299  # height and width of the images that the network takes
RESIZINGS = {"clean": bicubic_weights, "legacy_tensorflow": bilinear_weights}


class Pooling(NamedTuple):
    """A pooling over 3 x 3 pixels. Padding counts for nothing: a mean is that of the pixels there are."""

    layer: type[keras.Layer]
    strides: int = 1
    padding: str = "same"


class Convolution(NamedTuple):
    """A convolution, then a ReLU; `pooling` comes before."""

    filters: int
    size: int | tuple[int, int] = 1
    strides: int = 1
    padding: str = "same"
    pooling: Pooling | None = None


MEAN, MAXIMUM, HALF = Pooling(AveragePooling2D), Pooling(MaxPooling2D), Pooling(MaxPooling2D, 2, "valid")
ROW, COLUMN = (1, 7), (7, 1)


def halving(filters: int) -> Convolution:
    return Convolution(filters, 3, 2, "valid")


def of_35_pixels(pooled: int) -> dict[str, Any]:
    return {
        "_branch1x1": Convolution(64),
        "_branch5x5": [Convolution(48), Convolution(64, 5)],
        "_branch3x3dbl": [Convolution(64), Convolution(96, 3), Convolution(96, 3)],
        "_branch_pool": Convolution(pooled, pooling=MEAN),
    }


def of_17_pixels(width: int) -> dict[str, Any]:
    first, row, column = Convolution(width), Convolution(width, ROW), Convolution(width, COLUMN)
    return {
        "_branch1x1": Convolution(192),
        "_branch7x7": [first, row, Convolution(192, COLUMN)],
        "_branch7x7dbl": [first, column, row, column, Convolution(192, ROW)],
        "_branch_pool": Convolution(192, pooling=MEAN),
    }


def of_8_pixels(pooling: Pooling) -> dict[str, Any]:
    cross = {"a": Convolution(384, (1, 3)), "b": Convolution(384, (3, 1))}
    return {
        "_branch1x1": Convolution(320),
        "_branch3x3": [Convolution(384), cross],
        "_branch3x3dbl": [Convolution(448), Convolution(384, 3), cross],
        "_branch_pool": Convolution(192, pooling=pooling),
    }


# The parts of the network, one after the other, by their names. In a dict, parts are side by side, and the
# keys are endings of their names; in a list, they follow each other, and are numbered.
PARTS = {
    "Conv2d_1a_3x3": halving(32),
    "Conv2d_2a_3x3": Convolution(32, 3, padding="valid"),
    "Conv2d_2b_3x3": Convolution(64, 3),
    "MaxPool_1": HALF,
    "Conv2d_3b_1x1": Convolution(80),
    "Conv2d_4a_3x3": Convolution(192, 3, padding="valid"),
    "MaxPool_2": HALF,
    "Mixed_5b": of_35_pixels(32),
    "Mixed_5c": of_35_pixels(64),
    "Mixed_5d": of_35_pixels(64),
    "Mixed_6a": {
        "_branch3x3": halving(384),
        "_branch3x3dbl": [Convolution(64), Convolution(96, 3), halving(96)],
        "_branch_pool": HALF,
    },
    "Mixed_6b": of_17_pixels(128),
    "Mixed_6c": of_17_pixels(160),
    "Mixed_6d": of_17_pixels(160),
    "Mixed_6e": of_17_pixels(192),
    "Mixed_7a": {
        "_branch3x3": [Convolution(192), halving(320)],
        "_branch7x7x3": [Convolution(192), Convolution(192, ROW), Convolution(192, COLUMN), halving(192)],
        "_branch_pool": HALF,
    },
    "Mixed_7b": of_8_pixels(MEAN),
    "Mixed_7c": of_8_pixels(MAXIMUM),  # an oddity of this network
}


@keras_gen_export("keras_gen.models.FIDInception")
class FIDInception(ForeignTensors, keras.Model):
    """The Inception network of 2015 whose features the Frechet Inception distance (FID) compares.

    It is the feature model of the metrics: with it, `metrics.FrechetDistance` is the FID of papers, and
    `metrics.KernelDistance` the KID. Its weights are neither those of `keras.applications.InceptionV3` nor those of
    torchvision. They are read from a file that `tools/convert_inception.py` writes, see docs/validation.md.

    Images are first rounded to 8 bits, as in the files that papers compare; those of one channel become gray ones of
    three. Then they are resized to 299 x 299 pixels, in one of two ways, whose distances are not to be compared:

    - `"clean"`: bicubic with antialiasing, as by Pillow in float32, of the library clean-fid.
    - `"legacy_tensorflow"`: bilinear without antialiasing, as by TensorFlow 1, of the first implementation and of the
      library torch-fidelity.

    The features are the means of the last maps over all pixels, 2048 of them. Batch normalizations are part of the
    convolutions before them, as they are constant. The network is not trained.

    Args:
        resizing: `"clean"` or `"legacy_tensorflow"`. Defaults to `"clean"`.
        name: str or `None`. Of metrics in logs it is the ending. Defaults to `None`: `"fid_clean"` or
            `"fid_legacy_tensorflow"` with the weights of a file, else `"inception_2015"`.
        dtype: the dtype policy of the network. Defaults to `"float32"`, whatever Keras's global policy is.

    Call arguments:
        images: floats `(batch, height, width, 3)` or `(batch, height, width, 1)` in [-1, 1], of any size; values
            outside are clipped.

    Returns:
        `(batch, 2048)`.

    Raises:
        ValueError: if an argument is not one of its values, or images are integers or have another number of channels.

    Example:

    >>> features = keras_gen.models.FIDInception.from_safetensors("inception-2015.safetensors")
    >>> metric = keras_gen.metrics.FrechetDistance(features)
    >>> metric.update_state(images, model.sample(50_000))
    >>> metric.result()                                    # the FID

    Reference: Szegedy et al. 2015, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500; Parmar et al. 2021,
    arXiv:2104.11222, for `"clean"`.
    """

    def __init__(self, resizing: str = "clean", name: str | None = None, dtype: Any = "float32"):
        check_choice("resizing", resizing, RESIZINGS)
        policy = keras.dtype_policies.get(dtype)
        images = keras.Input((None, None, None), dtype="float32", name="images")
        h = Pixels(RESIZINGS[resizing])(images)
        for part, step in PARTS.items():
            h = _applied(h, part, step, policy)
        features = keras.layers.GlobalAveragePooling2D(data_format="channels_last", dtype=policy)(h)
        super().__init__(inputs=images, outputs=features, name=name or "inception_2015")
        self.dtype_policy, self.resizing, self.trainable = policy, resizing, False

    @classmethod
    def from_safetensors(
        cls, source: str | os.PathLike, resizing: str = "clean", name: str | None = None, dtype: Any = "float32"
    ) -> Self:
        """Reads the network's weights from a file that `tools/convert_inception.py` has written.

        Args:
            source: path of the file.
            resizing: `"clean"` or `"legacy_tensorflow"`. Defaults to `"clean"`.
            name: str or `None`. Defaults to `None`: `"fid_clean"` or `"fid_legacy_tensorflow"`.
            dtype: the dtype policy of the network. Defaults to `"float32"`.

        Returns:
            The network.

        Raises:
            ValueError: with the file's path, if it is damaged, or a weight is missing, unused, of the wrong shape, not
                floating-point or not finite.
            ImportError: if `safetensors` is not installed.

        Example:

        >>> features = keras_gen.models.FIDInception.from_safetensors("inception-2015.safetensors")
        """
        tensors = open_file(source)
        return cls.with_tensors(lambda: cls(resizing, name or f"fid_{resizing}", dtype), tensors)

    def foreign_table(self) -> list[Entry]:
        return [entry for layer in self.layers if layer.weights for entry in entries(layer, layer.name)]

    def __call__(self, images: Any, *args: Any, **kwargs: Any) -> Any:
        # Here, not in `call`: Keras makes any number a float before.
        check_images_dtype("images", images)
        shape = tuple(images.shape)
        check(len(shape) == 4 and shape[3] in (1, 3), "images", "have shape (n, height, width, 1 or 3)", shape)
        return super().__call__(images, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        dtype = keras.dtype_policies.serialize(self.dtype_policy)
        return {"resizing": self.resizing, "name": self.name, "dtype": dtype}


class Pixels(keras.layers.Layer):
    """Images in [-1, 1] as the network takes them: of 8 bits, in three channels, resized."""

    def __init__(self, weights: Callable[[int, int], np.ndarray]):
        super().__init__(name="pixels", dtype="float32")  # lower precision has no 256 levels
        self.weights_of = weights

    def call(self, images: Any) -> Any:
        levels = ops.round(ops.clip((images + 1) * 127.5, 0, 255))
        x = ops.clip(resize(levels, SIZE, self.weights_of), 0, 255)  # bicubic resizing goes beyond
        x = (x - 128) / 128
        return ops.repeat(x, 3, axis=-1) if x.shape[-1] == 1 else x

    def compute_output_shape(self, images_shape: Any) -> tuple[int | None, ...]:
        return (images_shape[0], SIZE, SIZE, 3)


def _applied(x: Any, name: str, step: Any, policy: Any) -> Any:
    """Applies a part of the network to symbolic maps, see `PARTS`."""
    options = {"data_format": "channels_last", "dtype": policy}
    match step:
        case Pooling(layer, strides, padding):
            return layer(3, strides, padding, name=f"{name}_pooling", **options)(x)
        case Convolution(filters, size, strides, padding, pooling):
            x = x if pooling is None else _applied(x, name, pooling, policy)
            return Conv2D(filters, size, strides=strides, padding=padding, activation="relu", name=name, **options)(x)
        case list():
            for number, part in enumerate(step, 1):
                x = _applied(x, f"{name}_{number}", part, policy)
            return x
        case _:
            branches = [_applied(x, name + ending, part, policy) for ending, part in step.items()]
            return keras.layers.Concatenate(name=f"{name}_concatenation", dtype=policy)(branches)
