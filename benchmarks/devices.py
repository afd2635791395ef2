"""The devices of a run: when their work is done, what memory it took, and how fast they multiply.

A device is described before any backend is imported, as its `environment` must be set by then; its methods import what
they need.
"""

import ctypes
import functools
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

GIB = 2**30
PRODUCTS = 5  # of which the fastest counts


class Device:
    """Where contenders run: what makes it the only one in sight, and what it is measured by."""

    name: str
    torch: str  # its name in PyTorch
    environment: Mapping[str, str]
    width: int  # of the measured product
    rounding: float  # of float32 networks, relative
    has_best_product: bool  # whether PyTorch's product is about as fast as the device can multiply

    def is_there(self) -> bool:
        """Returns whether PyTorch, of the peers, and Keras's backend see it."""
        raise NotImplementedError

    def description(self) -> str:
        """Returns what a table says before the processor."""
        raise NotImplementedError

    def wait(self, output: Any) -> None:
        """Waits until `output` is computed: JAX returns before that."""
        if "jax" in sys.modules:
            sys.modules["jax"].block_until_ready(output)

    def peak(self) -> float:
        """Returns the largest memory since `forget_peak`, in GiB."""
        raise NotImplementedError

    def forget_peak(self) -> float:
        """Resets the peak to the memory in use, and returns that."""
        raise NotImplementedError


class CPU(Device):
    """The processor, by whatever else the machine has."""

    name, torch, width, rounding = "cpu", "cpu", 2048, 1e-3
    has_best_product = False  # it is MKL's, which AMD processors run at half of their speed
    environment = MappingProxyType({"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"})

    def is_there(self) -> bool:
        return True

    def description(self) -> str:
        return ""

    def peak(self) -> float:
        """Returns the largest memory of the process."""
        unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB

    def forget_peak(self) -> float:
        if sys.platform == "linux":  # others go on from the largest memory so far
            ctypes.CDLL(None).malloc_trim(0)  # what was freed is else still in use
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        return self.peak()


class GPU(Device):
    """The first CUDA device, of Keras's backend and of the peers, which are PyTorch's."""

    # Convolutions, and products of JAX and TensorFlow, are TF32.
    name, torch, width, rounding = "gpu", "cuda", 8192, 1e-2
    has_best_product = True
    # PyTorch and the backend share its memory: none may take most of it at once.
    environment = MappingProxyType({"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"})

    def is_there(self) -> bool:
        import keras
        import torch

        if not torch.cuda.is_available():
            return False
        match keras.backend.backend():
            case "jax":
                import jax

                return any(device.platform == "gpu" for device in jax.devices())
            case "tensorflow":
                import tensorflow as tf

                return bool(tf.config.list_physical_devices("GPU"))
        return True

    def description(self) -> str:
        import torch

        card = torch.cuda.get_device_properties(0)
        return f"{card.name}, {card.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}; "

    def wait(self, output: Any) -> None:
        import keras
        import torch

        super().wait(output)
        torch.cuda.synchronize()
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.test.experimental.sync_devices()

    def peak(self) -> float:
        """Returns the largest allocated memory; JAX knows that since the start of the process only."""
        return sum(peak for _, peak in _allocated())

    def forget_peak(self) -> float:
        import keras
        import torch

        torch.cuda.reset_peak_memory_stats()
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.experimental.reset_memory_stats("GPU:0")
        return sum(used for used, _ in _allocated())


def _allocated() -> list[tuple[float, float]]:
    """Returns the GiB in use and at most, of PyTorch and of Keras's backend."""
    import keras
    import torch

    found = [(torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated())]
    match keras.backend.backend():
        case "jax":
            import jax

            numbers = jax.devices()[0].memory_stats()
            found.append((numbers["bytes_in_use"], numbers["peak_bytes_in_use"]))
        case "tensorflow":
            import tensorflow as tf

            numbers = tf.config.experimental.get_memory_info("GPU:0")
            found.append((numbers["current"], numbers["peak"]))
    return [(used / GIB, peak / GIB) for used, peak in found]


DEVICES: dict[str, Device] = {device.name: device for device in (CPU(), GPU())}


def default() -> str:
    """Returns `"gpu"` where PyTorch sees one, else `"cpu"`."""
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def chosen(name: str) -> Device:
    """Returns the device of a name, after checking that this process has it. The backend must be set."""
    from keras_gen.core.checks import check, check_choice

    check_choice("device", name, DEVICES)
    rule = "be one that PyTorch and Keras's backend see; without --device, the benchmarks run on what there is"
    check(DEVICES[name].is_there(), "device", rule, repr(name))
    return DEVICES[name]


def as_array(output: Any) -> Any:
    """Returns tensors of any backend, nested in tuples and lists, as NumPy arrays."""
    if isinstance(output, tuple | list):
        return [as_array(part) for part in output]
    if hasattr(output, "detach"):  # of PyTorch; NumPy has no bfloat16
        output = output.detach().cpu()
        output = output.float() if output.is_floating_point() else output
    return np.asarray(output)


@functools.cache
def product_rate(device: Device, dtype: str) -> float:
    """Returns the operations per second of a product of two large square matrices, by PyTorch."""
    import torch

    factors = torch.ones((2, device.width, device.width), dtype=getattr(torch, dtype), device=device.torch)
    seconds = []
    for _ in range(1 + PRODUCTS):  # the first one is not yet warm
        start = time.perf_counter()
        device.wait(factors[0] @ factors[1])
        seconds.append(time.perf_counter() - start)
    return 2 * device.width**3 / min(seconds[1:])


def operations(run: Callable[[], Any]) -> int:
    """Returns the operations of a call of PyTorch, of which a multiplication and an addition are two.

    Nothing is computed: tensors are fake. Attention is counted as its two products, since the counter does not know the
    fused kernel of the CPU.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with (
        FakeTensorMode(allow_non_fake_inputs=True),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as seen,
    ):
        run()
    return seen.get_total_flops()
