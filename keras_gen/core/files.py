"""Files: whole at any moment, and the errors of those that come from outside."""

import contextlib
import errno
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

# What Keras, HDF5 and JSON make of a damaged file.
DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, MemoryError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)


@contextlib.contextmanager
def reading(name: str, file: Any, rule: str, *errors: type[Exception]) -> Iterator[None]:
    """Gives the errors of those who read `file` the common form, with its path. See `keras_gen/core/checks.py`.

    Args:
        name: str. The argument that leads to the file.
        file: its path.
        rule: str. What the file must be.
        *errors: the exceptions that tell that it is not. Those of the operating system, that the file does not exist
            or must not be read, stay as they are, and that a library is missing.

    Raises:
        ValueError: in place of one of `errors`.
    """
    try:
        yield
    except errors as error:
        # EINVAL is that of a place outside of the file, to which damage leads.
        is_of_system = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if is_of_system or isinstance(error, ImportError):
            raise
        raise ValueError(f"`{name}` must {rule}. Received: {name}={file}: {error}") from error


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that takes the place of `path` at the end of the block, or is removed if that raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
