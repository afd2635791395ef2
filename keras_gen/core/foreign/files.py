"""Folders of diffusers and transformers, `config.json` and safetensors: read tensor by tensor, written whole."""

import json
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_gen.core.checks import check
from keras_gen.core.files import DAMAGE, reading

CONFIG = "config.json"
PIPELINE = "model_index.json"
LARGEST_FILE = 10**10  # bytes of weights, as in diffusers; above it they are sharded
DTYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}  # names of the format
NUMPY = {theirs: ours for ours, theirs in DTYPES.items()}


class Tensors(NamedTuple):
    """Tensors by name: shapes and dtypes are known, values are read one at a time."""

    place: Any  # a path, or the class of a module
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    read: Callable[[str], np.ndarray]


class _Header(NamedTuple):
    """What a file says about one of its tensors, whose bytes begin at `start`."""

    file: pathlib.Path
    start: int
    shape: tuple[int, ...]
    dtype: str


def open_source(
    source: Any, classes: Sequence[str], stem: str, variant: str | None
) -> tuple[Any, dict[str, Any], Tensors]:
    """Returns the place of the configuration, the configuration and the tensors of a folder or a PyTorch module.

    Args:
        source: path of a folder, or a module.
        classes: names of the module's possible classes.
        stem: str. Name of the file of weights, without its suffixes.
        variant: str or `None`. The part of the name before the suffix, such as `"fp16"`.
    """
    if hasattr(source, "config") and hasattr(source, "state_dict"):
        check(variant is None, "variant", "be None for a module", repr(variant))
        return type(source).__name__, _module_config(source), _module_tensors(source)
    is_name = variant is None or (isinstance(variant, str) and re.fullmatch(r"[\w-]+", variant) is not None)
    check(is_name, "variant", "be None, or the part of a file's name, such as 'fp16'", repr(variant))
    folder = _checked_folder(source, classes, stem)
    return folder / CONFIG, read_object(folder / CONFIG), _folder_tensors(folder, stem, variant)


def _module_config(module: Any) -> dict[str, Any]:
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else module.config
    return {**config, "_class_name": type(module).__name__}


def _module_tensors(module: Any) -> Tensors:
    tensors = {name: tensor.detach() for name, tensor in module.state_dict().items()}
    dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}

    def read(name: str) -> np.ndarray:
        tensor = tensors[name].cpu()
        # PyTorch converts no bfloat16 to NumPy.
        return (tensor.float() if dtypes[name] == "bfloat16" else tensor).numpy()

    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return Tensors(type(module).__name__, shapes, {name: DTYPES.get(own, own) for name, own in dtypes.items()}, read)


def _checked_folder(source: Any, classes: Sequence[str], stem: str) -> pathlib.Path:
    article = "an" if classes[0][0] in "AEIO" else "a"
    rule = f"be {article} {' or '.join(classes)}, or a folder with {CONFIG} and {stem}.safetensors"
    check(isinstance(source, str | os.PathLike), "source", rule, type(source).__name__)
    folder = pathlib.Path(source)
    if (folder / PIPELINE).is_file():
        rule += f": of a pipeline, give the folder of a part{_parts_of(folder, classes)}"
    check((folder / CONFIG).is_file(), "source", f"{rule}{how_to_get(source)}", folder)
    return folder


def how_to_get(folder: Any) -> str:
    """Returns the end of an error message: how to turn a file or a repository into a folder."""
    path = pathlib.Path(folder)
    if path.is_file():
        return ": one file, as of the original layout, becomes a folder by `from_single_file` of diffusers"
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder)):
        return f": `hf download {folder} --local-dir {path.name}` downloads a repository"
    return ""


def _parts_of(pipeline: pathlib.Path, classes: Sequence[str]) -> str:
    parts = read_object(pipeline / PIPELINE).items()  # as in "unet": ["diffusers", "UNet2DConditionModel"]
    fitting = [name for name, value in parts if isinstance(value, list) and value and value[-1] in classes]
    return f", here {' or '.join(fitting)}" if fitting else ""


def read_object(file: pathlib.Path, name: str = "source") -> dict[str, Any]:
    """Returns the object in a JSON file; errors name the argument that led to the file."""
    with reading(name, file, "have an object in JSON", *DAMAGE):
        value = json.loads(file.read_text(encoding="utf-8"))
        check(isinstance(value, dict), "config", "be an object with keys and values", repr(value)[:80])
        return value


def _folder_tensors(folder: pathlib.Path, stem: str, variant: str | None) -> Tensors:
    infix = "" if variant is None else f".{variant}"
    whole, index = folder / f"{stem}{infix}.safetensors", folder / f"{stem}.safetensors.index{infix}.json"
    if not whole.is_file() and not index.is_file():
        suffixes = (".bin", ".ckpt", ".json", ".msgpack", ".pt", ".safetensors")
        others = sorted(file.name for file in folder.iterdir() if file.suffix in suffixes and file.name != CONFIG)
        rule = f"hold {whole.name}, or a `variant`: other files are not read, pickles in particular"
        check(False, "source", rule, f"{folder} with {others}")
    return _tensors(*((whole, [whole]) if whole.is_file() else (index, _shards(index))))


def open_file(source: Any) -> Tensors:
    """Returns the tensors of one file in safetensors."""
    rule = "be the path of a file in safetensors: other files are not read, pickles in particular"
    is_path = isinstance(source, str | os.PathLike) and pathlib.Path(source).suffix == ".safetensors"
    check(is_path and pathlib.Path(source).is_file(), "source", rule, source)
    return _tensors(pathlib.Path(source), [pathlib.Path(source)])


def _tensors(place: pathlib.Path, files: Sequence[pathlib.Path]) -> Tensors:
    headers: dict[str, _Header] = {}
    for file in files:
        own = _headers(file)
        twice = sorted(headers.keys() & own.keys())
        check(not twice, "source", "hold each tensor once", f"{file} with {', '.join(twice)} again")
        headers |= own

    def read(name: str) -> np.ndarray:
        # Maps this tensor alone: a map of the whole file would count as memory, in addition to the network's.
        header = headers[name]
        return np.memmap(header.file, NUMPY[header.dtype], "r", header.start, header.shape)

    shapes = {name: header.shape for name, header in headers.items()}
    return Tensors(place, shapes, {name: header.dtype for name, header in headers.items()}, read)


def _shards(index: pathlib.Path) -> list[pathlib.Path]:
    with reading("source", index, "be an index of shards", ValueError):
        shards = read_object(index).get("weight_map")
        names = sorted(set(map(str, shards.values()))) if isinstance(shards, dict) else []
        check(len(names) > 0, "weight_map", "be an object with names of files", repr(shards)[:80])
        inside = all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names)
        check(inside, "weight_map", "name safetensors beside the index", names)
        missing = [name for name in names if not (index.parent / name).is_file()]
        check(not missing, "weight_map", "name files that exist", missing)
    return [index.parent / name for name in names]


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError("Weights in safetensors need `pip install safetensors`") from error
    return safetensors


def _headers(file: pathlib.Path) -> dict[str, _Header]:
    """Returns the headers of the tensors in a file, after safetensors has checked that they fill the file."""
    library = _safetensors()
    damage = reading("source", file, "have a whole file of weights", *DAMAGE, library.SafetensorError)
    with damage, library.safe_open(file, framework="numpy"), open(file, "rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        tensors = json.loads(opened.read(size))
    tensors.pop("__metadata__", None)
    return {
        name: _Header(file, 8 + size + own["data_offsets"][0], tuple(own["shape"]), own["dtype"])
        for name, own in tensors.items()
    }


def write_folder(
    folder: Any, config: dict[str, Any], stem: str, shards: Sequence[Callable[[], dict[str, np.ndarray]]]
) -> None:
    """Writes a configuration and weights, in one file or as shards with an index.

    All files are complete before any of them is moved to its place. The configuration comes last: a folder without it
    is not a model.

    Args:
        folder: path of the folder, which is created if it does not exist.
        config: the configuration.
        stem: str. Name of the file of weights, without its suffixes.
        shards: functions that return the tensors of each file, by name.
    """
    check(isinstance(folder, str | os.PathLike), "folder", "be a path", type(folder).__name__)
    folder = pathlib.Path(folder)
    check(not folder.is_file(), "folder", "be the path of a folder", folder)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        names = _write_weights(pathlib.Path(beside), stem, shards)
        (pathlib.Path(beside) / CONFIG).write_text(text, encoding="utf-8")
        for old in (folder / CONFIG, *_weights_in(folder, stem)):
            old.unlink(missing_ok=True)
        for name in (*names, CONFIG):
            os.replace(pathlib.Path(beside) / name, folder / name)


def _weights_in(folder: pathlib.Path, stem: str) -> Iterable[pathlib.Path]:
    """Returns the older files that could be mistaken for the network's; those of variants have other names."""
    pattern = rf"{re.escape(stem)}(-\d+-of-\d+)?\.safetensors(\.index\.json)?"
    return [file for file in folder.iterdir() if re.fullmatch(pattern, file.name)]


def _write_weights(folder: pathlib.Path, stem: str, shards: Sequence[Callable[[], dict[str, np.ndarray]]]) -> list[str]:
    """Writes the files of weights and returns their names."""
    count, total = len(shards), 0
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        tensors = shard()
        name = f"{stem}.safetensors" if count == 1 else f"{stem}-{number:05}-of-{count:05}.safetensors"
        _safetensors().numpy.save_file(tensors, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    files = sorted(set(places.values()))
    if count == 1:
        return files
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [*files, f"{stem}.safetensors.index.json"]
