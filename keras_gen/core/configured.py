"""Objects defined by their configuration, such as schedules, samplers and predictions, and what tells them apart."""

import inspect
import json
from collections.abc import Hashable, Mapping
from typing import Any, Self

import keras

from keras_gen.core.checks import check, is_array, on_host


class Configured:
    """Base class of objects defined by their configuration, which `from_config`, `repr` and `==` are based on.

    A subclass with constructor arguments returns them in `get_config`, under their names.
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        return cls(**keras.saving.deserialize_keras_object(config))

    def __repr__(self) -> str:
        return repr_of(self, self.get_config())

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), json.dumps(self.get_config(), sort_keys=True)))


def check_configured(name: str, thing: Any) -> None:
    """Checks that the configuration of an object holds all arguments of its constructor.

    Otherwise a file would lose them, and two objects that differ by them would share a compiled program.
    """
    missing = sorted(arguments_of(type(thing)) - set(thing.get_config()))
    rule = "return all arguments of its constructor from `get_config`, under their names"
    check(not missing, name, rule, f"{type(thing).__name__} without {', '.join(missing)}")


def arguments_of(cls: type[Any]) -> set[str]:
    """Returns the names of the arguments of a constructor, but for `*args` and `**kwargs`."""
    parameters = inspect.signature(cls.__init__).parameters.values() if cls.__init__ is not object.__init__ else ()
    return {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)} - {"self"}


def key_of(value: Any) -> Hashable:
    """Returns what tells a setting from others: the numbers of an array, the settings of an object, or its identity.

    Whoever keeps the key must keep the value too, or another object may get its identity.
    """
    if is_array(value):
        array = on_host(value)
        return array.shape, str(array.dtype), array.tobytes()
    if isinstance(value, Configured):
        return type(value), key_of(value.get_config())
    if isinstance(value, Mapping):
        return tuple((name, key_of(part)) for name, part in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(key_of, value))
    return repr(value) if isinstance(value, str | int | float | None) else id(value)


def repr_of(thing: Any, config: dict[str, Any]) -> str:
    """Returns the constructor call that creates `thing`; its arguments are attributes or plain values."""
    # For an object, the configuration contains a description, the attribute of that name the object itself.
    values = {name: value if _is_plain(value) else getattr(thing, name, value) for name, value in config.items()}
    return f"{type(thing).__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return not isinstance(value, dict)
