"""Equal conditions for all contenders, and their description."""

import importlib.metadata
import os
import pathlib
import platform
import sys

from benchmarks.devices import Device

ROOT = pathlib.Path(__file__).parent.parent
RUNS = ROOT / "runs" / "benchmarks"
BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
PACKAGES = (
    *("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy", "diffusers", "transformers"),
    *("vector-quantize-pytorch", "scikit-learn", "faiss-cpu", "zuko", "nflows", "normflows"),
)
# NPROC is XLA's. Other settings, such as Keras's configuration file, are the same for all.
THREADS = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC"),
)


def prepare(backend: str, threads: int, device: Device) -> None:
    """Sets backend, threads and device; restarts the process if they differ, as NumPy has already read them."""
    chosen = {"KERAS_BACKEND": backend, **dict.fromkeys(THREADS, str(threads)), **device.environment}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if any(os.environ.get(name) != value for name, value in chosen.items()):
        os.environ.update(chosen)
        os.execv(sys.executable, sys.orig_argv)


def limit_torch(threads: int) -> None:
    """Sets the number of PyTorch threads, if it is imported."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file atomically, in case the run is interrupted."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def machine(device: Device) -> dict[str, str]:
    """Returns device, processor, cores, memory and the versions of installed packages."""
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{device.description()}{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
