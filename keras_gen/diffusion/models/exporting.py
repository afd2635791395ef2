"""A sampler as one graph in a file: the whole loop, with its noise as an input, to be run without this library."""

import pathlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check
from keras_gen.core.compiled import as_tensor
from keras_gen.core.conditions import map_parts, packed, parts_of
from keras_gen.core.exporting.graph import Graph, Input
from keras_gen.core.exporting.writers import writer_for
from keras_gen.diffusion.samplers.base import (
    Denoiser,
    DiffusionSampler,
    coefficient_table,
    prepared_condition,
    row_of,
)
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
        # Arrays become constants of the graph, while some exporters treat tensors as further inputs.
        table = coefficient_table(model, sampler.rows(model.schedule, self.times))
        self.rows = keras.tree.map_structure(ops.convert_to_numpy, table)
        shape = known_image_shape(model)
        self.conditions = condition_inputs(model, guidance)
        inputs = [Input("noise", (None, *shape)), *self.conditions, *self._step_noise(shape)]
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
        denoise = self._denoiser([given[one.name] for one in self.conditions])
        state = self.sampler.run(denoise, inputs, self.sampler.start(x_T), 0, self.steps)
        return self.sampler.finish(state)

    def _denoiser(self, parts: list[Any]) -> Denoiser:
        return Denoiser(self.model, packed_condition(self.model, parts), self.guidance, self.sampler.clip_x0)

    def _step_noise(self, shape: tuple[int, ...]) -> list[Input]:
        """Returns the noise of the steps as an input, if the first step asks for any."""
        asked: list[int] = []
        x = ops.zeros((1, *shape), "float32")

        def noise(k: int = 0) -> Any:
            asked.append(k)
            return x

        parts = [as_tensor(one.example(1)) for one in self.conditions]
        row = keras.tree.map_structure(as_tensor, row_of(self.rows, 0))
        self.sampler.step(self._denoiser(parts), self.sampler.start(x), row, noise)
        draws = () if self.sampler.draws == 1 else (self.sampler.draws,)
        return [Input("step_noise", (self.steps, *draws, None, *shape))] if asked else []


def condition_inputs(model: Any, guidance: Guidance | None = None) -> list[Input]:
    """Returns the parts of the condition as inputs of graphs: none for an unconditional model."""
    taken = condition_of(model.network)
    prepared = prepared_condition(model, guidance, None if taken is None else map_parts(_zeros, taken), 1)
    if prepared is None:
        return []
    names = [f"condition_{key}" for key in sorted(prepared)] if isinstance(prepared, dict) else ["condition"]
    pairs = zip(names, parts_of(prepared), strict=True)
    return [Input(name, (None, *part.shape[1:]), part.dtype.name) for name, part in pairs]


def _zeros(part: Any) -> np.ndarray:
    shape = part.shape[1:]
    check(None not in shape, "model", "take conditions of one known shape to be exported", f"shape {shape}")
    return np.zeros((1, *shape), part.dtype)


def packed_condition(model: Any, parts: Sequence[Any]) -> Any:
    """Returns the condition, given tensors for the inputs of `condition_inputs`: `None` if there are none."""
    return packed(condition_of(model.network), parts) if parts else None


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
