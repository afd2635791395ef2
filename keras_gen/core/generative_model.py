"""The base class of every model."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.compiled import compiled


class Programs:
    """The compiled functions of a model, by key. Not a dict: Keras would track and save what is in a dict."""

    def __init__(self) -> None:
        self.by_key: dict[Any, Callable[..., Any]] = {}


class GenerativeModel(keras.Model):
    """A model that is trained by `fit` and asked for samples.

    To write another: compute the loss in `compute_loss`, drawing from `self.seed_generator`, and forward `training`
    to every network; check what `fit` was given in `check_data`; write `sample(n, seed, noise, batch_size)` on top of
    `self.program` and `self.draw_seed`; list the constructor's arguments in `get_config`.

    Besides the weights, its files hold the state of every random generator in it, so that a resumed `fit` draws what
    the uninterrupted one would have drawn.

    Args:
        seed: int or `None`. Seeds all draws of the model. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if seed is not None:
            check_integer("seed", seed, at_least=0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.programs = Programs()

    def check_data(self, x: Any, y: Any) -> None:
        """Refuses data that `fit` or `evaluate` could not use, before any step is spent. Does nothing by default."""

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the model; see `keras.Model.fit`. With `use_ema=True` in the optimizer it ends on the averages."""
        self.check_data(x, y)
        weighted = kwargs.get("sample_weight") is not None
        check(not weighted or y is not None, "sample_weight", "come with `y`: Keras drops it otherwise", "an array")
        try:
            return super().fit(x, y, *args, **kwargs)
        finally:
            self._unshare_weights()

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns the loss on `x`; see `keras.Model.evaluate`."""
        self.check_data(x, y)
        return super().evaluate(x, y, *args, **kwargs)

    def draw_seed(self, seed: int | None) -> int:
        """Returns `seed`, or for `None` the next number of the model's own generator."""
        if seed is None:
            return int(keras.random.randint((), 0, 2**31 - 1, seed=self.seed_generator))
        check_integer("seed", seed, at_least=0)
        return int(seed)

    def program(self, key: Any, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns `function`, which reads the model's weights, compiled; compiled once for each `key`.

        A key holds the shapes too: TensorFlow would otherwise make one function for all shapes, and a slower one.
        """
        if key not in self.programs.by_key:
            self.programs.by_key[key] = compiled(self, function)
        return self.programs.by_key[key]

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        for i, state in enumerate(self._random_states()):
            store[f"random_state_{i}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store: Any) -> None:
        values = {key: store[key] for key in store.keys()}  # noqa: SIM118 (a Keras store has keys, but no iterator)
        super().load_own_variables({key: values[key] for key in values if not key.startswith("random_state_")})
        for i, state in enumerate(self._random_states()):
            state.assign(values[f"random_state_{i}"])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}

    def _random_states(self) -> list[keras.Variable]:
        # Keras's `weights` are its `variables` without the metrics' and the random generators'.
        others = {id(variable) for variable in [*self.weights, *self.metrics_variables]}
        return [variable for variable in self.variables if id(variable) not in others]

    def _unshare_weights(self) -> None:
        # On JAX a `fit` with use_ema=True leaves weights and averages in the same buffers, and the next `evaluate`,
        # `predict` or `fit` of Keras 3.15 gives the buffers of the weights away.
        if keras.backend.backend() == "jax":
            for variable in self.trainable_variables:
                variable.assign(ops.copy(variable))
