"""What README and documentation show must run, and what they name must exist."""

import os
import pathlib
import re
import subprocess
import sys

import keras
import pytest

import keras_gen
from keras_gen.export import NAMESPACES, exported

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
POSTS = (ROOT / "docs" / "posts.md").read_text(encoding="utf-8")

BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
# The imports and the data of the first block, which the others use.
SHARED = BLOCKS[0].partition("network =")[0]
# A page of docs/ is one program, each block of the README another.
PROGRAMS = {f"README {i}": SHARED * (i > 0) + block for i, block in enumerate(BLOCKS)}
for page in sorted((ROOT / "docs").glob("*.md")):
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if blocks:
        PROGRAMS[page.name] = "\n".join(blocks)


@pytest.mark.parametrize("name", PROGRAMS)
def test_python_blocks_run(name, tmp_path):
    program = PROGRAMS[name]
    (tmp_path / "program.py").write_text(program.replace('"jax"', repr(keras.backend.backend())))
    # Keras reads these two and cuts every `fit` short.
    environment = {**os.environ, "KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "2"}
    result = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    written = {path for path in re.findall(r'"([\w.]+\.(?:png|keras))"', program)}
    assert {file.name for file in tmp_path.iterdir()} == {"program.py", *written}


def test_names_exist():
    offenders = []
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        names = set(re.findall(rf"`((?:{'|'.join(NAMESPACES)})\.(?!py`)\w+)`", text))
        offenders += [f"{page.name}: no {name}" for name in names if f"keras_gen.{name}" not in exported()]
    assert not offenders, "\n".join(offenders)


@pytest.mark.one_backend
def test_the_chinese_page_shows_the_same_code():
    chinese = (ROOT / "README.zh.md").read_text(encoding="utf-8")
    assert re.findall(r"```.*?```", chinese, re.DOTALL) == re.findall(r"```.*?```", README, re.DOTALL)


@pytest.mark.one_backend
def test_links_and_files_exist():
    offenders = []
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                offenders.append(f"{page.name}: no {link}")
        files = re.findall(r"`((?:examples|keras_gen|benchmarks|docs|tests)/[\w/.]+)`", text)
        offenders += [f"{page.name}: no {path}" for path in files if not (ROOT / path).exists()]
    assert not offenders, "\n".join(offenders)


def anchors(page):
    """Returns the names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_example_is_named():
    scripts = [file for file in (ROOT / "examples").glob("*.py") if "\nif __name__" in file.read_text()]
    assert scripts
    for script in scripts:
        assert f"examples/{script.name}" in README + POSTS
        assert "kexue.fm" in script.read_text().splitlines()[0]


@pytest.mark.one_backend
def test_the_citation_is_of_this_version():
    assert f"\nversion: {keras_gen.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
