"""Public names of symbols, and the keys under which Keras saves them.

The file that defines a symbol (`keras_gen/networks/backbones/unet.py`) is independent of its public path
(`keras_gen.models.UNet`). `keras_gen_export` connects the two, similar to TensorFlow's `tf_export`.
"""

import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import keras

NAMESPACES = (
    "bijectors",
    "callbacks",
    "config",
    "data",
    "distributions",
    "estimators",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "plots",
    "predictions",
    "samplers",
    "schedules",
    "tokenizers",
)

Symbol = TypeVar("Symbol", bound=Callable[..., Any])

_symbols: dict[str, Any] = {}  # public path -> symbol
_also: dict[str, str] = {}  # second path -> public path
_aliases: dict[str, str] = {}  # deprecated path -> public path
_keys: dict[str, Any] = {}  # serialization key -> class


def keras_gen_export(path: str, *, also: Iterable[str] = (), aliases: Iterable[str] = ()) -> Callable[[Symbol], Symbol]:
    """Exports a class or function as `keras_gen.<namespace>.<Name>`.

    A class with `get_config` is also registered for Keras serialization as `keras_gen>Name`. The key contains no module
    path, so a file can move without breaking saved models.

    Args:
        path: str. The public path, used in documentation. Its last part must be the symbol's `__name__`.
        also: further public paths of the same symbol, checked like `path`. They do not affect saved files.
        aliases: deprecated public paths that still work, with one warning each, and whose saved files still load.

    Returns:
        A decorator that returns the symbol unchanged.

    Raises:
        ValueError: if a path is malformed, or a path, alias or serialization key belongs to another symbol.
    """

    def decorate(symbol: Symbol) -> Symbol:
        for argument, name in [("path", path), *(("also", second) for second in also)]:
            _check_path(argument, name)
            if name.rpartition(".")[2] != symbol.__name__:
                raise ValueError(
                    f"`{argument}` must end with the symbol's name, {symbol.__name__}. Received: {argument}={name}"
                )
        for alias in aliases:
            _check_path("aliases", alias)
        others = {**_also, **_aliases}
        for name in (path, *also, *aliases):
            _claim(name, symbol, {**_symbols, **{other: _symbols.get(first) for other, first in others.items()}})
        if inspect.isclass(symbol) and hasattr(symbol, "get_config"):
            _register(symbol, [*(alias.rpartition(".")[2] for alias in aliases), symbol.__name__])
        _symbols[path] = symbol
        _also.update({second: path for second in also})
        _aliases.update({alias: path for alias in aliases})
        return symbol

    return decorate


def exported(*, also: bool = True) -> dict[str, Any]:
    """Returns every public path and its symbol, sorted by path; without `also` only the first path of each symbol."""
    seconds = {second: _symbols[path] for second, path in _also.items()} if also else {}
    return dict(sorted({**_symbols, **seconds}.items()))


def serve_aliases() -> None:
    """Makes deprecated names available in each namespace module, by a module-level `__getattr__`."""
    for namespace in {alias.split(".")[1] for alias in _aliases}:
        module = importlib.import_module(f"keras_gen.{namespace}")
        vars(module)["__getattr__"] = _getter(module)


def _check_path(argument: str, path: str) -> None:
    parts = path.split(".")
    if len(parts) != 3 or parts[0] != "keras_gen" or parts[1] not in NAMESPACES or not parts[2].isidentifier():
        raise ValueError(
            f"`{argument}` must be keras_gen.<namespace>.<Name> with a namespace in {NAMESPACES}. "
            f"Received: {argument}={path}"
        )


def _claim(name: str, symbol: Any, holders: dict[str, Any]) -> None:
    holder = holders.get(name)
    if holder is not None and _identity(holder) != _identity(symbol):
        raise ValueError(
            f"`path` must be free. Received: path={name}, held by {'.'.join(_identity(holder))} "
            f"and claimed by {'.'.join(_identity(symbol))}"
        )


def _identity(symbol: Any) -> tuple[str, str]:
    # Not the object: rerunning a notebook cell creates a new class with the same identity.
    return symbol.__module__, symbol.__qualname__


def _register(symbol: Any, names: list[str]) -> None:
    for name in names:  # the canonical name comes last: new files are written with it
        _claim(f"keras_gen>{name}", symbol, _keys)
        keras.saving.register_keras_serializable(package="keras_gen", name=name)(symbol)
        _keys[f"keras_gen>{name}"] = symbol


def _getter(module: Any) -> Callable[[str], Any]:
    return lambda name: _deprecated(module, name)


def _deprecated(module: Any, name: str) -> Any:
    path = _aliases.get(f"{module.__name__}.{name}")
    if path is None:
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    warnings.warn(f"{module.__name__}.{name} is deprecated: use {path}", DeprecationWarning, stacklevel=3)
    setattr(sys.modules[module.__name__], name, _symbols[path])  # so that it warns once
    return _symbols[path]
