"""Layouts of weights on a mesh of devices, for `keras.distribution.ModelParallel`."""

import math
from typing import Any, ClassVar, NamedTuple

import keras
from keras import ops

from keras_gen.core.checks import check


class Split(NamedTuple):
    """Layers that are split over devices, given by regular expressions of their names.

    Layers of `columns` are split along their outputs, those of `rows` along their inputs, with their outputs summed
    over the devices. Thus a layer of rows that follows one of columns needs no inputs from other devices. Layers of
    `parts`, which have several outputs side by side, are called by `parts_of`.
    """

    columns: str = ""
    rows: str = ""
    parts: str = ""
    spatial_axes: int = 0  # of the kernels, before their channels

    def layouts(self, axis: str) -> dict[str, tuple[str | None, ...]]:
        """Returns axes of the mesh for weights, by their paths."""
        spatial = (None,) * self.spatial_axes
        found = {
            (self.columns, "kernel"): (*spatial, None, axis),
            (self.columns, "bias"): (axis,),
            (self.rows, "kernel"): (*spatial, axis, None),
            (self.parts, "kernel"): (axis, None),
            (self.parts, "parts"): (None, None, axis),
        }
        return {f".*/({names})/{kind}": axes for (names, kind), axes in found.items() if names}


ATTENTION = Split(columns="query|key|value", rows="output", parts="qkv|key_value")
MLP = Split(columns="mlp_1", rows="mlp_2")
GATED_MLP = Split(rows="mlp_2", parts="mlp_1")
MODULATION = Split(rows="(image_|text_)?modulation")
CONVOLUTIONS = Split(columns="conv_1", rows="conv_2", spatial_axes=2)


class SplitWeights:
    """Mixin of networks whose weights can be split over devices, as `splits` says."""

    splits: ClassVar[tuple[Split, ...]] = ()

    @classmethod
    def layout_map(cls, mesh: Any, axis: str = "model") -> Any:
        """Returns a layout of the weights for `keras.distribution.ModelParallel`, on JAX.

        The projections of attention, the hidden layers of transformer blocks and the convolutions of residual blocks
        are split over the axis: in each pair of products, the first one along its outputs and the second one along its
        inputs, so that intermediate values, such as whole heads of attention, stay on their device. Each device has all
        other weights as a whole. If the axis is that of the batch, each device stores its share of the split weights
        and of the optimizer's variables, and fetches the rest when needed (fully sharded data parallelism).

        Args:
            mesh: `keras.distribution.DeviceMesh`. The size of the axis must divide the numbers of channels. If it does
                not divide the number of heads, each device computes all of them.
            axis: str, the name of an axis of the mesh. Defaults to `"model"`.

        Returns:
            `keras.distribution.LayoutMap`.

        Raises:
            ValueError: if the mesh has no such axis.

        Example:

        >>> mesh = keras.distribution.DeviceMesh((2, 4), ["batch", "model"])
        >>> layout = keras_gen.models.DiT.layout_map(mesh)
        >>> keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layout))

        Reference: Shoeybi et al. 2019, arXiv:1909.08053, section 3.
        """
        check(isinstance(mesh, keras.distribution.DeviceMesh), "mesh", "be a keras.distribution.DeviceMesh", mesh)
        check(axis in mesh.axis_names, "axis", f"be an axis of the mesh, one of {list(mesh.axis_names)}", repr(axis))
        layout = keras.distribution.LayoutMap(mesh)
        for split in cls.splits:
            layout.update(split.layouts(axis))
        return layout


def parts_of(layer: keras.layers.Dense, x: Any, number: int, shares: int | None = None) -> list[Any]:
    """Returns the outputs of a dense layer in parts of one size, such as the values and gates of a gated layer.

    Where the kernel is split over devices, it is by its inputs, so that no part is cut elsewhere than the others. The
    devices exchange these rows for columns, of which each gets the same share of all parts, and what is computed with
    the parts stays on its device. For fewer vectors than the kernel has rows, such as the token that a sequence is
    extended by, they add up their outputs instead, which are less.

    Args:
        layer: dense layer without an activation, built.
        x: `(batch, ..., inputs)`.
        number: int, of parts.
        shares: int, the number of shares of a part that cannot be divided further. Defaults to `None`, of any size.

    Returns:
        Tensors `(batch, ..., channels)`.
    """
    layout = _layout_of_parts(layer, shares)
    if layout is None or math.prod(x.shape[:-1]) < x.shape[-1]:
        return ops.split(layer(x), number, axis=-1)
    kernel = ops.reshape(ops.cast(layer.kernel, layer.compute_dtype), (x.shape[-1], number, -1))
    kernel = keras.distribution.distribute_tensor(kernel, layout)
    outputs = ops.einsum("...i,ipo->...po", ops.cast(x, layer.compute_dtype), kernel)
    if layer.bias is not None:
        outputs = outputs + ops.reshape(ops.cast(layer.bias, layer.compute_dtype), (number, -1))
    return ops.unstack(outputs, number, axis=-2)


def heads_of(layer: keras.layers.Dense, x: Any, num_heads: int, number: int = 3) -> list[Any]:
    """Returns the queries, keys and values, or a `number` of them, that a dense layer makes of tokens, in heads.

    Args:
        layer: dense layer without an activation, built.
        x: `(batch, tokens, inputs)`.
        num_heads: int, must divide the size of a part.
        number: int, of parts. Defaults to `3`.

    Returns:
        Tensors `(batch, tokens, num_heads, dim)`.
    """
    batch, tokens = ops.shape(x)[:2]
    parts = parts_of(layer, x, number, num_heads)
    return [ops.reshape(part, (batch, tokens, num_heads, part.shape[-1] // num_heads)) for part in parts]


def _layout_of_parts(layer: keras.layers.Dense, shares: int | None) -> Any:
    """Returns the layout of a kernel `(inputs, parts, channels)` where it is used, or `None` where nothing is split."""
    distribution = keras.distribution.distribution()
    if distribution is None or layer.quantization_mode is not None:  # a quantized kernel is not a plain matrix
        return None
    layout = distribution.get_tensor_layout(f"{layer.path}/parts")
    if layout is None:
        return None
    mesh, axis = layout.device_mesh, layout.axes[-1]
    divides = shares is None or shares % mesh.shape[mesh.axis_names.index(axis)] == 0
    if divides and axis != distribution.batch_dim_name:
        return layout
    # Devices that have rows of the batch each, or whole heads only, need the whole kernel.
    return keras.distribution.TensorLayout((None, None, None), mesh)
