"""A sampler as one graph in a file: the whole loop, with its noise as an input, to be run without this library."""

import pathlib
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.compiled import as_tensor
from keras_gen.core.exporting.graph import Graph, Input
from keras_gen.core.exporting.writers import writer_for
from keras_gen.diffusion.samplers.base import Denoiser, DiffusionSampler, coefficient_table, prepared_condition
from keras_gen.diffusion.samplers.guidance import Guidance
from keras_gen.networks.backbones.image_network import condition_of

MOST_UNROLLED = 50  # each step is another copy of the network's operations


class SamplerGraph(Graph):
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
        shape = known_image_shape(model)
        conditions = condition_inputs(model, guidance)
        inputs = [Input("noise", (None, *shape)), *conditions, *self._step_noise(shape, conditions)]
        super().__init__("sample", self.images, inputs, "images", [model, *(guidance.layers if guidance else ())])

    def images(self, *tensors: Any) -> Any:
        """Returns the images, `(batch, *image_shape)`, given the `inputs` in their order."""
        given = dict(zip((one.name for one in self.inputs), tensors, strict=True))
        x_T = given["noise"] * self.sampler.noise_scale(self.model.schedule, self.times)
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

    def _step_noise(self, shape: tuple[int, ...], conditions: list[Input]) -> list[Input]:
        """Returns the noise of the steps as an input, if the first step asks for any."""
        asked: list[int] = []
        x = ops.zeros((1, *shape), "float32")

        def noise(k: int = 0) -> Any:
            asked.append(k)
            return x

        given = [as_tensor(one.example(1)) for one in conditions]
        row = keras.tree.map_structure(lambda column: as_tensor(column[0]), self.rows)
        self.sampler.step(self._denoiser(*(given or [None])), self.sampler.start(x), row, noise)
        draws = () if self.sampler.draws == 1 else (self.sampler.draws,)
        return [Input("step_noise", (self.steps, *draws, None, *shape))] if asked else []


def condition_inputs(model: Any, guidance: Guidance | None = None) -> list[Input]:
    """Returns the condition as an input of graphs; of an unconditional model none."""
    taken = condition_of(model.network)
    if taken is None:
        prepared_condition(model, guidance, None, 1)
        return []
    shape, dtype = taken
    check(None not in shape, "model", "take conditions of one known shape to be exported", f"shape {shape}")
    prepared = prepared_condition(model, guidance, np.zeros((1, *shape), dtype), 1)
    return [] if prepared is None else [Input("condition", (None, *prepared.shape[1:]), prepared.dtype.name)]


def known_image_shape(model: Any) -> tuple[int, ...]:
    """Returns the shape of the images of a built model whose network fixes it."""
    shape = model.built_shape()
    check(None not in shape, "model", "have images of one known size to be exported", f"images of shape {shape}")
    return shape


def export_sampler(
    model: Any, path: str | pathlib.Path, sampler: DiffusionSampler, guidance: Guidance | None = None
) -> None:
    """Writes a sampler as one graph; see `DiffusionModel.export_sampler`."""
    path = pathlib.Path(path)
    write = writer_for(path)
    graph = SamplerGraph(model, sampler, guidance)
    rule = f"have at most {MOST_UNROLLED} steps for ONNX from PyTorch, whose loop is unrolled"
    check(graph.steps <= MOST_UNROLLED or keras.backend.backend() != "torch", "sampler", rule, graph.steps)
    write(graph, path)
