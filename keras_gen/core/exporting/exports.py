"""Models that write themselves as graphs, to run where neither this library nor Keras is installed."""

import functools
import pathlib
from typing import TYPE_CHECKING, Any

import keras

from keras_gen.core.checks import check
from keras_gen.core.exporting.graph import Graph
from keras_gen.core.exporting.reconstruction import Reconstruction
from keras_gen.core.exporting.writers import writer_for

if TYPE_CHECKING:
    from keras import Model as Mixin  # which comes later among the bases of each class
else:
    Mixin = object

PARTS = ("network", "sampling_generator", "diffusion.network", "autoencoder")


class Exports(Mixin):
    """Mixin of models: the reconstruction of an autoencoder, and methods, as graphs."""

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Exports the reconstruction of an autoencoder, a function of data; see `keras.Model.export`.

        Raises:
            NotImplementedError: if the model is no autoencoder. The message names the parts that can be exported.
        """
        parts = [path for path in PARTS if isinstance(_part(self, path), keras.Model)]
        own = ["export_sampler"] if hasattr(self, "export_sampler") else []
        own += ["export_method"] if self._exports_methods() else []
        self._check_reconstructs("export", [*(f"{name}.export" for name in parts), *own])
        self.check_built()
        x = keras.Input(self.data_shape, dtype=self.data_dtype, name="x")
        layer = Reconstruction(self.reconstruction, self.reconstructing_layers)
        return keras.Model(x, layer(x), name=self.name).export(filepath, *args, **kwargs)

    def method_graphs(self) -> list[Graph]:
        """Returns what `export_method` can write: methods as functions of tensors. None by default."""
        return []

    def export_method(self, path: str | pathlib.Path, method: str) -> None:
        """Writes `log_prob`, `encode` or `decode` as a graph, to run where neither this library nor Keras is installed.

        The graph holds the weights. Its inputs are the arrays that the method takes, under the same names and for any
        n: `x` (or `z`, or `codes`) and, of a conditional model, `condition`. What the method draws is an input too:
        `noise` of the data's shape, for flows that begin with `Dequantize`, uniform on [0, 1), or standard normal if
        the noise is learned. It checks nothing, and returns what the method returns, up to rounding.

        Args:
            path: str or path. A name without a suffix is the folder of a SavedModel (on TensorFlow, and on JAX with
                TensorFlow installed), whose function has the method's name; ".stablehlo" is a file for
                `jax.export.deserialize` (JAX); ".onnx" one for any ONNX runtime (PyTorch, TensorFlow), with
                `pip install 'keras_gen[onnx]'`.
            method: `"log_prob"`, `"encode"` or `"decode"`, whichever the model has.

        Raises:
            ValueError: if the model is not built or has no such method, the backend cannot write such a file, or the
                method cannot be written, as one whose number of steps depends on the data in ONNX.

        Example:

        >>> flow.export_method("log_prob.onnx", "log_prob")
        >>> onnxruntime.InferenceSession("log_prob.onnx").run(None, {"x": points})
        """
        path = pathlib.Path(path)
        write = writer_for(path)
        graphs = {graph.name: graph for graph in self.method_graphs()}
        rule = f"be one that {type(self).__name__} exports: {', '.join(map(repr, graphs)) or 'it has none'}"
        check(isinstance(method, str) and method in graphs, "method", rule, repr(method))
        drawn = graphs[method].draws(self._random_states())
        check(not drawn, "method", "draw nothing but noise that can be an input", f"{method}, drawing from {drawn}")
        write(graphs[method], path)

    def _exports_methods(self) -> bool:
        return type(self).method_graphs is not Exports.method_graphs


def _part(model: Any, path: str) -> Any:
    """Returns the part of a model under a dotted path, or `None`."""
    return functools.reduce(lambda part, name: getattr(part, name, None), path.split("."), model)
