"""Objects defined by their configuration: schedules, samplers, predictions."""

import json
from typing import Any, Self

import keras


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


def repr_of(thing: Any, config: dict[str, Any]) -> str:
    """Returns the constructor call that creates `thing`; its arguments are attributes or plain values."""
    # For an object, the configuration contains a description, the attribute of that name the object itself.
    values = {name: value if _is_plain(value) else getattr(thing, name, value) for name, value in config.items()}
    return f"{type(thing).__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return not isinstance(value, dict)
