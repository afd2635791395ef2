"""Names, docstrings and signatures of everything public."""

import ast
import importlib
import inspect
import pathlib
import re
import sys

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


def test_paths_are_the_symbols():
    offenders = []
    for path, symbol in SYMBOLS.items():
        module, _, name = path.rpartition(".")
        if getattr(importlib.import_module(module), name, None) is not symbol:
            offenders.append(path)
    assert not offenders, "\n".join(offenders)


def test_namespaces_hold_nothing_else():
    offenders = []
    for namespace in (name for name in NAMESPACES if hasattr(keras_gen, name)):
        names = {name for name in vars(getattr(keras_gen, namespace)) if not name.startswith("_")}
        exported_names = {path.rpartition(".")[2] for path in SYMBOLS if path.split(".")[1] == namespace}
        offenders += [f"keras_gen.{namespace}.{name}" for name in sorted(names ^ exported_names)]
    assert not offenders, "\n".join(offenders)


def test_files_are_named_after_the_symbols():
    offenders = []
    for path, symbol in SYMBOLS.items():
        name = path.rpartition(".")[2]
        name = name.replace("UNet", "Unet").replace("DiT", "Dit").replace("1x1Conv", "_1X1_conv")
        words = re.sub(r"(?<=[a-z])(?=[A-Z0-9])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.replace("R1P", "R1_p"))
        if pathlib.Path(inspect.getfile(symbol)).stem != words.lower():
            offenders.append(f"{path} in {inspect.getfile(symbol)}")
    assert not offenders, "\n".join(offenders)


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


def test_docstrings_have_the_signatures():
    offenders = [f"{path}: {fault}" for path, symbol in CALLABLES.items() for fault in faults_of_arguments(symbol)]
    assert not offenders, "\n".join(offenders)


def faults_of_arguments(symbol):
    arguments = {name: default for name, default in arguments_of(symbol).items() if name != "self"}
    arguments.pop("dtype", None)  # one of the **kwargs; caught by name to hand it on
    entries = documented(symbol.__doc__)
    yield from (f"no argument {name}" for name in entries if name not in arguments)
    yield from (f"{name} is not documented" for name in arguments if name not in entries)
    for name in entries.keys() & arguments.keys():
        entry, default = " ".join(entries[name].split()), arguments[name]
        stated = re.search(r"Defaults to `+(.*?)`+[.,;]", entry)
        if isinstance(default, int | float | str | tuple) and not isinstance(default, type) and "as for" not in entry:
            if not stated:
                yield f"{name} has no default in the docstring"
            elif ast.literal_eval(stated.group(1)) != default:
                yield f"{name} defaults to {default!r}, not {stated.group(1)}"


def test_docstrings_are_whole():
    offenders = []
    for path, symbol in CALLABLES.items():
        docstring = inspect.cleandoc(symbol.__doc__)
        checks = arguments_of(symbol) if inspect.isclass(symbol) else "check" in inspect.getsource(symbol)
        if checks and "Raises:" not in docstring:
            offenders.append(f"{path}: no Raises")
        own = ("keras_gen.callbacks", "keras_gen.ops.image_grid", "keras_gen.samplers.DiffusionSampler")
        # A method has its class's.
        if "Reference:" not in docstring and not path.startswith(own) and path.count(".") <= 2:
            offenders.append(f"{path}: no Reference")
    assert not offenders, "\n".join(offenders)


def test_signatures_are_the_recorded_ones(request):
    lines = sorted(f"{path}{signature(symbol)}" for path, symbol in CALLABLES.items())
    text = "\n".join(line.replace("keras.src.", "keras.") for line in lines) + "\n"
    if request.config.getoption("--update-api"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text, "run pytest --update-api and review the difference"
