"""What a computation stores for its backward pass."""

import keras
import pytest


def stored_bytes(function, x):
    """Returns the bytes of the tensors that are kept between the two passes of `function` at `x`."""
    match keras.backend.backend():
        case "jax":
            import jax

            backward = jax.eval_shape(lambda x: jax.vjp(function, x)[1], x)
            return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(backward))
        case "torch":
            return _stored_by_torch(function, x)
        case _:
            pytest.skip("TensorFlow does not say what it stores")


def _stored_by_torch(function, x):
    import torch

    stored = {}

    def keep(tensor):
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = function(x.detach().requires_grad_())
    assert output.requires_grad
    return sum(stored.values())
