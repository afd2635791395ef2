"""Layouts of weights on a mesh of devices, for `keras.distribution.ModelParallel`."""

from typing import Any

import keras

from keras_gen.core.checks import check

ATTENTION = "qkv|query|key_value", "output"
MLP = "mlp_1|modulation", "mlp_2"
CONVOLUTIONS = "conv_1", "conv_2"


def split_layout(mesh: Any, axis: str, *pairs: tuple[str, str], images: tuple[str, str] | None = None) -> Any:
    """Returns a layout map that splits weights over an axis of the mesh, in pairs of products.

    Of each pair the first product is split by its outputs, the second by its inputs: what is between them stays on its
    device, and the parts of the result are summed once. All other weights are whole on each device.

    Args:
        mesh: `keras.distribution.DeviceMesh`.
        axis: str, the name of an axis.
        *pairs: two regular expressions for names of layers, of the first and of the second products.
        images: a pair of convolutions of images. Defaults to `None`.

    Returns:
        `keras.distribution.LayoutMap`.

    Raises:
        ValueError: if the mesh has no such axis.

    Reference: Shoeybi et al. 2019, arXiv:1909.08053, section 3.
    """
    check(isinstance(mesh, keras.distribution.DeviceMesh), "mesh", "be a keras.distribution.DeviceMesh", mesh)
    check(axis in mesh.axis_names, "axis", f"be an axis of the mesh, one of {list(mesh.axis_names)}", repr(axis))
    layout = keras.distribution.LayoutMap(mesh)
    for leading, (outputs, inputs) in [*[((), pair) for pair in pairs], *([((None, None), images)] if images else [])]:
        layout[f".*/({outputs})/kernel"] = (*leading, None, axis)
        layout[f".*/({outputs})/bias"] = (axis,)
        layout[f".*/({inputs})/kernel"] = (*leading, axis, None)
    return layout
