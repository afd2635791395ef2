"""The content of an exported file: a function of tensors, its inputs, and the layers whose weights it reads."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_gen.core.compiled import as_tensor, variables_of


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of a graph. Of its shape, `None` is the size of the batch."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def example(self, n: int) -> np.ndarray:
        """Returns zeros for `n` samples."""
        return np.zeros([n if size is None else size for size in self.shape], self.dtype)


class Graph:
    """A function of tensors, of any batch size.

    Args:
        name: str. Its name in files that hold functions by name.
        function: takes one tensor for each input, in their order, and returns one tensor. It draws nothing: noise is
            among the inputs.
        inputs: the inputs.
        output: str. The name of what it returns.
        layers: the layers whose weights it reads.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        inputs: Sequence[Input],
        output: str,
        layers: Sequence[keras.Layer],
    ):
        self.name, self.function, self.inputs, self.output = name, function, list(inputs), output
        self.layers = list(layers)

    def __call__(self, *tensors: Any) -> Any:
        """Returns the output, given the `inputs` in their order."""
        return self.function(*tensors)

    @property
    def variables(self) -> list[keras.Variable]:
        """The weights that the graph holds."""
        return variables_of(*self.layers)

    def draws(self, states: Sequence[keras.Variable]) -> list[str]:
        """Returns the paths of those among the `states` of random generators from which the function draws."""
        examples = [as_tensor(one.example(1), one.dtype) for one in self.inputs]
        with keras.StatelessScope([(state, state.value) for state in states]) as scope:
            before = [scope.get_current_value(state) for state in states]
            self(*examples)
            after = [scope.get_current_value(state) for state in states]
        return [state.path for state, old, new in zip(states, before, after, strict=True) if new is not old]
