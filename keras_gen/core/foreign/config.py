"""Configurations of other libraries: rules for their values, which in a file may be anything."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from keras_gen.core.checks import check, is_integer, is_number

LARGEST_IMAGE = 2**16  # pixels along a side, which no shape of a weight confirms


class Rule(NamedTuple):
    """What a value must be."""

    is_valid: Callable[[Any], bool]
    text: str


def _is_count(value: Any) -> bool:
    return is_integer(value) and value >= 1


def _is_side(value: Any) -> bool:
    return _is_count(value) and value <= LARGEST_IMAGE


def _is_image_size(value: Any) -> bool:
    sides = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    return value is None or all(map(_is_side, sides))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _are_counts(value: Any) -> bool:
    return _is_list(value) and len(value) > 0 and all(map(_is_count, value))


COUNT = Rule(_is_count, "be an integer >= 1")
COUNT_OR_NONE = Rule(lambda value: value is None or _is_count(value), "be None or an integer >= 1")
COUNTS = Rule(_are_counts, "be a list of integers >= 1")
LIST = Rule(_is_list, "be a list")
FLAG = Rule(lambda value: isinstance(value, bool), "be true or false")
NUMBER = Rule(is_number, "be a number")
POSITIVE = Rule(lambda value: is_number(value) and value > 0, "be > 0")
RATE = Rule(lambda value: is_number(value) and 0 <= value < 1, "be in [0, 1)")
SIDE = Rule(_is_side, f"be an integer from 1 to {LARGEST_IMAGE}")
IMAGE_SIZE = Rule(_is_image_size, f"be None, or one or two integers: {SIDE.text}")


def image_size(value: Any) -> tuple[int | None, int | None]:
    """Returns height and width of a `sample_size`, which is one number for both, two or `None`."""
    height, width = value if isinstance(value, list | tuple) else (value, value)
    return height, width


def sample_size(image_shape: Sequence[int | None]) -> Any:
    """Returns the `sample_size` of images of shape `(height, width, channels)`."""
    height, width = image_shape[:2]
    if None in (height, width):
        return None
    return height if height == width else [height, width]


def checked_config(
    config: dict[str, Any],
    defaults: Mapping[str, Any],
    rules: Mapping[str, Rule],
    possible: Mapping[str, Collection[Any]],
    name: str,
) -> dict[str, Any]:
    """Returns a configuration with its defaults, after checking its values.

    Args:
        config: the configuration.
        defaults: values of the keys that it may lack.
        rules: a rule for each of these keys, except those with `possible` values.
        possible: the values of each key of which only some are supported; the first one is the default.
        name: str. The network, as in "be 'silu' for a UNet".
    """
    for key, values in possible.items():
        value = config.get(key, next(iter(values)))
        check(value in values, key, f"be {' or '.join(map(repr, values))} for a {name}", repr(value))
    config = {**{key: next(iter(values)) for key, values in possible.items()}, **defaults, **config}
    for key, rule in rules.items():
        check(rule.is_valid(config[key]), key, rule.text, repr(config[key]))
    return config
