"""The null condition, which replaces the condition of a sample that is to be generated or denoised without one."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import as_condition, check, same_shape
from keras_gen.core.conditions import check_parts, map_parts, names_of, parts_of
from keras_gen.networks.backbones.image_network import classes_of, condition_of, fits, inputs_of

NAME = "null_condition"


class NullCondition:
    """Null condition of a network: a given constant, or else the null class of labels, and zero for real numbers.

    Args:
        network: the network.
        given: an array like the condition of one sample; or a dict of such arrays, in which parts that are `None` are
            never replaced; or `None`.

    Raises:
        ValueError: if `given` does not have the parts and shapes of the network's condition.
    """

    def __init__(self, network: keras.Layer, given: Any = None):
        self.network = network
        self.given = None if given is None else map_parts(_constant, names_of(NAME, given), given)
        self.check()

    def check(self) -> None:
        """Checks the given constant, as soon as the network is built and its condition is known."""
        if self.given is None or not (inputs_of(self.network) or self.network.built):
            return
        taken = condition_of(self.network)
        check(taken is not None, NAME, "be None: the network takes no condition", "a value")
        check_parts(NAME, self.given, taken)
        map_parts(_check_constant, names_of(NAME, taken), taken, self.given)

    def check_like(self, name: str, condition: Any) -> None:
        """Checks that arrays or tensors of conditions, with the network's parts, have the shapes of the constant."""
        if self.given is not None:
            map_parts(_check_like, names_of(name, condition), condition, self.given)

    def is_known(self) -> bool:
        """Returns whether there is a null condition: for integers that are not classes, only if it is given."""
        if self.given is not None or classes_of(self.network) is not None:
            return True
        taken = condition_of(self.network)
        return taken is not None and all(keras.backend.is_float_dtype(part.dtype) for part in parts_of(taken))

    def like(self, condition: Any) -> Any:
        """Returns the null condition for each sample of `condition`, a tensor or a dict of them."""
        if self.given is not None:
            return map_parts(_repeated, self.given, condition)
        classes = classes_of(self.network)
        return map_parts(ops.zeros_like, condition) if classes is None else ops.full_like(condition, classes)


def _constant(name: str, part: Any) -> np.ndarray | None:
    if part is None:
        return None
    part = as_condition(name, part)
    check(bool(np.isfinite(part).all()), name, "be finite", "NaN or infinite values")
    return part.astype("float32") if part.dtype.kind == "f" else part


def _check_constant(name: str, taken: Any, constant: np.ndarray | None) -> None:
    if constant is not None:
        shape = tuple(taken.shape[1:])
        check(fits(shape, constant.shape), name, f"have shape {shape}, without a batch", f"shape {constant.shape}")


def _check_like(name: str, part: Any, constant: np.ndarray | None) -> None:
    if constant is not None:
        shape, rule = tuple(part.shape[1:]), f"have rows of shape {constant.shape}, as `{NAME}` has"
        check(same_shape(shape, constant.shape), name, rule, f"rows of shape {shape}")


def _repeated(constant: np.ndarray | None, part: Any) -> Any:
    if constant is None:
        return part
    constant = ops.convert_to_tensor(constant, keras.backend.standardize_dtype(part.dtype))
    return ops.where(ops.ones_like(part, dtype="bool"), constant, part)  # keeps the static shape, also of booleans
