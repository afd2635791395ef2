"""Layouts of weights on a mesh of devices, for `keras.distribution.ModelParallel`."""

from typing import Any, ClassVar, NamedTuple

import keras

from keras_gen.core.checks import check


class Pair(NamedTuple):
    """Two products, one after the other, as regular expressions for the names of their layers."""

    outputs: str  # of the first product, which is split by its outputs
    inputs: str  # of the second one, which is split by its inputs
    spatial_axes: int = 0  # of the kernels, before their channels


ATTENTION = Pair("qkv|query|key|value|key_value", "output")
MLP = Pair("mlp_1|(image_|text_)?modulation", "mlp_2")
CONVOLUTIONS = Pair("conv_1", "conv_2", spatial_axes=2)


class SplitWeights:
    """Mixin of networks whose weights can be split over devices, in `split_pairs` of products."""

    split_pairs: ClassVar[tuple[Pair, ...]] = ()

    @classmethod
    def layout_map(cls, mesh: Any, axis: str = "model") -> Any:
        """Returns a layout of the weights for `keras.distribution.ModelParallel`, on JAX.

        The projections of attention, the hidden layers of transformer blocks and the convolutions of residual blocks
        are split over the axis: of each pair of products the first by its outputs, the second by its inputs, so that
        what is between them stays on its device. All other weights are whole on each device. With the axis of the
        batch, each device keeps its share of them and of the optimizer's variables, and fetches the rest when it needs
        them (fully sharded data parallelism).

        Args:
            mesh: `keras.distribution.DeviceMesh`. The size of the axis must divide the numbers of channels.
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
        for pair in cls.split_pairs:
            spatial = (None,) * pair.spatial_axes
            layout[f".*/({pair.outputs})/kernel"] = (*spatial, None, axis)
            layout[f".*/({pair.outputs})/bias"] = (axis,)
            layout[f".*/({pair.inputs})/kernel"] = (*spatial, axis, None)
        return layout
