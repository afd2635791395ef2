"""Names, docstrings and signatures of everything public."""

import ast
import importlib
import inspect
import pathlib
import re
import sys

import keras_gen
from keras_gen.export import NAMESPACES, exported

SYMBOLS, FIRST = exported(), exported(also=False)
ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "public_api.txt"
# A folder is a kind: where the symbols of a base class lie, and where those of a namespace that have no such base.
FOLDERS = {
    "Bijector": "flows",
    "Base": "flows",
    "Quantizer": "quantization",
    "ImageNetwork": "networks/backbones",
    "UNetConventions": "networks/backbones",
    "LatentSampler": "hubness",
    "Flow": "flows",
    "LatentModel": "latent",
    "Prediction": "diffusion",
    "DiffusionModel": "diffusion/models",
    "GenerativeModel": "diffusion/models quantization autoregressive adversarial",
    "callbacks": "core evaluation",
    "config": "core core/torch",
    "data": "core sources autoregressive",
    "estimators": "latent/estimators",
    "initializers": "networks/blocks",
    "layers": "networks/blocks latent flows",
    "losses": "latent flows adversarial discriminative quantization diffusion/models",
    "metrics": "evaluation quantization",
    "models": "networks/backbones networks/text",
    "plots": "evaluation",
    "ops": "core core/calculus networks/blocks flows latent hubness evaluation diffusion quantization autoregressive",
    "samplers": "diffusion/samplers pretrained",
    "schedules": "diffusion/schedules pretrained",
    "tokenizers": "networks/text",
}
METHODS = (
    *("sample", "denoising_path", "denoise_from", "interpolate", "elbo", "encode", "decode", "reconstruct"),
    *("add_noise", "image_to_image", "inpaint", "invert", "adapt_variance", "reflow", "straightness"),
    *("cluster", "quantize", "adapt", "set_codebook", "log_prob", "bits_per_dim", "map_latents", "pool"),
    *("quantize_vectors", "encode_vectors", "decode_vectors", "fit_prior", "encode_prompts"),
    *("export_sampler", "export_method", "from_diffusers", "to_diffusers", "from_folder", "from_safetensors"),
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


def source(symbol):
    """The file of a symbol, from the root of the repository."""
    return pathlib.Path(inspect.getfile(symbol)).resolve().relative_to(ROOT)


def kind(path, symbol):
    """The first line of FOLDERS for one of the symbol's bases, and else for its namespace."""
    bases = [base.__name__ for base in inspect.getmro(symbol)] if inspect.isclass(symbol) else []
    return next((kind for kind in FOLDERS if kind in bases or kind == path.split(".")[1]), None)


def test_files_lie_in_the_folder_of_their_kind():
    offenders = []
    for path, symbol in FIRST.items():
        folder, folders = source(symbol).parent.relative_to("keras_gen").as_posix(), FOLDERS.get(kind(path, symbol), "")
        if folder not in folders.split():
            offenders.append(f"{path} in {source(symbol)}: {kind(path, symbol)} belongs to {folders or 'FOLDERS'}")
    assert not offenders, "\n".join(offenders)


def named_files(cell):
    """The files of a cell of the table of docs/posts.md: a name without a folder lies in that of the file before it."""
    folder = ""
    for name in re.findall(r"`([\w/]+\.py)`", cell):
        folder = name.rpartition("/")[0] or folder
        yield f"{folder}/{name.rpartition('/')[2]}"


def test_the_table_of_posts_names_the_files():
    offenders = []
    rows = re.findall(r"^\| \[\d+\].*\|$", (ROOT / "docs" / "posts.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows
    for _, _, _, classes, cell, *_ in (re.split(r"(?<!\\)\|", row) for row in rows):
        files = list(named_files(cell))
        offenders += [f"no {file}" for file in files if not (ROOT / file).exists()]
        offenders += [f"{file} twice in the row of{classes}" for file in set(files) if files.count(file) > 1]
        for path, method in re.findall(r"`(\w+\.\w+)(?:\.(\w+))?`", classes):
            symbol = SYMBOLS[f"keras_gen.{path}"]
            file = source(getattr(symbol, method) if method else symbol).as_posix()
            if file not in files:
                offenders.append(f"{path}: its row does not name {file}")
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
    for path, symbol in FIRST.items():
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
    entries = documented(symbol.__doc__)
    if "dtype" not in entries:
        arguments.pop("dtype", None)  # one of the **kwargs; caught by name to hand it on
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
        own = (
            "keras_gen.callbacks",
            "keras_gen.data",
            "keras_gen.plots",
            "keras_gen.ops.image_grid",
            "keras_gen.samplers.DiffusionSampler",
        )
        # A method has its class's.
        if "Reference:" not in docstring and not path.startswith(own) and path.count(".") <= 2:
            offenders.append(f"{path}: no Reference")
    assert not offenders, "\n".join(offenders)


def public_paths(text):
    """Writes classes by their public paths, and those that have none by their names: files move, names stay."""
    for path, symbol in FIRST.items():
        text = re.sub(rf"\b{re.escape(f'{symbol.__module__}.{symbol.__qualname__}')}\b", path, text)
    return re.sub(r"\bkeras_gen\.(?:\w+\.)+?\w+\.(?=[A-Z])", private_path, text).replace("keras.src.", "keras.")


def private_path(match):
    return match.group() if match.group().split(".")[1] in NAMESPACES else ""


def overview():
    """Every public name by namespace, with the first sentence of its docstring."""
    lines = ["# Every public class and function", "", "Written by `pytest tests/test_public_api.py --update-api`."]
    for namespace in NAMESPACES:
        lines += ["", f"## keras_gen.{namespace}", "", inspect.cleandoc(getattr(keras_gen, namespace).__doc__), ""]
        for path, symbol in SYMBOLS.items():
            if path.split(".")[1] == namespace:
                headline = " ".join(inspect.cleandoc(symbol.__doc__).partition("\n\n")[0].split())
                lines.append(f"- `{path.rpartition('.')[2]}`: {headline}")
    return "\n".join(lines) + "\n"


def test_overview_is_current(request):
    page = ROOT / "docs" / "overview.md"
    if request.config.getoption("--update-api"):
        page.write_text(overview(), encoding="utf-8")
    assert page.read_text(encoding="utf-8") == overview(), "run pytest --update-api"


def test_signatures_are_the_recorded_ones(request):
    lines = [f"{path}{public_paths(str(signature(symbol)))}" for path, symbol in CALLABLES.items()]
    first = {symbol: path for path, symbol in FIRST.items()}
    lines += [f"{path} = {first[symbol]}" for path, symbol in SYMBOLS.items() if path not in FIRST]
    text = "\n".join(sorted(lines)) + "\n"
    if request.config.getoption("--update-api"):
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text, "run pytest --update-api and review the difference"
