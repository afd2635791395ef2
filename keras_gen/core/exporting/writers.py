"""Writers of graphs: SavedModel, StableHLO and ONNX, each by the backends that can."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keras_gen.core.checks import check
from keras_gen.core.exporting.graph import Graph
from keras_gen.core.files import replacing

Writer = Callable[[Graph, pathlib.Path], None]


def writer_for(path: pathlib.Path) -> Writer:
    """Returns the function that writes a graph to `path` on this backend, chosen by the suffix."""
    check(path.suffix in WRITERS, "path", "end with .onnx or .stablehlo, or have no suffix (SavedModel)", path)
    writers, backend = WRITERS[path.suffix], keras.backend.backend()
    can = " or ".join(sorted(writers))
    rule = f"have a suffix that {backend} can write: with {path.suffix or 'none'}, load the model's file on {can}"
    check(backend in writers, "path", rule, path)
    return writers[backend]


def saved_model_of_tensorflow(graph: Graph, path: pathlib.Path) -> None:
    import tensorflow as tf

    function = tf.function(graph, input_signature=_specs(graph), autograph=False)
    _save_module(graph.name, function, graph.variables, path)


def saved_model_of_jax(graph: Graph, path: pathlib.Path) -> None:
    import tensorflow as tf
    from jax.experimental import jax2tf

    shapes = [f"({', '.join('b' if size is None else str(size) for size in one.shape)})" for one in graph.inputs]
    function = jax2tf.convert(graph, polymorphic_shapes=shapes, with_gradient=False)
    _save_module(graph.name, tf.function(function, input_signature=_specs(graph), autograph=False), [], path)


def _specs(graph: Graph) -> list[Any]:
    import tensorflow as tf

    return [tf.TensorSpec(one.shape, one.dtype, name=one.name) for one in graph.inputs]


def _save_module(name: str, function: Any, variables: list[keras.Variable], path: pathlib.Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    setattr(module, name, function)
    module.weights = [variable.value for variable in variables]
    tf.saved_model.save(module, str(path), signatures=function)


def stable_hlo(graph: Graph, path: pathlib.Path) -> None:
    import jax
    from jax import export

    [batch] = export.symbolic_shape("b")
    shapes = [tuple(batch if size is None else size for size in one.shape) for one in graph.inputs]
    structs = [jax.ShapeDtypeStruct(shape, one.dtype) for shape, one in zip(shapes, graph.inputs, strict=True)]
    exported = export.export(jax.jit(graph.__call__))(*structs)
    with replacing(path) as file:
        file.write(exported.serialize())


def onnx_of_torch(graph: Graph, path: pathlib.Path) -> None:
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList([variable.value for variable in graph.variables])

        def forward(self, *tensors: Any) -> Any:
            return graph(*tensors)

    batch = torch.export.Dim("batch")
    dynamic = tuple({one.shape.index(None): batch} for one in graph.inputs)
    with torch.no_grad(), _refusing(graph, torch.onnx.OnnxExporterError):
        program = torch.onnx.export(
            Module().eval(),
            tuple(torch.from_numpy(one.example(2)) for one in graph.inputs),
            input_names=[one.name for one in graph.inputs],
            output_names=[graph.output],
            dynamic_shapes=(dynamic,),
            dynamo=True,
            verbose=False,
        )
    _save_onnx(graph, program.model_proto, path)  # type: ignore[union-attr]  # None without dynamo


def onnx_of_tensorflow(graph: Graph, path: pathlib.Path) -> None:
    import tensorflow as tf
    import tf2onnx

    function = tf.function(graph, input_signature=_specs(graph), autograph=False)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=_specs(graph), opset=17)
    _save_onnx(graph, proto, path)


def _save_onnx(graph: Graph, proto: Any, path: pathlib.Path) -> None:
    """Writes a graph after checking it: exporters may return one that no runtime loads, or with a fixed batch size."""
    import onnx

    with _refusing(graph, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        onnx.checker.check_model(proto, full_check=True)
    batches = [
        proto_input.type.tensor_type.shape.dim[one.shape.index(None)]
        for proto_input, one in zip(proto.graph.input, graph.inputs, strict=True)
    ]
    fixed = [size.dim_value for size in batches if size.HasField("dim_value")]
    check(not fixed, graph.name, "be written for any batch size", f"a graph for one of {fixed}")
    with replacing(path) as file:
        file.write(proto.SerializeToString())


@contextlib.contextmanager
def _refusing(graph: Graph, *errors: type[Exception]) -> Iterator[None]:
    """Converts the errors of exporters to the common form, with the name of the graph that they cannot write."""
    try:
        yield
    except errors as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        backend = keras.backend.backend()
        rule = f"consist of operations that {backend} can write as ONNX, not loops of unknown length or sorts"
        raise ValueError(f"`{graph.name}` must {rule}. Received: {graph.name}, with the error: {cause}") from error


WRITERS: dict[str, dict[str, Writer]] = {
    "": {"tensorflow": saved_model_of_tensorflow, "jax": saved_model_of_jax},
    ".stablehlo": {"jax": stable_hlo},
    ".onnx": {"torch": onnx_of_torch, "tensorflow": onnx_of_tensorflow},
}
