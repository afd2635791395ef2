"""A sampler as one graph in a file: the whole loop, with its noise as an input, to be run without this library."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.compiled import as_tensor, variables_of
from keras_gen.core.files import replacing
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler, coefficient_table, prepared_condition
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.networks.backbones.image_network import condition_of

MOST_UNROLLED = 50  # each step is another copy of the network's operations


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of the graph. Of its shape, `None` is the size of the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str

    def example(self, n: int) -> np.ndarray:
        """Returns zeros for `n` images."""
        return np.zeros([n if size is None else size for size in self.shape], self.dtype)


class SamplerGraph:
    """The function that an exported sampler computes: images from noise.

    Args:
        model: a built `DiffusionModel`.
        sampler: the sampler.
        guidance: a `Guidance` or `None`.
    """

    def __init__(self, model: Any, sampler: DiffusionSampler, guidance: Guidance | None):
        self.model, self.sampler, self.guidance = model, sampler, guidance
        self.times = sampler.times(model.schedule)
        self.steps = len(self.times) - 1
        # As arrays, so that they become constants of the graph: some exporters take tensors for further inputs.
        table = coefficient_table(model, sampler.rows(model.schedule, self.times))
        self.rows = keras.tree.map_structure(ops.convert_to_numpy, table)
        shape = model.built_shape()
        check(None not in shape, "model", "have images of one known size to be exported", f"images of shape {shape}")
        self.inputs = [Input("noise", (None, *shape), "float32"), *self._condition(), *self._step_noise(shape)]

    @property
    def variables(self) -> list[keras.Variable]:
        """The weights that the graph holds."""
        return variables_of(self.model, *(() if self.guidance is None else self.guidance.layers))

    def __call__(self, *tensors: Any) -> Any:
        """Returns the images, `(batch, *image_shape)`, given the `inputs` in their order."""
        given = dict(zip((one.name for one in self.inputs), tensors, strict=True))
        x_T = given["noise"] * self.model.noise_scale(self.times)
        inputs = {"rows": keras.tree.map_structure(as_tensor, self.rows)}
        if "step_noise" in given:
            step_noise = given["step_noise"]
            if self.sampler.draws == 1:
                step_noise = ops.expand_dims(step_noise, 1)
            inputs["step_noise"] = ops.moveaxis(step_noise, 2, 0)
        denoise = self._denoiser(given.get("condition"))
        state = self.sampler.run(denoise, inputs, self.sampler.start(x_T), 0, self.steps)
        return self.sampler.finish(state)

    def _denoiser(self, condition: Any) -> Denoiser:
        return Denoiser(self.model, condition, self.guidance, self.sampler.clip_x0)

    def _condition(self) -> list[Input]:
        taken = condition_of(self.model.network)
        if taken is None:
            prepared_condition(self.model, self.guidance, None, 1)
            return []
        shape, dtype = taken
        check(None not in shape, "model", "take conditions of one known shape to be exported", f"shape {shape}")
        prepared = prepared_condition(self.model, self.guidance, np.zeros((1, *shape), dtype), 1)
        return [] if prepared is None else [Input("condition", (None, *prepared.shape[1:]), prepared.dtype.name)]

    def _step_noise(self, shape: tuple[int, ...]) -> list[Input]:
        """Returns the noise of the steps as an input, if the first step asks for any."""
        asked: list[int] = []
        x = ops.zeros((1, *shape), "float32")

        def noise(k: int = 0) -> Any:
            asked.append(k)
            return x

        conditions = [as_tensor(one.example(1)) for one in self._condition()]
        row = keras.tree.map_structure(lambda column: as_tensor(column[0]), self.rows)
        self.sampler.step(self._denoiser(*(conditions or [None])), self.sampler.start(x), row, noise)
        draws = () if self.sampler.draws == 1 else (self.sampler.draws,)
        return [Input("step_noise", (self.steps, *draws, None, *shape), "float32")] if asked else []


def export_sampler(
    model: Any, path: str | pathlib.Path, sampler: DiffusionSampler, guidance: Guidance | None = None
) -> None:
    """Writes a sampler as one graph; see `DiffusionModel.export_sampler`."""
    path = pathlib.Path(path)
    check(path.suffix in WRITERS, "path", "end with .onnx or .stablehlo, or have no suffix (SavedModel)", path)
    writers, backend = WRITERS[path.suffix], keras.backend.backend()
    can = " or ".join(sorted(writers))
    rule = f"have a suffix that {backend} can write: with {path.suffix or 'none'}, load the model's file on {can}"
    check(backend in writers, "path", rule, path)
    graph = SamplerGraph(model, sampler, guidance)
    writers[backend](graph, path)


def saved_model_of_tensorflow(graph: SamplerGraph, path: pathlib.Path) -> None:
    import tensorflow as tf

    _save_module(tf.function(graph, input_signature=_specs(graph), autograph=False), graph.variables, path)


def saved_model_of_jax(graph: SamplerGraph, path: pathlib.Path) -> None:
    import tensorflow as tf
    from jax.experimental import jax2tf

    shapes = [f"({', '.join('b' if size is None else str(size) for size in one.shape)})" for one in graph.inputs]
    function = jax2tf.convert(graph, polymorphic_shapes=shapes, with_gradient=False)
    _save_module(tf.function(function, input_signature=_specs(graph), autograph=False), [], path)


def _specs(graph: SamplerGraph) -> list[Any]:
    import tensorflow as tf

    return [tf.TensorSpec(one.shape, one.dtype, name=one.name) for one in graph.inputs]


def _save_module(function: Any, variables: list[keras.Variable], path: pathlib.Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.sample, module.weights = function, [variable.value for variable in variables]
    tf.saved_model.save(module, str(path), signatures=function)


def stable_hlo(graph: SamplerGraph, path: pathlib.Path) -> None:
    import jax
    from jax import export

    [batch] = export.symbolic_shape("b")
    shapes = [tuple(batch if size is None else size for size in one.shape) for one in graph.inputs]
    structs = [jax.ShapeDtypeStruct(shape, one.dtype) for shape, one in zip(shapes, graph.inputs, strict=True)]
    exported = export.export(jax.jit(graph.__call__))(*structs)
    with replacing(path) as file:
        file.write(exported.serialize())


def onnx_of_torch(graph: SamplerGraph, path: pathlib.Path) -> None:
    import torch

    rule = f"have at most {MOST_UNROLLED} steps for ONNX from PyTorch, whose loop is unrolled"
    check(graph.steps <= MOST_UNROLLED, "sampler", rule, graph.steps)

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.ParameterList([variable.value for variable in graph.variables])

        def forward(self, *tensors: Any) -> Any:
            return graph(*tensors)

    batch = torch.export.Dim("batch")
    dynamic = tuple({one.shape.index(None): batch} for one in graph.inputs)
    with torch.no_grad(), replacing(path) as file:
        program = torch.onnx.export(
            Module().eval(),
            tuple(torch.from_numpy(one.example(2)) for one in graph.inputs),
            input_names=[one.name for one in graph.inputs],
            output_names=["images"],
            dynamic_shapes=(dynamic,),
            dynamo=True,
            verbose=False,
        )
        file.write(program.model_proto.SerializeToString())  # type: ignore[union-attr]  # None without dynamo


def onnx_of_tensorflow(graph: SamplerGraph, path: pathlib.Path) -> None:
    import tensorflow as tf
    import tf2onnx

    function = tf.function(graph, input_signature=_specs(graph), autograph=False)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=_specs(graph), opset=17)
    with replacing(path) as file:
        file.write(proto.SerializeToString())


WRITERS: dict[str, dict[str, Callable[[SamplerGraph, pathlib.Path], None]]] = {
    "": {"tensorflow": saved_model_of_tensorflow, "jax": saved_model_of_jax},
    ".stablehlo": {"jax": stable_hlo},
    ".onnx": {"torch": onnx_of_torch, "tensorflow": onnx_of_tensorflow},
}
