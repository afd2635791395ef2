"""How networks compute in a run: on which device, in which dtype, plainly or compiled; the same for ours and peers."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch

from benchmarks.devices import Device


@dataclasses.dataclass(frozen=True)
class Setting:
    """The device, the dtype of networks, and whether they are compiled.

    Peers are compiled by `torch.compile`, ours by `jit_compile=True`; JAX always compiles. In bfloat16, peers evaluate
    with weights of that dtype and train under autocast; ours have the policy `mixed_bfloat16`.
    """

    device: Device
    dtype: str = "float32"
    compiles: bool = False

    def begin(self) -> None:
        """Sets the policy of the networks that are then made."""
        keras.config.set_dtype_policy("float32" if self.dtype == "float32" else f"mixed_{self.dtype}")

    @property
    def tolerance(self) -> float:
        """The largest difference of outputs that rounding explains."""
        return self.device.rounding if self.dtype == "float32" else 5e-2

    @property
    def jit_compile(self) -> bool | str:
        """The argument of `compile` of our models."""
        return True if self.compiles else "auto"

    def counted(self, operations: float) -> dict[str, Any]:
        """Returns the fields of a contest about its operations, which count where a product is a measure of them."""
        return {"operations": operations, "dtype": self.dtype} if self.device.has_best_product else {}

    def ours(self, network: keras.Model) -> keras.Model:
        """Returns our network, to be compiled if the peers' are."""
        if self.compiles:
            network.compile(jit_compile=True)
        return network

    def tensor(self, array: Any) -> torch.Tensor:
        """Returns an array as the peers' tensor."""
        return torch.tensor(array, device=self.device.torch)

    def rounded(self, array: np.ndarray) -> torch.Tensor:
        """Returns floats as a tensor in the dtype of the networks."""
        return self.tensor(array).to(getattr(torch, self.dtype))

    def images(self, images: np.ndarray) -> torch.Tensor:
        """Returns them rounded and with the axes of PyTorch, channels first, in unchanged memory layout."""
        return self.rounded(images).permute(0, 3, 1, 2)

    def evaluated(self, network: torch.nn.Module) -> torch.nn.Module:
        """Returns a peer's network for evaluation."""
        network = network.eval().to(self.device.torch).to(memory_format=torch.channels_last)
        return network if self.dtype == "float32" else network.bfloat16()

    def trained(self, network: torch.nn.Module) -> torch.nn.Module:
        """Returns a peer's network for training, its weights in float32."""
        return network.train().to(self.device.torch).to(memory_format=torch.channels_last)

    def compiled(self, function: Callable) -> Callable:
        """Returns a peer's network or function as it is called."""
        return torch.compile(function) if self.compiles else function

    def autocast(self) -> torch.autocast:
        """Returns the context of a peer's loss."""
        return torch.autocast(self.device.torch, torch.bfloat16, enabled=self.dtype != "float32")

    def epoch(
        self,
        optimizer: torch.optim.Optimizer,
        loss: Callable[..., torch.Tensor],
        data: Sequence[np.ndarray],
        batch: int,
    ) -> Callable[[], float]:
        """Returns a typical training loop over batches of `data`, which returns the mean loss."""
        batches = list(zip(*(torch.tensor(part).split(batch) for part in data), strict=True))

        def run() -> float:
            total = torch.zeros((), device=self.device.torch)
            for parts in batches:
                value = loss(*(part.to(self.device.torch) for part in parts))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                total += value.detach()
            return total.item() / len(batches)

        return run


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """Returns images with the axes of Keras."""
    return images.permute(0, 2, 3, 1)
