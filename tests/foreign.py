"""Comparisons with networks of diffusers and transformers."""

import numpy as np
from safetensors.numpy import load_file, save_file

from keras_gen.core.fixtures import to_numpy

OLDER_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def wrong_gradients(table, expected, step, rate=1.0):
    """Returns a line for each weight whose gradient is not the expected one.

    Args:
        table: the entries of all weights, as of `foreign_table`.
        expected: dict of gradients by the names of the table.
        step: function that does one step of SGD, which is taken back.
        rate: the learning rate. A large one leaves of the weights before the step no rounding.
    """
    before = [to_numpy(entry.variable).copy() for entry in table]
    step()
    offenders = []
    for entry, start in zip(table, before, strict=True):
        names = entry.alternatives[0]
        if entry.variable.trainable:
            gradient = entry.layout.read([expected[name] for name in names])
            apart = np.abs((start - to_numpy(entry.variable)) / rate - gradient).max() / np.abs(gradient).max()
            offenders += [] if apart < 1e-4 else [f"{names}: {apart:.1e}"]
        else:
            offenders += [f"{name} has a gradient" for name in names if np.any(expected.get(name, 0))]
        entry.variable.assign(start)
    return offenders


def with_older_names_of_attention(file):
    """Renames the tensors of a safetensors file as older versions of diffusers did; returns how many attentions."""
    tensors = {}
    for name, tensor in load_file(file).items():
        for new, old in OLDER_ATTENTION.items():
            name = name.replace(f".{new}.", f".{old}.")
        tensors[name] = tensor
    save_file(tensors, file)
    return sum(".proj_attn.weight" in name for name in tensors)
