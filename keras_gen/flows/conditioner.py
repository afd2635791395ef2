from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_flag, check_integer, check_layer, check_rate, check_units
from keras_gen.core.frozen import StaysFrozen
from keras_gen.core.random import check_seed, keras_seed
from keras_gen.core.torch.kernels import Conv2D, product
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.recomputing import recomputed


@keras_gen_export("keras_gen.layers.Conditioner")
class Conditioner(StaysFrozen, keras.layers.Layer):
    """Conditioner network of a coupling layer: dense layers for vectors, convolutions for images.

        h = x;   h = activation(W h + b) for each of `units`;   output = W h + b

    For images the first and the last convolution are 3 x 3, the others 1 x 1. The hidden layers use He initialization
    (with Glorot's smaller weights NICE learns more slowly), the last one is initialized to zero, so that a coupling
    starts as the identity. `quantize("int8")` of a flow rounds the weights of dense layers, not the activations.

    Args:
        outputs: int >= 1. Size of the output's last axis.
        units: sequence of ints >= 1. Sizes of the hidden layers; empty for none.
        activation: as for `keras.layers.Activation`. Defaults to `"relu"`.
        dropout: float in [0, 1). Dropout rate after each hidden layer. Defaults to `0.0`.
        seed: int or `None`. Seeds dropout and initial weights. Defaults to `None`, a seed from Keras's global one.
        remat: bool. Whether to recompute the network in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: `(batch, features)` or `(batch, height, width, channels)`; or a list of such a tensor and conditions, of
            the same shape up to the last axis, or `(batch, features)`, or `(batch,)`.

    Returns:
        A tensor like the first input, with a last axis of size `outputs`.

    Raises:
        ValueError: if an argument is out of range, or the inputs are neither vectors nor images.

    Example:

    >>> coupling = keras_gen.layers.AdditiveCoupling(keras_gen.layers.Conditioner(392, [1000] * 5, dropout=0.1))

    Reference: Dinh et al. 2014, arXiv:1410.8516, section 5.1; Kingma and Dhariwal 2018, arXiv:1807.03039, section 3.3.
    """

    def __init__(
        self,
        outputs: int,
        units: Sequence[int],
        activation: Any = "relu",
        dropout: float = 0.0,
        seed: int | None = None,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.outputs = check_integer("outputs", outputs)
        self.units = check_units(units)
        self.activation = keras.activations.get(activation)
        self.dropout = check_rate("dropout", dropout)
        self.seed = check_seed(seed)
        self.remat = check_flag("remat", remat)

    def build(self, input_shapes: Any) -> None:
        shapes = input_shapes if isinstance(input_shapes[0], list | tuple) else [input_shapes]
        rank = len(shapes[0])
        check(rank in (2, 4), "inputs", "be vectors (batch, features) or images", f"shape {shapes[0]}")
        for shape in shapes[1:]:
            check(len(shape) in (1, 2, rank), "condition", f"have rank 1, 2 or {rank}", f"shape {shape}")
        size = sum(shape[-1] if len(shape) > 1 else 1 for shape in shapes)
        self.dense, self.dropouts = [], []
        sizes = [*self.units, self.outputs]
        for i, units in enumerate(sizes):
            last = i == len(sizes) - 1
            self.dense.append(self._layer(units, rank, i, last))
            self.dense[-1].build((*shapes[0][:-1], size))
            size = units
            if self.dropout and not last:
                self.dropouts.append(keras.layers.Dropout(self.dropout, seed=self._seed(i), dtype=self.dtype_policy))

    def _layer(self, units: int, rank: int, i: int, last: bool) -> keras.Layer:
        start = "zeros" if last else keras.initializers.HeNormal(self._seed(i))
        options = {"kernel_initializer": start, "dtype": self.dtype_policy, "name": f"layer_{i}"}
        if rank == 2:
            return Dense(units, **options)
        return Conv2D(units, 3 if i == 0 or last else 1, padding="same", **options)

    def _seed(self, i: int) -> int | None:
        return None if self.seed is None else keras_seed(self.seed + i)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x, *conditions = inputs if isinstance(inputs, list | tuple) else [inputs]
        conditions = [broadcast_condition(condition, x) for condition in conditions]
        h = ops.concatenate([x, *conditions], axis=-1) if conditions else x
        masks = []
        if training and self.dropout:
            # Outside of what may be recomputed, which must not draw again.
            ones = (ops.ones((*ops.shape(x)[:-1], units), self.compute_dtype) for units in self.units)
            masks = [drop(kept, training=True) for drop, kept in zip(self.dropouts, ones, strict=True)]
        return recomputed(self._network, self.remat)(h, *masks)

    def _network(self, h: Any, *masks: Any) -> Any:
        for i, layer in enumerate(self.dense[:-1]):
            h = self.activation(layer(h))
            h = h * masks[i] if masks else h
        return self.dense[-1](h)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "outputs": self.outputs,
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "dropout": self.dropout,
            "seed": self.seed,
            "remat": self.remat,
        }


def check_network(name: str, network: keras.Layer | None, units: Sequence[int] | None) -> list[int] | None:
    """Checks that there is either a network, or the sizes of the hidden layers of a `Conditioner`; returns these."""
    rule = "be given if and only if `units` is not"
    check((network is None) != (units is None), name, rule, f"{network}, units={units}")
    if network is not None:
        check_layer(name, network)
    return None if units is None else check_units(units)


class Dense(keras.layers.Dense):
    """Dense layer that supports float64: Keras 3.15 always multiplies matrices in float32 on JAX and torch."""

    def call(self, inputs: Any) -> Any:
        return self._map(inputs, ops.convert_to_tensor(self.kernel))

    def quantize(self, mode: str | None = None, type_check: bool = True, config: Any = None) -> None:
        if mode != "int8":  # Keras makes this error a warning
            raise NotImplementedError(f"The dense layers of flows can be quantized to 'int8' only, not to {mode!r}.")
        super().quantize(mode, type_check=False, config=config)  # else Keras refuses all subclasses

    def load_own_variables(self, store: Any) -> None:
        # The layer that holds this one builds it from its own configuration, which says nothing of a quantization.
        if self.quantization_mode is None and len(store.keys()) == len(self.variable_serialization_spec["int8"]):
            self.quantize("int8")
        super().load_own_variables(store)

    def quantized_call(self, inputs: Any) -> Any:
        # Keras rounds activations, too: such a network jumps, so that the flow is no longer invertible, and has no
        # derivative in forward mode, which the trace of a `ContinuousFlow` takes.
        scale = ops.convert_to_tensor(self.kernel_scale)
        return self._map(inputs, ops.cast(self.kernel, scale.dtype) / scale)

    def _map(self, inputs: Any, kernel: Any) -> Any:
        return product(inputs, kernel, ops.convert_to_tensor(self.bias))


def broadcast_condition(condition: Any, x: Any) -> Any:
    """Broadcasts a condition `(batch, features)` over the positions of images; keeps conditions of the rank of `x`."""
    condition = ops.cast(condition, x.dtype)
    if len(condition.shape) == 1:
        condition = condition[:, None]
    if len(condition.shape) == len(x.shape):
        return condition
    condition = ops.reshape(condition, (-1, 1, 1, condition.shape[-1]))
    shape = ops.shape(x)
    return ops.broadcast_to(condition, (shape[0], shape[1], shape[2], condition.shape[-1]))
