"""Tests of many cases that list all that fail."""

import re
from collections.abc import Callable, Iterable
from typing import Any


def not_refused(cases: Iterable[tuple[str, Callable[[], Any], str]]) -> list[str]:
    """Returns a line for each (name, call, match) whose call raises no `ValueError` of a message that matches."""
    lines = []
    for name, call, match in cases:
        try:
            call()
        except ValueError as error:
            if not re.search(match, str(error)):
                lines.append(f"{name}: {error} does not match {match}")
        else:
            lines.append(f"{name}: no ValueError of {match}")
    return lines
