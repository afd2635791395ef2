"""Converts the weights of the Inception network of 2015 from PyTorch's file to safetensors, for `models.FIDInception`.

    pip install torch safetensors
    python tools/convert_inception.py pt_inception-2015-12-05-6726825d.pth inception-2015.safetensors

The first file is among the releases of pytorch-fid; that of torch-fidelity, of the name
`weights-inception-2015-12-05-6726825d.pth`, is the same. Either library downloads it when it is first used. It is a
pickle: PyTorch reads it here by `weights_only=True`, and no other file is read. The network ends before the classes:
their weights are left out. The batch normalizations, which are constant, become part of the convolutions.
"""

import argparse
import hashlib
import pathlib

import torch
from safetensors.torch import save_file

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
EPSILON = 1e-3  # of the batch normalizations
KERNEL = ".conv.weight"


def folded(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns kernels and biases of the convolutions with the batch normalizations that follow them."""
    tensors = {}
    for name in [key.removesuffix(KERNEL) for key in state if key.endswith(KERNEL)]:
        keys = (f"{name}{KERNEL}", *(f"{name}.bn.{key}" for key in ("weight", "bias", "running_mean", "running_var")))
        kernel, gamma, beta, mean, variance = (state[key].double() for key in keys)
        own = name.replace(".", "_")  # as layers are named
        scale = gamma / torch.sqrt(variance + EPSILON)
        tensors[f"{own}.weight"] = (kernel * scale[:, None, None, None]).float()
        tensors[f"{own}.bias"] = (beta - mean * scale).float()
    return tensors


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("source", type=pathlib.Path, help="the file of PyTorch")
    arguments.add_argument("target", type=pathlib.Path, help="the file to write, *.safetensors")
    files = arguments.parse_args()
    if not files.source.is_file() or hashlib.sha256(files.source.read_bytes()).hexdigest() != SHA256:
        arguments.error(f"source: must be the file whose SHA-256 is {SHA256}. Received: {files.source}")
    save_file(folded(torch.load(files.source, map_location="cpu", weights_only=True)), files.target)


if __name__ == "__main__":
    main()
