"""The same conditions for every contender, and what they were."""

import importlib.metadata
import os
import pathlib
import platform
import sys

ROOT = pathlib.Path(__file__).parent.parent
RUNS = ROOT / "runs" / "benchmarks"
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
PACKAGES = (
    *("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy"),
    *("diffusers", "vector-quantize-pytorch", "scikit-learn", "faiss-cpu", "zuko", "nflows", "normflows"),
)
# NPROC is XLA's. What is not set here, such as Keras's own file of settings, is the same for all.
THREADS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC"),
)


def prepare(backend: str, threads: int) -> None:
    """Chooses backend and threads; starts the process anew if it had others, as NumPy has read them by now."""
    chosen = {"KERAS_BACKEND": backend, **dict.fromkeys(THREADS, str(threads))}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if any(os.environ.get(name) != value for name, value in chosen.items()):
        os.environ.update(chosen)
        os.execv(sys.executable, sys.orig_argv)


def limit_torch(threads: int) -> None:
    """Sets PyTorch's threads, if it was imported."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file that is either there in full or not at all, whenever the run is killed."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def machine() -> dict[str, str]:
    """Returns processor, cores, memory and the versions of what is installed."""
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
