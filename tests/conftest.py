import os
import pathlib
import subprocess
import zlib

# The workers share the machine: one thread each. Set before any backend is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
# On a GPU, which they share, too: by default JAX takes three quarters of its memory at once, and TensorFlow all.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
# Tests compile much and run little, and much of it is what the other JAX worker, or the run before, compiled.
ROOT = pathlib.Path(__file__).parent.parent
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import collections
import ctypes
import gc
import importlib.metadata
import sys

import alone  # noqa: F401 (before Keras)
import numpy as np
import pytest

# Keras, and with it a backend, is imported where a test runs: the process that hands out the tests needs none.
BACKENDS = ["tensorflow", "jax", "torch"]
# A function with that many cases shares them out among the backends.
MANY = 3


def pytest_addoption(parser):
    parser.addoption("--all-cases", action="store_true", help="run every case on every backend")
    parser.addoption("--turn", type=int, help="which third of the cases each backend runs (default: by the commit)")
    parser.addoption("--rounded", action="store_true", help="multiply as GPUs do in TF32 (one backend alone)")
    parser.addoption("--update-api", action="store_true", help="rewrite tests/public_api.txt")
    parser.addoption("--update-references", action="store_true", help="rewrite tests/data/*.npz (one backend alone)")


def pytest_configure(config):
    config.addinivalue_line("markers", "one_backend: computes in NumPy alone; in a run of all backends torch's has it")
    # A single process runs all, as does `--all-cases`. The workers are told the turn: they count no commits.
    if hasattr(config, "workerinput"):
        if backend() != "tensorflow":
            os.nice(5)  # gives way to TensorFlow's worker, which has most to do
        config.option.turn = config.workerinput["turn"]
    elif config.option.all_cases:
        config.option.turn = None
    elif config.option.turn is None and config.getoption("dist", "no") == "each":
        config.option.turn = commits()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["turn"] = node.config.option.turn


def commits() -> int:
    command = ["git", "-C", str(ROOT), "rev-list", "--count", "HEAD"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return 0


def backend() -> str:
    import keras

    return keras.backend.backend()


def pytest_report_header(config):
    lines = [f"keras {importlib.metadata.version('keras')}"]
    if config.getoption("dist", "no") == "no":
        lines[0] += f", backend {backend()}"
    if config.option.turn is not None:
        turn = config.option.turn % 3
        lines.append(f"turn {turn}: each backend has its third of the cases (again: --turn {turn}; all: --all-cases)")
    return lines


# Comparisons with other libraries, which take 300 MB of memory, and bad arguments by machine: each on one backend in a
# turn, never both on the same one.
ALTERNATING = (ROOT / "tests" / "peers", ROOT / "tests" / "fuzz")


def pytest_ignore_collect(collection_path, config):
    """Leaves the alternating folders to one backend in each turn."""
    turn = config.option.turn
    if turn is None or collection_path not in ALTERNATING:
        return None
    return True if (BACKENDS.index(backend()) + turn + ALTERNATING.index(collection_path)) % 3 else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Keeps what this worker is to run.

    With a turn, a test function of three cases or more runs case i on backend b if i + b + turn is divisible by three:
    each case on one backend, each function on all, and within three turns every case on every backend. A function of
    fewer cases runs on two backends, the third being another one in each turn. Tests without a backend run once, on
    PyTorch, which has the least to do; the alternating folders on one backend in a turn.
    With `SHARD=1/2` a worker keeps every other function.
    """
    name, turn = backend(), config.option.turn
    shard, shards = (int(number) for number in os.environ.get("SHARD", "1/1").split("/"))
    functions = collections.defaultdict(list)
    for item in items:
        functions[item.nodeid.partition("[")[0]].append(item)
    kept = set()
    for function, cases in functions.items():
        if zlib.crc32(function.encode()) % shards != shard - 1:
            continue
        if turn is not None and cases[0].get_closest_marker("one_backend"):
            cases = cases if name == "torch" else []
        elif turn is not None and not set(ALTERNATING) & set(cases[0].path.parents):
            first = -(BACKENDS.index(name) + turn) % 3
            if len(cases) >= MANY:
                cases = cases[first::3]
            elif first == zlib.crc32(function.encode()) // shards % 3:
                cases = []
        kept.update(cases)
    deselected = [item for item in items if item not in kept]
    if hasattr(config, "workeroutput"):
        config.workeroutput["cases"] = len(kept), len(deselected)
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item in kept]


def pytest_collection_finish():
    let_go()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Frees graphs and programs at the end of a file, and in the middle of one that makes many."""
    yield
    last = nextitem is None or nextitem.path != item.path
    if last:
        for function in vars(item.module).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()
    if last or resident() > released + GROWTH:
        let_go(last)


# Bytes by which a worker may grow before it frees what it can.
GROWTH = 400 * 2**20
released = 0


def resident() -> int:
    if sys.platform != "linux":
        return 0
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def let_go(last: bool = True) -> None:
    global released
    import keras

    keras.utils.clear_session(free_memory=False)
    gc.collect()
    match keras.backend.backend():
        case "jax":
            import jax

            jax.clear_caches()
        case "tensorflow" if last:
            # `fit` leaves the graph of its step behind, which holds itself (2.21).
            from tensorflow.python.framework.func_graph import FuncGraph, dismantle_func_graph

            for graph in gc.get_objects():
                if type(graph) is FuncGraph and graph.name == "one_step_on_data":
                    dismantle_func_graph(graph)
    gc.collect()
    if last:
        gc.freeze()  # what is left stays: later collections need not go through it
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # else glibc keeps the pages
    released = resident()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    cases = getattr(node, "workeroutput", {}).get("cases")
    if cases:
        node.config.stash.setdefault(CASES, {})[node.gateway.id] = cases


CASES = pytest.StashKey[dict]()


def pytest_terminal_summary(terminalreporter, config):
    """Says, behind pytest's own summary, which backend failed."""
    for worker, (kept, deselected) in sorted(config.stash.get(CASES, {}).items()):
        terminalreporter.write_line(f"{worker}: {kept} cases, {deselected} left to others")
    failed = collections.defaultdict(list)
    for report in terminalreporter.stats.get("failed", []) + terminalreporter.stats.get("error", []):
        node = getattr(report, "node", None)
        failed[node.gateway.id.partition("-")[0] if node else backend()].append(report.nodeid)
    for name, tests in sorted(failed.items()):
        terminalreporter.write_sep("-", f"{len(tests)} failed on {name}", red=True)
        terminalreporter.write_line("\n".join(tests))


@pytest.fixture(autouse=True)
def _seeded():
    import keras

    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _as_on_a_gpu():
    """Refuses to make PyTorch's tensors arrays without `ops.convert_to_numpy`, which those on a GPU need."""
    if backend() != "torch":
        yield
        return
    import torch

    convert = torch.Tensor.__array__

    def refuse_or_convert(tensor, *args, **options):
        caller = sys._getframe(1)
        module = caller.f_globals.get("__name__", "")
        if module.startswith(("keras_gen", "numpy")) or str(ROOT / "tests") in caller.f_code.co_filename:
            raise TypeError("a tensor becomes an array by `ops.convert_to_numpy`, as one on a GPU does")
        return convert(tensor, *args, **options)

    torch.Tensor.__array__ = refuse_or_convert
    yield
    torch.Tensor.__array__ = convert


@pytest.fixture(autouse=True, scope="session")
def _rounded(request):
    if not request.config.option.rounded:
        yield
        return
    from rounded import rounded_products

    with rounded_products():
        yield


@pytest.fixture(scope="session")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32"), labels.astype("int32")


@pytest.fixture
def rng():
    return np.random.default_rng(0)
