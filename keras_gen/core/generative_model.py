"""Base class of all generative models."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.compiled import as_tensor, compiled, even_batches, progress_bar, run_in_parts
from keras_gen.core.random import step_seeds


class CompiledFunctions:
    """Cache of a model's compiled functions by key. Not a dict: Keras would track and save the contents of a dict."""

    def __init__(self) -> None:
        self.by_key: dict[Any, Callable[..., Any]] = {}


class GenerativeModel(keras.Model):
    """Base class of generative models: trained by `fit`, sampled by `sample`.

        loss = mean over the batch of weight_i loss_per_sample(x, y)_i + added losses + weight regularizers

    To implement a model:
    1. `loss_per_sample(x, y, training)` returns the loss of each sample, `(batch,)`. It draws from
       `self.seed_generator` and passes `training` to every network. Batch-level terms, neither weighted nor averaged,
       go to `self.add_loss`, as in any Keras layer; quantities to be logged go to `self.track`.
    2. `check_data(x, y)` validates the arrays given to `fit`, `check_batch(x, y)` the dtypes and shapes of a batch
       while it is traced.
    3. `sample(n, seed, noise, batch_size)` is built on `self.in_batches` or, for a loop of steps, `self.run_steps`,
       and on `self.draw_seed`.
    4. `get_config` returns the constructor's arguments.

    Saved files contain the weights and the state of every random generator, so that a resumed `fit` makes the same
    draws as an uninterrupted one.

    Args:
        seed: int or `None`. Seed of all random draws. Defaults to `None`, a seed from Keras's global generator.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.
    """

    takes_sample_weight = True

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = None if seed is None else check_integer("seed", seed, at_least=0)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.programs = CompiledFunctions()
        self._sample_weight: Any = None  # of the current training step
        self.jit_choice: str | bool = "auto"

    def call(self, x: Any) -> Any:
        # The identity: Keras calls this before `compute_loss`, where it should cost nothing.
        return x

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        """Returns the loss of each sample, float `(batch,)`."""
        raise NotImplementedError(f"{type(self).__name__} must define `loss_per_sample`")

    def check_batch(self, x: Any, y: Any) -> None:
        """Checks dtypes and shapes of a batch while it is traced. Checks nothing by default."""

    def track(self, tracker: keras.metrics.Metric, values: Any) -> None:
        """Updates a metric with per-sample values, `(batch,)`, weighted like the losses."""
        tracker.update_state(values, self._sample_weight)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Returns the scalar loss of a batch, by the formula common to all models: see the class."""
        weighted = sample_weight is not None
        check(not weighted or self.takes_sample_weight, "sample_weight", "be None: the model takes none", "a value")
        self.check_batch(x, y)
        self._sample_weight = sample_weight
        try:
            losses, penalty = self._losses_and_penalty(x, y, training)
        finally:
            self._sample_weight = None
        rule = "return one value per sample, (batch,)"
        check(len(losses.shape) == 1, "loss_per_sample", rule, f"shape {losses.shape}")
        if weighted:
            losses = losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,))
        return ops.mean(losses) + penalty

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *, jit_compile: str | bool = "auto", **kwargs: Any
    ) -> None:
        """Configures training; see `keras.Model.compile`. The model computes its own loss, so it takes none."""
        for name, value in {"loss": loss, **kwargs}.items():
            if name in ("loss", "loss_weights", "metrics", "weighted_metrics"):
                check(value is None, name, "be left out: the model computes its own loss", value)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self.jit_choice = jit_compile
        self.programs.by_key.clear()

    def get_compile_config(self) -> dict[str, Any] | None:
        # Keras would save what "auto" resolved to on this backend, and a file from JAX would not train on torch.
        config = super().get_compile_config()
        return config and {**config, "jit_compile": self.jit_choice}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras requires this of models that override `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def build_from(self, network: keras.Layer) -> None:
        """Builds the model from the input shape of `network`, if that is known and the model is not built yet."""
        inputs = getattr(network, "inputs", None)
        if not self.built and inputs and None not in inputs[0].shape[1:]:
            self.build(inputs[0].shape)

    def check_built(self) -> None:
        """Checks that the model is built."""
        check(self.built, "model", "be built: call `fit` or `build` first", "an unbuilt model")

    def check_sampling(self, n: int, **options: Any) -> None:
        """Validates the options of `sample` without drawing. Checks nothing by default."""

    def check_data(self, x: Any, y: Any) -> None:
        """Validates the data of `fit` and `evaluate` before the first step. Checks nothing by default."""

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the model; see `keras.Model.fit`. With `use_ema=True` in the optimizer it ends with the averages."""
        self.check_data(x, y)
        if isinstance(kwargs.get("validation_data"), tuple | list):
            self.check_data(*(*kwargs["validation_data"], None)[:2])
        _check_weights(y, kwargs)
        self._copy_weights()
        self._build_optimizer()
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns the loss on `x`; see `keras.Model.evaluate`."""
        self.check_data(x, y)
        _check_weights(y, kwargs)
        self._copy_weights()
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs of `call`; see `keras.Model.predict`."""
        self._copy_weights()
        return super().predict(*args, **kwargs)

    def draw_seed(self, seed: int | None) -> int:
        """Returns `seed`, or for `None` the next seed from the model's own generator."""
        if seed is None:
            return int(keras.random.randint((), 0, 2**31 - 1, seed=self.seed_generator))
        return check_integer("seed", seed, at_least=0)

    def program(
        self, key: Any, function: Callable[..., Any], extra_layers: Sequence[keras.Layer] = ()
    ) -> Callable[..., Any]:
        """Compiles `function`, which reads the weights of the model and of `extra_layers`, once for each `key`.

        Keys include the shapes: TensorFlow would otherwise trace a single, slower function for all shapes.
        """
        if key not in self.programs.by_key:
            self.programs.by_key[key] = compiled(self, function, extra_layers)
        return self.programs.by_key[key]

    def run_steps(
        self,
        name: Any,
        loop: Callable[[dict[str, Any], Any, Any, Any], Any],
        arrays: dict[str, np.ndarray | None],
        start: Callable[[dict[str, Any]], Any],
        *,
        steps: int,
        batch_size: int,
        verbose: str | int,
        shared: dict[str, Any] | None = None,
        seed: int | None = None,
        draws: int = 1,
        stops: Sequence[int] | None = None,
        part: Callable[[int, int], dict[str, Any]] | None = None,
        extra_layers: Sequence[keras.Layer] = (),
    ) -> Iterator[tuple[np.ndarray, int, Any]]:
        """Runs a compiled, seeded loop of steps for batches of the arrays' rows, with a progress bar.

        Args:
            name: distinguishes loops over the same arrays.
            loop: `loop(inputs, state, first, last)` performs the steps first .. last - 1 and returns the new state.
            arrays: each `(n, ...)`, the first of them not `None`; `inputs` contains the rows of one batch under the
                same names, without entries for `None`.
            start: returns the initial state from the inputs of a batch.
            steps: int >= 1.
            batch_size: int >= 1.
            verbose: `"auto"`, 0 or 1: whether to show progress.
            shared: further inputs, nested tensors that are the same for all batches. Defaults to `None`.
            seed: int or `None`. If given, `inputs["seeds"]` contains the rows for `StepSeed`, `(steps, draws, 2)`,
                different for each batch. Defaults to `None`, for a loop without random draws.
            draws: int >= 1. Number of draws per step. Defaults to `1`.
            stops: the steps after which to yield the state. Defaults to `None`, the last step.
            part: `part(first, last)` returns further inputs for the steps between two stops. Defaults to `None`.
            extra_layers: further layers whose weights the loop reads. Defaults to `()`.

        Yields:
            The row indices of a batch, a stop, and the state after that step. The last batch is padded with row n - 1.
        """
        check_integer("batch_size", batch_size)
        given = {key: array for key, array in arrays.items() if array is not None}
        batches = list(even_batches(len(next(iter(given.values()))), batch_size))
        shapes = tuple((key, array.shape[1:], array.dtype.name) for key, array in sorted(given.items()))
        program = self.program((name, steps, len(batches[0]), shapes), loop, extra_layers)
        bar = progress_bar(len(batches) * steps, verbose)
        for number, rows in enumerate(batches):
            inputs = {**(shared or {}), **{key: as_tensor(array[rows]) for key, array in given.items()}}
            if seed is not None:
                seeds = step_seeds(steps * draws, seed, number, self.seed_generator.state.dtype)
                inputs["seeds"] = as_tensor(seeds.reshape(steps, draws, 2))
            for stop, state in run_in_parts(program, inputs, start(inputs), steps, stops or (steps,), bar, part):
                yield rows, stop, state

    def in_batches(
        self,
        name: Any,
        function: Callable[..., Any],
        *arrays: np.ndarray,
        batch_size: int = 256,
        verbose: str | int = 0,
        seed: int | None = None,
    ) -> np.ndarray:
        """Computes `function(*rows)` for batches of the arrays' rows, and concatenates the results.

        Args:
            name: distinguishes functions of the same shapes.
            function: takes one tensor per array, returns one tensor. It may draw from the model's generators.
            *arrays: each `(n, ...)`.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.
            seed: int or `None`. Seeds all generators of the model, differently for each batch; their states are
                restored afterwards. Defaults to `None`, for a function without random draws.

        Returns:
            array `(n, ...)`.
        """
        check_integer("batch_size", batch_size)
        n = len(arrays[0])
        batches = list(even_batches(n, batch_size))
        shapes = tuple((array.shape[1:], array.dtype.name) for array in arrays)
        run = self.program((name, len(batches[0]), shapes), function)
        bar = progress_bar(len(batches), verbose)
        states = [] if seed is None else self._random_states()
        before = [np.array(ops.convert_to_numpy(state)) for state in states]
        parts = []
        try:
            for number, rows in enumerate(batches):
                for state, row in zip(states, step_seeds(len(states), seed or 0, number, "int64"), strict=True):
                    state.assign(row.astype(state.dtype))
                parts.append(ops.convert_to_numpy(run(*(as_tensor(array[rows], array.dtype) for array in arrays))))
                bar.add(1)
        finally:
            for state, value in zip(states, before, strict=True):
                state.assign(value)
        return np.concatenate(parts)[:n]

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        for i, state in enumerate(self._random_states()):
            store[f"random_state_{i}"] = ops.convert_to_numpy(state)

    def load_own_variables(self, store: Any) -> None:
        values = {key: store[key] for key in store.keys()}  # noqa: SIM118 (a Keras store has keys, but no iterator)
        super().load_own_variables({key: values[key] for key in values if not key.startswith("random_state_")})
        for i, state in enumerate(self._random_states()):
            # Absent if the saved network had fewer dropout layers: then the new generator keeps its own state.
            state.assign(values.get(f"random_state_{i}", state))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}

    def _losses_and_penalty(self, x: Any, y: Any, training: bool) -> tuple[Any, Any]:
        """Returns the loss of each sample, and the sum of weight regularizers and losses added by `add_loss`."""
        self._clear_losses()
        if keras.backend.backend() != "jax":
            losses, penalty = self.loss_per_sample(x, y, training), sum(self.losses)
            self._clear_losses()  # they belong to a graph that ends with the step
            return losses, penalty
        # JAX's trainer drops losses added outside of `call`: they are collected in an inner scope, and variables that
        # changed in it are then assigned in the outer one.
        regularization, variables = sum(self.losses), [*self.variables, *self.metrics_variables]
        scope = keras.StatelessScope([(variable, variable.value) for variable in variables], collect_losses=True)
        before = [scope.get_current_value(variable) for variable in variables]
        with scope:
            losses = self.loss_per_sample(x, y, training)
        for variable, old in zip(variables, before, strict=True):
            value = scope.get_current_value(variable)
            if value is not old:
                variable.assign(value)
        return losses, regularization + sum(scope.losses)

    def _build_optimizer(self) -> None:
        """Creates the optimizer's variables now: if the first trace did, TensorFlow would trace the step twice."""
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built and all(layer.built for layer in self._flatten_layers()):
            optimizer.build(self.trainable_variables)

    def _random_states(self) -> list[keras.Variable]:
        # Keras's `weights` are the `variables` without those of metrics and random generators.
        others = {id(variable) for variable in [*self.weights, *self.metrics_variables]}
        return [variable for variable in self.variables if id(variable) not in others]

    def _copy_weights(self) -> None:
        # On JAX a `fit` with use_ema=True leaves weights and averages in the same buffers, and the next `fit`,
        # `evaluate` or `predict` of Keras 3.15 donates the buffers of the weights. All weights: those frozen here may
        # be averaged by the optimizer of a submodel.
        if keras.backend.backend() == "jax":
            for variable in self.weights:
                variable.assign(ops.copy(variable))


def _check_weights(y: Any, options: dict[str, Any]) -> None:
    weighted = options.get("sample_weight") is not None
    check(not weighted or y is not None, "sample_weight", "come with `y`: Keras drops it otherwise", "an array")
