"""A bar where someone looks on, a line where the output is kept."""

import sys

import numpy as np
import pytest

from keras_gen.core.compiled import progress_bar

pytestmark = pytest.mark.one_backend


def written(capsys, verbose):
    bar = progress_bar(100, verbose)
    for _ in range(100):
        bar.add(1)
    return capsys.readouterr().out


def test_auto_is_a_line_in_a_file_and_a_bar_in_a_terminal(capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert written(capsys, 0) == ""
    line = written(capsys, "auto")
    assert line.count("100/100") == 1
    assert line == line.rstrip("\n") + "\n"
    assert len(line.splitlines()) == 1
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert len(written(capsys, "auto")) > len(line)
    assert np.char.count(written(capsys, 1), "100/100") >= 1
