"""Files that are complete at any moment, and clear errors for damaged ones."""

import contextlib
import errno
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Any

# Raised by Keras, HDF5 and JSON for a damaged file.
DAMAGE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, MemoryError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)


@contextlib.contextmanager
def reading(name: str, file: Any, rule: str, *errors: type[Exception]) -> Iterator[None]:
    """Converts the errors of reading `file` to the common form, with its path. See `keras_gen/core/checks.py`.

    Args:
        name: str. The argument that leads to the file.
        file: its path.
        rule: str. What the file must be.
        *errors: the exceptions that show that it is not. Errors of the operating system, such as that of a missing
            file, and those of missing libraries are passed on unchanged.

    Raises:
        ValueError: in place of one of `errors`.
    """
    try:
        yield
    except errors as error:
        # EINVAL stands for a position outside of the file, which is found in damaged ones.
        is_of_system = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if is_of_system or isinstance(error, ImportError):
            raise
        raise ValueError(f"`{name}` must {rule}. Received: {name}={file}: {error}") from error


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that replaces `path` at the end of the block, or is removed if the block raises."""
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
