"""Weights of other libraries, read and written by a table: a toy network, and what is refused."""

import json
import sys

import keras
import ml_dtypes
import numpy as np
import pytest
from offenders import not_refused

from keras_gen.core.fixtures import to_numpy
from keras_gen.core.foreign import files
from keras_gen.core.foreign import weights as foreign_weights
from keras_gen.core.foreign.memory import as_value, copy_to, is_finite, packed, room_for
from keras_gen.core.foreign.weights import (
    CONVOLUTION,
    POINTWISE,
    SAME,
    TRANSPOSED,
    Entry,
    ForeignWeights,
    copied,
    entries,
    joined,
    reordered,
    rolled,
)

pytest.importorskip("safetensors")
from safetensors.numpy import load_file, save_file

WEIGHTS = "model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
CONFIG = {"architectures": ["Toy"], "width": 6, "layers": 2}


@keras.saving.register_keras_serializable("tests")
class Toy(ForeignWeights, keras.Model):
    foreign_classes = ("Toy", "ToyWithHead")
    foreign_file = "model"
    foreign_prefixes = ("toy.",)
    foreign_ignored = ("toy.positions",)
    foreign_sizes = ("width",)
    foreign_layers = ("layers",)

    def __init__(self, width, dtype=None):
        x = keras.Input((4, 4, 3))
        h = keras.layers.Conv2D(width, (3, 1), name="conv", dtype=dtype)(x)
        h = keras.layers.Dense(2 * width, name="both", dtype=dtype)(h)
        h = keras.layers.LayerNormalization(name="norm", dtype=dtype)(h)
        super().__init__(x, keras.layers.Dropout(0.5, seed=1)(h))
        self.width = width

    @classmethod
    def foreign_arguments(cls, config):
        assert config["_class_name"] in cls.foreign_classes
        return {"width": config["width"]}

    def foreign_config(self):
        return {**CONFIG, "width": self.width}

    def foreign_table(self):
        both = self.get_layer("both")
        return [
            *entries(self.get_layer("conv"), "conv"),
            Entry(both.kernel, ("a.weight", "b.weight"), joined(TRANSPOSED), (("old.a", "old.b"),)),
            Entry(both.bias, ("a.bias", "b.bias"), joined(SAME)),
            *entries(self.get_layer("norm"), "norm"),
        ]


def tensors(dtype="float32"):
    shapes = {"conv.weight": (6, 3, 3, 1), "conv.bias": (6,), "norm.weight": (12,), "norm.bias": (12,)}
    shapes |= {"a.weight": (6, 6), "a.bias": (6,), "b.weight": (6, 6), "b.bias": (6,)}
    generator = np.random.default_rng(0)
    return {name: generator.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def write(folder, weights=None, config=CONFIG, name=WEIGHTS):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors() if weights is None else weights, folder / name)
    return folder


def write_shards(folder, **changes):
    """Writes two shards; `changes` are of the index."""
    weights = tensors()
    half = {name: weights.pop(name) for name in list(weights)[:3]}
    write(folder, half, name="model-00001-of-00002.safetensors")
    write(folder, weights, name="model-00002-of-00002.safetensors")
    shards = {name: f"model-0000{1 if name in half else 2}-of-00002.safetensors" for name in (*half, *weights)}
    (folder / INDEX).write_text(json.dumps({"weight_map": {**shards, **changes}}))
    return folder


def equal(written, expected):
    assert written.keys() == expected.keys()
    for name, tensor in expected.items():
        assert written[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)


def kernel_of(network):
    return to_numpy(network.get_layer("both").kernel)


@pytest.mark.one_backend
def test_layouts_invert_each_other_and_tell_the_shapes_of_tensors():
    blocks = np.arange(12.0).reshape(2, 6)
    cases = {
        "same": (SAME, [np.arange(3)], np.arange(3)),
        "transposed": (TRANSPOSED, [blocks], blocks.T),
        "convolution": (CONVOLUTION, [np.arange(24).reshape(2, 3, 4, 1)], None),
        "pointwise": (POINTWISE, [blocks[:, :, None, None]], blocks.T),
        "joined": (joined(TRANSPOSED), [blocks, -blocks], np.concatenate([blocks.T, -blocks.T], -1)),
        "copied": (copied(TRANSPOSED), [blocks] * 3, blocks.T),
        "reordered": (reordered(SAME, [2, 0, 1]), [blocks], blocks[:, [4, 5, 0, 1, 2, 3]]),
        "reordered matrix": (reordered(TRANSPOSED, [1, 0]), [blocks], blocks.T[:, [1, 0]]),
        "rolled": (rolled(TRANSPOSED), [blocks], blocks.T[[3, 4, 5, 0, 1, 2]]),
    }
    for name, (layout, given, expected) in cases.items():
        array = layout.read(given)
        if expected is not None:
            np.testing.assert_array_equal(array, expected, err_msg=name)
        back = layout.write(array, len(given))
        np.testing.assert_array_equal(np.stack(back), np.stack(given), err_msg=name)
        assert layout.shapes(array.shape, len(given)) == [tensor.shape for tensor in given], name
    kernel = CONVOLUTION.read([np.arange(24).reshape(2, 3, 4, 1)])
    assert kernel.shape == (4, 1, 3, 2)
    assert kernel[3, 0, 2, 1] == 23
    with pytest.raises(ValueError, match="must hold 2 equal copies"):
        copied(SAME).read([blocks, -blocks])


@pytest.mark.one_backend
def test_packed_arrays_are_contiguous_and_equal():
    array = np.random.default_rng(0).normal(size=(5, 37)).astype("float16")
    for given in (array, array.T, array[:, ::2]):
        actual = packed(given, "float32")
        assert actual.flags.c_contiguous
        assert actual.dtype == "float32"
        np.testing.assert_array_equal(actual, given)
    assert packed(array) is array or np.shares_memory(packed(array), array)


def test_memory_of_all_shapes_and_dtypes_becomes_a_variable():
    for shape, dtype in (((3, 20), "float32"), ((), "float32"), ((2, 3), "float16"), ((5,), "bfloat16")):
        given = np.arange(np.prod(shape), dtype="float32").reshape(shape[::-1]).T
        array = room_for(shape, dtype)
        copy_to(array, given)
        assert is_finite(array)
        variable = keras.Variable(lambda shape, dtype, array=array: as_value(array), shape, dtype)
        assert variable.dtype == dtype
        np.testing.assert_array_equal(to_numpy(variable).astype("float32"), given)
        variable.assign(2 * given)
        np.testing.assert_array_equal(to_numpy(variable).astype("float32"), 2 * given)
        broken = room_for(shape, dtype)
        broken[...] = np.inf
        assert not is_finite(broken)


def test_reads_and_writes_a_folder(tmp_path):
    weights = tensors()
    network = Toy.from_diffusers(write(tmp_path / "source"))
    kernel = np.concatenate([weights["a.weight"].T, weights["b.weight"].T], -1)
    np.testing.assert_array_equal(kernel_of(network), kernel)
    assert all(weight.trainable for weight in network.weights)
    seeds = [variable for variable in network.variables if "seed" in variable.path]
    assert to_numpy(seeds[0]).tolist() == [1, 0]  # what is not of the file has its own initial value
    network.to_diffusers(tmp_path / "copy")
    equal(load_file(tmp_path / "copy" / WEIGHTS), weights)
    assert json.loads((tmp_path / "copy" / "config.json").read_text()) == CONFIG
    network.to_diffusers(str(tmp_path / "copy"))  # again, in place of the first
    assert {file.name for file in (tmp_path / "copy").iterdir()} == {"config.json", WEIGHTS}


def test_reads_shards_links_variants_prefixes_older_names_and_what_is_ignored(tmp_path):
    expected = kernel_of(Toy.from_diffusers(write(tmp_path / "plain")))
    weights = tensors()
    old = {{"a.weight": "old.a", "b.weight": "old.b"}.get(name, name): tensor for name, tensor in weights.items()}
    prefixed = {f"toy.{name}": tensor for name, tensor in weights.items()}
    blobs = write(tmp_path / "blobs")
    (tmp_path / "linked").mkdir()
    for name in ("config.json", WEIGHTS):
        (tmp_path / "linked" / name).symlink_to(blobs / name)
    folders = [
        write_shards(tmp_path / "shards"),
        tmp_path / "linked",
        write(tmp_path / "old", old),
        write(tmp_path / "prefixed", {**prefixed, "positions": np.arange(3)}),
        write(tmp_path / "ignored", {**weights, "toy.positions": np.arange(3)}),
        write(tmp_path / "class", config={"_class_name": "ToyWithHead", "width": 6}),
    ]
    for folder in folders:
        np.testing.assert_array_equal(kernel_of(Toy.from_diffusers(folder)), expected, err_msg=folder.name)
    variant = write(tmp_path / "fp16", tensors("float16"), name="model.fp16.safetensors")
    half = kernel_of(Toy.from_diffusers(variant, variant="fp16"))
    np.testing.assert_array_equal(half, expected.astype("float16").astype("float32"))


def test_half_precision_stays_or_is_converted_by_the_dtype(tmp_path):
    folder = write(tmp_path / "source", tensors(ml_dtypes.bfloat16))
    for dtype, variables in ((None, "float32"), ("bfloat16", "bfloat16"), ("mixed_bfloat16", "float32")):
        network = Toy.from_diffusers(folder, dtype=dtype)
        assert {weight.dtype for weight in network.weights} == {variables}
        network.to_diffusers(tmp_path / "copy")
        own = {name: tensor.astype(variables) for name, tensor in tensors(ml_dtypes.bfloat16).items()}
        equal(load_file(tmp_path / "copy" / WEIGHTS), own)


def test_writes_shards_that_read_as_before(tmp_path, monkeypatch):
    network = Toy.from_diffusers(write(tmp_path / "source"))
    network.to_diffusers(tmp_path / "copy")
    monkeypatch.setattr(foreign_weights, "LARGEST_FILE", 500)
    network.to_diffusers(tmp_path / "copy")
    files = sorted(file.name for file in (tmp_path / "copy").iterdir())
    assert files == ["config.json", *[f"model-0000{i}-of-00002.safetensors" for i in (1, 2)], INDEX]
    index = json.loads((tmp_path / "copy" / INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors().values())
    assert index["weight_map"].keys() == tensors().keys()
    np.testing.assert_array_equal(kernel_of(Toy.from_diffusers(tmp_path / "copy")), kernel_of(network))


def test_a_failure_leaves_no_folder_that_reads_as_whole(tmp_path, monkeypatch):
    network = Toy.from_diffusers(write(tmp_path / "source"))
    network.to_diffusers(tmp_path / "copy")
    before = {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()}

    def fail(*args, **kwargs):
        raise OSError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.numpy.save_file", fail)
        for folder in ("copy", "new"):
            with pytest.raises(OSError, match="disk is full"):
                network.to_diffusers(tmp_path / folder)
    assert {file.name: file.read_bytes() for file in (tmp_path / "copy").iterdir()} == before
    assert not any((tmp_path / "new").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", fail)
        with pytest.raises(OSError, match="disk is full"):
            network.to_diffusers(tmp_path / "copy")
    with pytest.raises(ValueError, match=r"with config.json"):
        Toy.from_diffusers(tmp_path / "copy")


def test_no_initial_value_is_drawn_and_keras_works_after_an_error(tmp_path, monkeypatch):
    def draw(self, shape, dtype=None):
        raise AssertionError("drawn")

    folder = write(tmp_path / "source")
    weights = tensors()
    weights["b.bias"][2] = np.inf
    broken = write(tmp_path / "broken", weights)
    with monkeypatch.context() as patch:
        patch.setattr(keras.initializers.GlorotUniform, "__call__", draw)
        if keras.backend.backend() == "tensorflow":  # whose symbolic calls trace the initializer
            patch.undo()
        Toy.from_diffusers(folder)
        for _ in range(2):
            with pytest.raises(ValueError, match="`weights` must be finite in float32. Received: .*b.bias"):
                Toy.from_diffusers(broken)

    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(foreign_weights, "copy_to", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Toy.from_diffusers(folder)
    with keras.StatelessScope():  # would fail on variables that were left without a value
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
    assert to_numpy(layer.kernel).shape == (3, 2)


def test_refused_files(tmp_path):
    whole = write(tmp_path / "whole")
    content = (whole / WEIGHTS).read_bytes()
    weights = tensors()
    cases = []

    def refused(name, match, folder, **kwargs):
        cases.append((name, lambda: Toy.from_diffusers(folder, **kwargs), match))

    def changed(name, **changes):
        kept = {key: tensor for key, tensor in {**weights, **changes}.items() if tensor is not None}
        return write(tmp_path / name, kept)

    file = f"source={tmp_path}/.*: "
    refused("missing", f"{file}`source` must contain the weight b.weight", changed("missing", **{"b.weight": None}))
    refused(
        "extra",
        f"{file}`source` must contain only a Toy's weights.*=c.weight",
        changed("extra", **{"c.weight": np.ones(2)}),
    )
    refused(
        "shape",
        rf"{file}.*contain b.weight of shape \(6, 6\).*=\(6, 5\)",
        changed("shape", **{"b.weight": np.ones((6, 5))}),
    )
    refused("nan", f"{file}`weights` must be finite", changed("nan", **{"a.bias": np.full(6, np.nan)}))
    refused(
        "large",
        f"{file}`weights` must be finite in float16",
        changed("large", **{"a.bias": np.full(6, 1e6)}),
        dtype="float16",
    )
    refused(
        "integers",
        f"{file}`weights` must be float64, .*a.bias': 'I64'",
        changed("integers", **{"a.bias": np.arange(6)}),
    )
    for length in (0, 7, 100, len(content) - 1):
        folder = write(tmp_path / f"cut_{length}")
        (folder / WEIGHTS).write_bytes(content[:length])
        refused(f"cut at {length}", f"have a whole file of weights. Received: source={folder}/{WEIGHTS}", folder)
    for i, text in enumerate((b"{", b"", b"[]", b"null", b"3", b"\xff", b"[" * 100_000)):
        folder = write(tmp_path / f"config_{i}")
        (folder / "config.json").write_bytes(text)
        refused(f"config {text[:4]!r}", f"have an object in JSON. Received: source={folder}/config.json", folder)
    for name, config, match in (
        ("class", {"architectures": ["T5"]}, "`architectures` must be 'Toy' or 'ToyWithHead' for a Toy"),
        ("diffusers class", {"_class_name": "UNet"}, "`_class_name` must be 'Toy' or"),
        ("several", {"architectures": ["Toy", "T5"]}, "`architectures` must be 'Toy' or"),
        ("width", {"width": 10**9}, "`width` must be sizes of weights"),
        ("layers", {"layers": [1, 10**9]}, "`layers` must be less than the number of weights, 8"),
    ):
        refused(name, f"have a configuration of a Toy.*{match}", write(tmp_path / name, config={**CONFIG, **config}))
    for i, name in enumerate(("../model.safetensors", "/model.safetensors", "a\\b.safetensors", "x.bin", "..", "")):
        folder = write_shards(tmp_path / f"index_{i}", **{"a.bias": name})
        refused(f"index {name}", f"{INDEX}: `weight_map` must name safetensors beside the index", folder)
    refused("no shard", "`weight_map` must name files that exist", write_shards(tmp_path / "no", a="x.safetensors"))
    for i, index in enumerate(([], {}, {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"a.bias": 3}})):
        folder = write_shards(tmp_path / f"map_{i}")
        (folder / INDEX).write_text(json.dumps(index))
        refused(f"index {index}", f"must be an index of shards. Received: source={folder}/{INDEX}", folder)
    twice = write_shards(tmp_path / "twice")
    save_file(weights, twice / "model-00002-of-00002.safetensors")
    refused("twice", "must hold each tensor once. Received: .*conv.weight", twice)
    assert not not_refused(cases)


@pytest.mark.one_backend
def test_refused_sources(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = write(tmp_path / "whole")
    pickle = write(tmp_path / "pickle")
    (pickle / WEIGHTS).rename(pickle / "pytorch_model.bin")
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    parts = {"_class_name": "P", "text": ["transformers", "Toy"], "unet": ["diffusers", "UNet"], "none": [None, None]}
    (pipeline / "model_index.json").write_text(json.dumps(parts))
    cases = [
        ("number", 3, {}, "be a Toy or ToyWithHead, or a folder with config.json and model.safetensors.*=int"),
        ("no folder", tmp_path / "none", {}, "a folder with config.json"),
        ("repository", "org/name-1.5", {}, "`hf download org/name-1.5 --local-dir name-1.5` downloads"),
        ("file", whole / WEIGHTS, {}, "becomes a folder by `from_single_file` of diffusers"),
        ("pipeline", pipeline, {}, "give the folder of a part, here text. Received"),
        ("pickle", pickle, {}, "hold model.safetensors, or.*pickles.*with .'pytorch_model.bin'"),
        (
            "variant",
            whole,
            {"variant": "fp16"},
            "hold model.fp16.safetensors, or a `variant`.*'model.safetensors'",
        ),
        ("path", whole, {"variant": "../x"}, "`variant` must be None, or the part of a file's name"),
        ("not a name", whole, {"variant": 16}, "`variant` must be None, or"),
    ]
    calls = [(name, lambda a=source, b=options: Toy.from_diffusers(a, **b), m) for name, source, options, m in cases]
    assert not not_refused(calls)
    (tmp_path / "file").write_text("")
    network = Toy.from_diffusers(whole)
    for folder in (3, tmp_path / "file"):
        with pytest.raises(ValueError, match="`folder` must be "):
            network.to_diffusers(folder)


@pytest.mark.one_backend
def test_missing_safetensors_is_named(tmp_path, monkeypatch):
    folder = write(tmp_path / "source")
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="need `pip install safetensors`"):
        Toy.from_diffusers(folder)


@pytest.mark.one_backend
def test_a_table_without_a_weight_is_refused(tmp_path, monkeypatch):
    whole = Toy.foreign_table
    monkeypatch.setattr(Toy, "foreign_table", lambda self: whole(self)[:-1])
    with pytest.raises(ValueError, match="`foreign_table` must have an entry for each weight. .*beta"):
        Toy.from_diffusers(write(tmp_path / "source"))
