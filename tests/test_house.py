"""The shape of the house: who imports whom, how full a folder is, and that nothing exported is out of reach."""

import ast
import collections
import importlib
import pathlib
import sys

import keras
import pytest

import keras_gen
from keras_gen.export import NAMESPACES, exported

pytestmark = pytest.mark.one_backend

ROOT = pathlib.Path(keras_gen.__file__).resolve().parent.parent
# From the ground up. A module may import modules of lower floors and of its own room, a folder or file of this table.
FLOORS = (
    "export version _backend",
    "core",
    "networks.blocks",
    "networks.backbones networks.text",
    "flows latent hubness adversarial discriminative",
    "sources",
    "evaluation",
    "diffusion.schedules diffusion.slerp diffusion.transport",
    "diffusion.prediction",
    "diffusion.loss_weight",
    "diffusion.samplers",
    "pretrained",
    "diffusion.models quantization autoregressive adaptation",
    "testing",
    " ".join(NAMESPACES),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
# Imports that the table forbids and today's code needs.
ALLOWED: set[tuple[str, str]] = set()


def module_name(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(file): file for file in sorted((ROOT / "keras_gen").rglob("*.py"))}
TREES = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in FILES.items()}


def imports(tree, inside=False):
    """Each imported module, and whether the import is inside a function."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import: {ast.unparse(node)}"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ((name if name in FILES else node.module, inside) for name in full)
        else:
            yield from imports(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))


IMPORTS = {name: sorted(set(imports(tree))) for name, tree in TREES.items()}
# A package's __init__ runs whenever one of its modules is imported; ours hold docstrings, but for the outermost one.
OURS = {
    name: [(other, inside) for other, inside in found if other.startswith("keras_gen.")]
    for name, found in IMPORTS.items()
    if name != "keras_gen"
}


def room(module):
    """The longest name of the table that holds the module, or None."""
    parts = module.split(".")[1:]
    return next((name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in FLOOR), None)


def listed(offenders):
    return "\n".join(offenders)


def holds_code(tree):
    return any(not isinstance(node, ast.Expr) for node in tree.body)


def test_every_module_has_a_floor():
    offenders = [f"{name} is in no room of FLOORS" for name in OURS if holds_code(TREES[name]) and room(name) is None]
    assert not offenders, listed(offenders)


def test_rooms_depend_downwards():
    offenders, needed = [], set()
    for name, found in OURS.items():
        for other, _ in found:
            here, there = room(name), room(other)
            if here == there or here is None or there is None or FLOOR[there] < FLOOR[here]:
                continue
            pair = name.removeprefix("keras_gen."), other.removeprefix("keras_gen.")
            needed.add(pair)
            if pair not in ALLOWED:
                which = "on the same floor" if FLOOR[there] == FLOOR[here] else "above it"
                offenders.append(f"{name} imports {other}, {which}")
    offenders += [f"{a} does not import {b}: strike it off ALLOWED" for a, b in sorted(ALLOWED - needed)]
    assert not offenders, listed(offenders)


@pytest.mark.parametrize("inside", [False, True], ids=["at the top", "in functions too"])
def test_imports_form_no_cycle(inside):
    graph = {name: [other for other, within in found if inside or not within] for name, found in OURS.items()}
    offenders, done = [], set()

    def visit(name, path):
        if name in path:
            offenders.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for other in graph.get(name, []):
                visit(other, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])
    assert not offenders, listed(offenders)


def test_folders_are_not_crowded():
    folders = [file.parent.relative_to(ROOT).as_posix() for file in FILES.values() if file.stem != "__init__"]
    counts = collections.Counter(folders)
    offenders = [f"{folder} holds {count} files" for folder, count in sorted(counts.items()) if count > 20]
    assert not offenders, listed(offenders)


def test_nothing_comes_from_the_inside_of_keras():
    offenders = []
    for name, tree in TREES.items():
        offenders += [f"{name} imports {other}" for other, _ in IMPORTS[name] if other.startswith("keras.src")]
        reached = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "src"]
        offenders += [f"{name}, line {node.lineno}: {ast.unparse(node)}" for node in reached]
    assert not offenders, listed(offenders)


PRODUCTS = {"matmul", "einsum", "dot", "tensordot", "inner", "vdot"}
# Rooms, and files within others, whose products are layers of networks, which the device may round.
OF_NETWORKS = ("networks", "autoregressive.binary")
# Where `@` multiplies NumPy arrays, and the products themselves.
OF_ARRAYS = ("evaluation", "hubness", "core.devices.products", "core.torch.kernels")


def test_products_outside_networks_are_precise():
    """What has no precision of its own is rounded by GPUs: `precise_product` is not."""
    offenders = []
    for name, tree in TREES.items():
        inside = name.removeprefix("keras_gen.")
        if inside.startswith(OF_NETWORKS):
            continue
        for node in ast.walk(tree):
            called = isinstance(node, ast.Attribute) and node.attr in PRODUCTS and ast.unparse(node.value) == "ops"
            written = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
            if called or (written and not inside.startswith(OF_ARRAYS)):
                offenders.append(f"{name}, line {node.lineno}: {ast.unparse(node)}")
    assert not offenders, listed(offenders)


def test_faces_are_import_lines():
    offenders = []
    for namespace in NAMESPACES:
        tree = TREES[f"keras_gen.{namespace}"]
        if ast.get_docstring(tree) is None:
            offenders.append(f"keras_gen/{namespace}.py has no docstring")
        for line in tree.body[1:]:
            [alias, *more] = line.names if isinstance(line, ast.ImportFrom) else [None]
            if more or alias is None or alias.asname != alias.name:
                offenders.append(f"keras_gen/{namespace}.py, line {line.lineno}: {ast.unparse(line)}")
    served = {name.removeprefix("keras_gen.") for name, _ in IMPORTS["keras_gen"]}
    offenders += [f"keras_gen/__init__.py does not import {name}" for name in NAMESPACES if name not in served]
    assert not offenders, listed(offenders)


def export_lines():
    """The addresses in each decorator, and those of `also`: what the source says, whether it is imported or not."""
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "keras_gen_export":
                    also = [keyword.value for keyword in call.keywords if keyword.arg == "also"]
                    for address in (
                        ast.literal_eval(call.args[0]),
                        *(a for value in also for a in ast.literal_eval(value)),
                    ):
                        yield name, node.name, address


def test_everything_exported_is_within_reach():
    offenders = []
    for name, symbol, address in export_lines():
        face, _, public = address.rpartition(".")
        if getattr(sys.modules.get(face), public, None) is not getattr(importlib.import_module(name), symbol):
            offenders.append(f"{face.replace('.', '/')}.py lacks: from {name} import {symbol} as {public}")
    strays = {address for _, _, address in export_lines()} ^ set(exported())
    offenders += [f"{address} is exported, but not by a decorator" for address in sorted(strays)]
    assert not offenders, listed(offenders)


def test_every_module_can_be_imported():
    offenders = []
    for name in FILES:
        try:
            importlib.import_module(name)
        except Exception as error:  # of any kind: the message names them all
            offenders.append(f"{name}: {error!r}")
    assert not offenders, listed(offenders)


def test_models_stand_near_keras():
    """At most four classes below `keras.Model`: what one class needs is in it."""
    offenders = []
    for path, symbol in exported(also=False).items():
        if isinstance(symbol, type) and issubclass(symbol, keras.Model):
            below = symbol.__mro__[: symbol.__mro__.index(keras.Model)]
            chain = [cls.__name__ for cls in below if issubclass(cls, keras.Model)]  # without mixins
            if len(chain) > 4:
                offenders.append(f"{path}: {' <- '.join(chain)}")
    assert not offenders, listed(offenders)
