"""Interface of denoising networks, and the base class of image networks.

A denoising network is called as `network([x_t, t])` or `network([x_t, t, condition])`; its output is like `x_t`. `t` is
int32 in discrete time, float32 otherwise. `condition` is a tensor or a dict of tensors, its parts. A functional model
takes a condition if it has three inputs, `keras.Model([x_t, t, {"tokens": tokens, "pooled": pooled}], output)`; any
other layer if it was first called with three, which `fit` does if there are labels, or if it has an attribute
`num_classes`. With this attribute, conditions are class labels 0 .. num_classes - 1, and num_classes is the null class
of classifier-free guidance; for conditions that are vectors or tokens, the null condition is zero, unless the diffusion
model is given another one, see `NullCondition`. If the network has an attribute `num_steps`, it supports the times
0 .. num_steps - 1.

Keras records the shapes, but not the dtypes, of the first call of a layer that is not functional: its labels are then
taken to be integers, and everything else real numbers. If its condition consists of token ids, such a network should
read them by `keras.layers.Embedding`, which takes both.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.core.checks import (
    as_condition,
    as_labels,
    batch_of,
    check,
    check_depth,
    check_image_shape,
    flat_labels,
    is_integer,
    known_size,
    same_shape,
)
from keras_gen.core.conditions import check_parts, map_parts, names_of, parts_of
from keras_gen.core.frozen import freeze_layers, frozen_layers, pass_on_frozen
from keras_gen.core.torch.trace import Trace, traceable


class ImageNetwork(keras.Model):
    """Base class of image networks: a functional model for images whose height and width are divisible by `multiple`.

    To implement a network: check the arguments with `check_image_shape`, call layers on `keras.Input`s, pass inputs
    and outputs to `super().__init__`, and add further arguments to `super().get_config()`. Layers may draw random
    numbers or update state, but must not branch: on PyTorch calls are traced, see `Trace`.

    Args:
        inputs: list of the symbolic inputs, `x_t` first.
        outputs: the symbolic output.
        image_shape: `(height, width, channels)`.
        multiple: int >= 1. Must divide the height and width of images.
        reason: str. End of the error message for other sizes.
        dtype: the dtype policy of the layers.
        **kwargs: `name`, `trainable`.
    """

    trainable: bool

    def __init__(
        self,
        inputs: Sequence[Any],
        outputs: Any,
        image_shape: Sequence[int | None],
        multiple: int,
        reason: str,
        dtype: Any,
        **kwargs: Any,
    ):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        pass_on_frozen(self)  # Keras tracks the layers after it sets the flag
        if dtype is not None:
            self.dtype_policy = keras.dtype_policies.get(dtype)
        self.image_shape = tuple(image_shape)
        self._multiple = multiple, reason
        self._trace = Trace(self, super().__call__)

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        # Here, not in `call`: a functional model bypasses `call` for symbolic inputs.
        shape = tuple(inputs[0].shape[1:])
        if all(size is None or is_integer(size) for size in shape):  # those of a trace are symbols or tensors
            check_image_shape("x_t", shape, *self._multiple)
        if len(inputs) == 3 and takes_condition(self):
            check_parts("condition", inputs[2], condition_of(self))
        is_plain = not args and kwargs.keys() == {"training"} and isinstance(kwargs["training"], bool)
        if is_plain and not self._recomputes and traceable(inputs):
            return self._trace(list(inputs), kwargs["training"])
        return super().__call__(inputs, *args, **kwargs)

    @property
    def multiple(self) -> int:
        """The integer that divides height and width of the network's images."""
        return self._multiple[0]

    @property
    def _recomputes(self) -> bool:
        return getattr(self, "remat", False)  # autograd then calls the layers again

    def get_config(self) -> dict[str, Any]:
        frozen = frozen_layers(self)
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            "image_shape": self.image_shape,
            **({"frozen": frozen} if frozen else {}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "ImageNetwork":
        # Keras's `from_config` of functional models does not deserialize nested objects.
        arguments = keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
        frozen = arguments.pop("frozen", None)
        network = cls(**arguments)
        if frozen is not None:
            freeze_layers(network, frozen)
        return network


def check_levels(image_shape: Sequence[int | None], widths: Sequence[int], blocks_per_level: int) -> tuple[int, ...]:
    """Checks the arguments that define a U-Net's levels, and returns `widths` as Python integers."""
    are_integers = isinstance(widths, Sequence) and len(widths) > 0 and all(is_integer(w) and w >= 1 for w in widths)
    check(are_integers, "widths", "be a non-empty sequence of integers >= 1", widths)
    check_image_shape("image_shape", image_shape, *downsampling_multiple(widths))
    check_depth("blocks_per_level", blocks_per_level)
    return tuple(int(width) for width in widths)


def downsampling_multiple(widths: Sequence[int]) -> tuple[int, str]:
    """Returns the divisor of an image's size that halving from level to level requires, and the reason."""
    return 2 ** (len(widths) - 1), f"with {len(widths)} levels"


def upsampling_layers(upsampling: Any, levels: int, dtype: Any) -> list[keras.Layer]:
    """Returns a U-Net's layers that double height and width, one for each level but the coarsest, from fine to coarse.

    Args:
        upsampling: a layer for all levels, a sequence of layers, or `None` for nearest-neighbor upsampling.
        levels: int. Number of levels.
        dtype: the dtype policy of the layers that are made here.
    """
    if upsampling is None:  # `channels_last` whatever Keras is set to
        return [keras.layers.UpSampling2D(data_format="channels_last", dtype=dtype) for _ in range(levels - 1)]
    if isinstance(upsampling, keras.Layer) and levels > 1:
        return [upsampling] * (levels - 1)
    are_layers = isinstance(upsampling, list | tuple) and all(isinstance(layer, keras.Layer) for layer in upsampling)
    rule = f"be a layer, or a sequence of {levels - 1} layers, one for each of {levels} levels but the coarsest"
    check(are_layers and len(upsampling) == levels - 1, "upsampling", rule, upsampling)
    is_repeated = len({id(layer) for layer in upsampling}) < len(upsampling)
    check(not is_repeated, "upsampling", "hold each layer once, as a file would hold copies", upsampling)
    return list(upsampling)


def double(h: Any, layer: keras.Layer) -> Any:
    """Doubles height and width of symbolic images by a layer of `upsampling`."""
    doubled = layer(h)
    expected = [side if side is None else 2 * side for side in h.shape[1:3]]
    is_doubled = len(doubled.shape) == 4 and same_shape(doubled.shape[1:3], expected)
    received = f"{layer}, which makes shape {doubled.shape} of {h.shape}"
    check(is_doubled, "upsampling", "double height and width", received)
    return doubled


def inputs_of(network: keras.Layer) -> list[Any]:
    """Returns the symbolic inputs of a functional model, a dict where one is a dict; of any other layer none."""
    flat = getattr(network, "inputs", None)
    if not flat:
        return []
    nested = getattr(network, "input", None)  # a `Sequential` has none
    return list(nested if isinstance(nested, list | tuple) else flat)


def condition_of(network: keras.Layer) -> Any:
    """Returns the network's condition as a symbolic tensor or a dict of them, or `None` if it takes none."""
    inputs = inputs_of(network)
    if inputs:
        return _of_tensors(inputs[2]) if len(inputs) == 3 else None
    if getattr(network, "num_classes", None) is not None:
        return keras.KerasTensor((None,), "int32")
    # The shapes of the first call, which a file contains as well.
    shapes: Any = (network.get_build_config() or {}).get("input_shape") or ()
    if len(shapes) != 3 or not all(isinstance(shape, list | tuple | dict) for shape in shapes):
        return None
    return map_parts(lambda shape: keras.KerasTensor(shape, "float32" if len(shape) > 1 else "int32"), shapes[2])


def _of_tensors(condition: Any) -> Any:
    is_taken = all(isinstance(part, keras.KerasTensor) for part in parts_of(condition))
    check(is_taken, "network", "take one tensor or a dict of tensors as its condition", type(condition).__name__)
    return condition


def classes_of(network: keras.Layer) -> int | None:
    """Returns the number of classes of a network whose condition is a label, or `None` for any other."""
    return getattr(network, "num_classes", None) if isinstance(condition_of(network), keras.KerasTensor) else None


def takes_condition(network: keras.Layer) -> bool:
    """Returns whether the network takes a condition."""
    return condition_of(network) is not None


def meet_condition(network: keras.Layer, x: Any, condition: Any, real_times: bool) -> None:
    """Builds a network that is not functional, and not built yet, for data with a condition."""
    if condition is not None and not inputs_of(network) and not network.built:
        t = keras.Input((), dtype="float32" if real_times else "int32")
        network([keras.Input(x.shape[1:]), t, map_parts(_first_input, names_of("y", condition), condition)])


def _first_input(name: str, part: Any) -> Any:
    part = flat_labels(as_condition(name, part))
    return keras.Input(part.shape[1:], dtype={"f": "float32", "b": "bool"}.get(part.dtype.kind, "int32"))


def flat_condition(network: keras.Layer, condition: Any) -> Any:
    """Returns labels of shape `(n, 1)` as `(n,)`, where those are what the network takes; other parts unchanged."""
    return map_parts(_flat_part, condition_of(network), condition)


def _flat_part(taken: Any, part: Any) -> Any:
    return flat_labels(part) if len(taken.shape) == 1 else part


def fits(expected: Any, shape: Any) -> bool:
    """Returns whether `shape` matches `expected`, in which `None` matches any size."""
    return len(expected) == len(shape) and all(a in (None, b) for a, b in zip(expected, shape, strict=True))


def check_network(
    network: keras.Layer, data_shape: tuple[int | None, ...], outputs_per_channel: int, real_times: bool = False
) -> None:
    """Checks that the network accepts the data and has the required output shape. Builds the network.

    Args:
        network: the network.
        data_shape: shape of one image, without the batch.
        outputs_per_channel: int. Required number of output channels per channel of the data.
        real_times: bool. Whether times are real numbers. Defaults to `False`.
    """
    inputs = [keras.Input(data_shape), keras.Input((), dtype="float32" if real_times else "int32")]
    own = inputs_of(network)
    if own:
        check(len(own) in (2, 3), "network", "take x_t, t and, optionally, a condition", f"{len(own)} inputs")
        accepts_times = not real_times or keras.backend.is_float_dtype(own[1].dtype)
        check(accepts_times, "network", "have a float input t for real times", f"t of dtype {own[1].dtype}")
        expected = own[0].shape[1:]
        rule = f"be images of shape {expected}, the network's input shape"
        check(fits(expected, data_shape), "x", rule, f"images of shape {data_shape}")
    taken = condition_of(network)
    if taken is not None:
        inputs.append(map_parts(lambda part: keras.Input(part.shape[1:], dtype=part.dtype), taken))
    output_shape = network(inputs).shape[1:]
    needed = (*data_shape[:-1], known_size("x", data_shape) * outputs_per_channel)
    check(output_shape == needed, "network", f"give outputs of shape {needed}", f"outputs of shape {output_shape}")


def prepare_condition(network: keras.Layer, condition: Any, n: int, name: str = "condition") -> Any:
    """Returns the condition of `n` images: an array `(n, ...)`, a dict of them, or `None` if the network takes none.

    Args:
        network: the network.
        condition: `None`, one value for all images, an array `(n, ...)`, or a dict of such values and arrays.
        n: int. Number of images.
        name: str. Name of the argument in error messages. Defaults to `"condition"`.
    """
    if condition is None:
        check(not takes_condition(network), name, "be given: the network takes a condition", None)
        return None
    rule = "be None: the network takes no condition"
    if not inputs_of(network):
        rule += ", as it was first called with x_t and t alone"
    taken = condition_of(network)
    if taken is None:
        raise ValueError(f"`{name}` must {rule}. Received: {name}=a value")
    check_parts(name, condition, taken)
    classes = classes_of(network)
    if classes is not None:
        return as_labels(name, condition, n, classes)
    prepare = functools.partial(_prepare_part, n, bool(inputs_of(network)))
    return map_parts(prepare, names_of(name, taken), taken, condition)


def _prepare_part(n: int, has_dtypes: bool, name: str, taken: Any, part: Any) -> np.ndarray:
    part, shape = _flat_part(taken, as_condition(name, part)), taken.shape[1:]
    if part.dtype.kind == "f":
        check(bool(np.isfinite(part).all()), name, "be finite", "NaN or infinite values")
        takes_fractions = not has_dtypes or keras.backend.is_float_dtype(taken.dtype)
        is_taken = takes_fractions or bool((part == np.round(part)).all())
        check(is_taken, name, "be integers, as the network takes them", f"dtype {part.dtype}, with fractions")
    if part.ndim == 0:
        part = np.full(n, part)
    check(len(part) == n, name, f"have one entry for each of {n} images", f"shape {part.shape}")
    check(fits(shape, part.shape[1:]), name, f"have shape {batch_of(shape)}", f"shape {part.shape}")
    return part.astype("float32", copy=False) if part.dtype.kind == "f" else part
