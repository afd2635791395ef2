"""Names, docstrings and signatures of everything public."""

import ast
import importlib
import inspect
import pathlib
import re
import sys

import pytest

import keras_gen
from keras_gen.export import NAMESPACES, exported

SYMBOLS = exported()
GOLDEN = pathlib.Path(__file__).parent / "public_api.txt"
METHODS = (
    *("sample", "denoising_path", "denoise_from", "interpolate", "elbo", "encode", "decode", "reconstruct"),
    *("add_noise", "image_to_image", "inpaint", "invert", "adapt_variance", "reflow", "straightness"),
    *("cluster", "quantize", "adapt", "set_codebook", "log_prob", "bits_per_dim", "map_latents", "pool"),
    *("encode_vectors", "decode_vectors", "from_diffusers", "fit_prior"),
)
OURS = {module for name, module in sys.modules.items() if name.startswith("keras_gen.")}
PRESENT = [name for name in NAMESPACES if hasattr(keras_gen, name)]


@pytest.mark.parametrize("path", SYMBOLS)
def test_path_is_the_symbol(path):
    module, _, name = path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is SYMBOLS[path]


@pytest.mark.parametrize("namespace", PRESENT)
def test_namespace_holds_nothing_else(namespace):
    names = {name for name in vars(getattr(keras_gen, namespace)) if not name.startswith("_")}
    assert names == {path.rpartition(".")[2] for path in SYMBOLS if path.split(".")[1] == namespace}


@pytest.mark.parametrize("path", SYMBOLS)
def test_file_is_named_after_the_symbol(path):
    name = path.rpartition(".")[2]
    name = name.replace("UNet", "Unet").replace("DiT", "Dit").replace("1x1Conv", "_1X1_conv").replace("R1P", "R1_p")
    words = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    assert pathlib.Path(inspect.getfile(SYMBOLS[path])).stem == words.lower()


def signature(symbol):
    """Of a class that of its constructor: early patches of Python 3.11 give that of Keras's `__new__`."""
    if not inspect.isclass(symbol) or symbol.__init__ is object.__init__:
        return inspect.signature(symbol)
    found = inspect.signature(symbol.__init__)
    return found.replace(parameters=list(found.parameters.values())[1:])


def arguments_of(symbol):
    parameters = list(signature(symbol).parameters.values())
    return {
        ("**" if p.kind is p.VAR_KEYWORD else "*" if p.kind is p.VAR_POSITIONAL else "") + p.name: p.default
        for p in parameters
    }


def documented(docstring):
    section = re.search(r"\n\s*Args:\n(.*?)(\n\n|$)", inspect.cleandoc(docstring), re.DOTALL)
    text = section.group(1) if section else ""
    return dict(re.findall(r"^ {4}(\*{0,2}\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE))


def public_callables():
    for path, symbol in SYMBOLS.items():
        yield path, symbol
        if inspect.isclass(symbol):
            for name in METHODS:
                if inspect.getmodule(getattr(symbol, name, None)) in OURS:
                    yield f"{path}.{name}", getattr(symbol, name)


CALLABLES = dict(public_callables())


@pytest.mark.parametrize("path", CALLABLES)
def test_docstring_has_the_signature(path):
    arguments = {name: default for name, default in arguments_of(CALLABLES[path]).items() if name != "self"}
    arguments.pop("dtype", None)  # one of the **kwargs; caught by name to hand it on
    entries = documented(CALLABLES[path].__doc__)
    assert set(entries) == set(arguments)
    for name, default in arguments.items():
        entry = " ".join(entries[name].split())
        stated = re.search(r"Defaults to `+(.*?)`+[.,;]", entry)
        if isinstance(default, int | float | str | tuple) and not isinstance(default, type) and "as for" not in entry:
            assert stated, f"{name} has no default in the docstring"
            assert ast.literal_eval(stated.group(1)) == default, name


@pytest.mark.parametrize("path", CALLABLES)
def test_docstring_is_whole(path):
    symbol, docstring = CALLABLES[path], inspect.cleandoc(CALLABLES[path].__doc__)
    if arguments_of(symbol) if inspect.isclass(symbol) else "check" in inspect.getsource(symbol):
        assert "Raises:" in docstring
    own = path.startswith(("keras_gen.callbacks", "keras_gen.ops.image_grid", "keras_gen.samplers.DiffusionSampler"))
    assert "Reference:" in docstring or own or path.count(".") > 2  # a method has its class's


def public_paths(text):
    """Writes classes by their public paths, and those that have none by their names: files move, names stay."""
    for path, symbol in SYMBOLS.items():
        text = re.sub(rf"\b{re.escape(f'{symbol.__module__}.{symbol.__qualname__}')}\b", path, text)
    return re.sub(r"\bkeras_gen\.(?:\w+\.)+?\w+\.(?=[A-Z])", private_path, text).replace("keras.src.", "keras.")


def private_path(match):
    return match.group() if match.group().split(".")[1] in NAMESPACES else ""


def test_signatures_are_the_recorded_ones(request):
    lines = sorted(f"{path}{public_paths(str(signature(symbol)))}" for path, symbol in CALLABLES.items())
    text = "\n".join(lines) + "\n"
    if request.config.getoption("--update-api"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text, "run pytest --update-api and review the difference"
