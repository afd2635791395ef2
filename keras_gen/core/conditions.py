"""Conditions: what is known about each sample, as one array or as a dict of arrays, the parts of the condition.

All functions here accept both forms, with arrays, tensors, shapes or names as parts. Unlike in `keras.tree`, a list of
numbers is a single part.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_gen.core.checks import check


def map_parts(function: Callable[..., Any], condition: Any, *others: Any) -> Any:
    """Applies `function` to each part of a condition, with the corresponding parts of `others`."""
    if isinstance(condition, Mapping):
        return {key: function(condition[key], *(other[key] for other in others)) for key in sorted(condition)}
    return function(condition, *others)


def parts_of(condition: Any) -> list[Any]:
    """Returns the parts of a condition as a list, in the order of their names."""
    return [condition[key] for key in sorted(condition)] if isinstance(condition, Mapping) else [condition]


def names_of(name: str, condition: Any) -> Any:
    """Returns the names of the parts for error messages, such as `y["tokens"]`; that of a single array is `name`."""
    if not isinstance(condition, Mapping):
        return name
    are_named = len(condition) > 0 and all(isinstance(key, str) for key in condition)
    are_arrays = not any(isinstance(part, Mapping) for part in condition.values())
    check(are_named and are_arrays, name, "be one array, or a dict of arrays by their names", condition)
    return {key: f'{name}["{key}"]' for key in condition}


def packed(condition: Any, parts: Sequence[Any]) -> Any:
    """Returns a list of parts in the form of `condition`; the inverse of `parts_of`."""
    return dict(zip(sorted(condition), parts, strict=True)) if isinstance(condition, Mapping) else parts[0]


def check_parts(name: str, condition: Any, taken: Any) -> None:
    """Checks that a condition has the parts of `taken`, the condition that a network takes."""
    rule = f"be the network's condition, {_described(taken)}"
    is_same = isinstance(condition, Mapping) == isinstance(taken, Mapping)
    if is_same and isinstance(taken, Mapping):
        is_same = condition.keys() == taken.keys()
    check(is_same, name, rule, _described(condition))


def _described(condition: Any) -> str:
    if not isinstance(condition, Mapping):
        return "one array"
    return f"a dict of {', '.join(map(repr, sorted(condition, key=str))) or 'nothing'}"
