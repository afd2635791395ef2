"""The base class of every model."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.compiled import as_tensor, compiled, even_batches, progress_bar, run_in_parts
from keras_gen.core.random import step_seeds


class Programs:
    """The compiled functions of a model, by key. Not a dict: Keras would track and save what is in a dict."""

    def __init__(self) -> None:
        self.by_key: dict[Any, Callable[..., Any]] = {}


class GenerativeModel(keras.Model):
    """A model that is trained by `fit` and asked for samples.

        loss = mean over the batch of weight_i loss_per_sample(x, y)_i + added losses + weight regularizers

    To write another:
    1. `loss_per_sample(x, y, training)` returns the loss of each sample, `(batch,)`. It draws from
       `self.seed_generator` and forwards `training` to every network. A term of the whole batch, which is neither
       weighted nor averaged, goes to `self.add_loss`, as in any Keras layer; what is to be logged goes to `self.track`.
    2. `check_data(x, y)` refuses arrays that `fit` could not use, `check_batch(x, y)` what can be seen of a batch while
       it is traced.
    3. `sample(n, seed, noise, batch_size)` is written on top of `self.in_batches` or, for a loop of steps,
       `self.run_steps`, and `self.draw_seed`.
    4. The constructor's arguments go to `get_config`.

    Besides the weights, its files hold the state of every random generator in it, so that a resumed `fit` draws what
    the uninterrupted one would have drawn.

    Args:
        seed: int or `None`. Seeds all draws of the model. Defaults to `None`, a seed from Keras's global one.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.
    """

    takes_sample_weight = True

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = None if seed is None else check_integer("seed", seed, at_least=0)
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.programs = Programs()
        self._sample_weight: Any = None  # of the training step that is being computed
        self.jit_choice: str | bool = "auto"

    def call(self, x: Any) -> Any:
        # Training and sampling are the model's work; Keras calls this before `compute_loss`, so it costs nothing.
        return x

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        """Returns the loss of each sample, float `(batch,)`."""
        raise NotImplementedError(f"{type(self).__name__} must define `loss_per_sample`")

    def check_batch(self, x: Any, y: Any) -> None:
        """Refuses what can be seen of a batch while it is traced: dtypes and shapes. Refuses nothing by default."""

    def track(self, tracker: keras.metrics.Metric, values: Any) -> None:
        """Adds the values of each sample, `(batch,)`, to a metric, weighted as their losses are."""
        tracker.update_state(values, self._sample_weight)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Returns the loss of a batch, a scalar: the one training step of all models. See the class."""
        weighted = sample_weight is not None
        check(not weighted or self.takes_sample_weight, "sample_weight", "be None: the model takes none", "a value")
        self.check_batch(x, y)
        self._sample_weight = sample_weight
        try:
            losses, penalty = self._losses_and_penalty(x, y, training)
        finally:
            self._sample_weight = None
        one_each = len(losses.shape) == 1
        check(one_each, "loss_per_sample", "return one number for each sample, (batch,)", f"shape {losses.shape}")
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
        # Keras would write what "auto" came to on this backend, and a file from JAX would not train on torch.
        config = super().get_compile_config()
        return config and {**config, "jit_compile": self.jit_choice}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        # Keras leaves this to a model that has its own `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def build_from(self, network: keras.Layer) -> None:
        """Builds the model for the inputs of `network`, if they are known and it is not built yet."""
        inputs = getattr(network, "inputs", None)
        if not self.built and inputs and None not in inputs[0].shape[1:]:
            self.build(inputs[0].shape)

    def check_built(self) -> None:
        """Refuses a model that does not know the shape of its data."""
        check(self.built, "model", "have seen data, in `fit` or `build`", "a model without a shape")

    def check_sampling(self, n: int, **options: Any) -> None:
        """Refuses options that `sample` could not use, without drawing anything. Checks nothing by default."""

    def check_data(self, x: Any, y: Any) -> None:
        """Refuses data that `fit` or `evaluate` could not use, before any step is spent. Does nothing by default."""

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Trains the model; see `keras.Model.fit`. With `use_ema=True` in the optimizer it ends on the averages."""
        self.check_data(x, y)
        if isinstance(kwargs.get("validation_data"), tuple | list):
            self.check_data(*(*kwargs["validation_data"], None)[:2])
        _check_weights(y, kwargs)
        self._unshare_weights()
        self._build_optimizer()
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns the loss on `x`; see `keras.Model.evaluate`."""
        self.check_data(x, y)
        _check_weights(y, kwargs)
        self._unshare_weights()
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs of `call`; see `keras.Model.predict`."""
        self._unshare_weights()
        return super().predict(*args, **kwargs)

    def draw_seed(self, seed: int | None) -> int:
        """Returns `seed`, or for `None` the next number of the model's own generator."""
        if seed is None:
            return int(keras.random.randint((), 0, 2**31 - 1, seed=self.seed_generator))
        return check_integer("seed", seed, at_least=0)

    def program(
        self, key: Any, function: Callable[..., Any], extra_layers: Sequence[keras.Layer] = ()
    ) -> Callable[..., Any]:
        """Returns `function`, which reads the weights of the model and of `extra_layers`; compiled once for each `key`.

        A key holds the shapes too: TensorFlow would otherwise make one function for all shapes, and a slower one.
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
        """Runs a loop of steps for batches of rows of the arrays: compiled once, seeded, with progress shown.

        Args:
            name: tells apart loops over the same arrays.
            loop: `loop(inputs, state, first, last)` takes the steps first .. last - 1 and returns the new state.
            arrays: each `(n, ...)`, the first of them not `None`; `inputs` holds the rows of one batch under the same
                names, and nothing for `None`.
            start: returns the state before the first step, from the inputs of a batch.
            steps: int >= 1.
            batch_size: int >= 1.
            verbose: `"auto"`, 0 or 1: whether to show progress.
            shared: further inputs, nested tensors that are the same for all batches. Defaults to `None`.
            seed: int or `None`. With it, `inputs["seeds"]` has the rows for `StepSeed`, `(steps, draws, 2)`, other ones
                for each batch. Defaults to `None`, for a loop without draws.
            draws: int >= 1. Number of draws in each step. Defaults to `1`.
            stops: the steps after which to yield the state. Defaults to `None`, the last one.
            part: further inputs of the steps from each stop to the next one. Defaults to `None`.
            extra_layers: further layers whose weights the loop reads. Defaults to `()`.

        Yields:
            The rows of a batch (integers below n), a stop, and the state after that many steps. The last batch is
            padded with row n - 1.
        """
        check_integer("batch_size", batch_size)
        arrays = {key: array for key, array in arrays.items() if array is not None}
        batches = list(even_batches(len(next(iter(arrays.values()))), batch_size))
        shapes = tuple((key, array.shape[1:], array.dtype.name) for key, array in sorted(arrays.items()))
        program = self.program((name, steps, len(batches[0]), shapes), loop, extra_layers)
        bar = progress_bar(len(batches) * steps, verbose)
        for number, rows in enumerate(batches):
            inputs = {**(shared or {}), **{key: as_tensor(array[rows]) for key, array in arrays.items()}}
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
        """Computes `function(*rows)` for batches of rows of the arrays, and joins the results.

        Args:
            name: tells apart functions that are given the same shapes.
            function: takes a tensor for each array, returns one tensor. It may draw from the model's generators.
            *arrays: each `(n, ...)`.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.
            seed: int or `None`. Seeds all generators of the model, differently for each batch; afterwards they are as
                before. Defaults to `None`, for a function without draws.

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
            # Absent where the file's network had less dropout: then the new generator keeps its own state.
            state.assign(values.get(f"random_state_{i}", state))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}

    def _losses_and_penalty(self, x: Any, y: Any, training: bool) -> tuple[Any, Any]:
        """Returns the loss of each sample, and the sum of the weight regularizers and of what `add_loss` was given."""
        self._clear_losses()
        if keras.backend.backend() != "jax":
            losses, penalty = self.loss_per_sample(x, y, training), sum(self.losses)
            self._clear_losses()  # they belong to a graph that ends with the step
            return losses, penalty
        # JAX's trainer drops what `add_loss` is given outside of `call`: we collect it in a scope of our own, and then
        # assign in the scope around it what changed in ours.
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
        """Makes the optimizer's variables now: TensorFlow would trace the step twice if the first trace made them."""
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built and all(layer.built for layer in self._flatten_layers()):
            optimizer.build(self.trainable_variables)

    def _random_states(self) -> list[keras.Variable]:
        # Keras's `weights` are its `variables` without the metrics' and the random generators'.
        others = {id(variable) for variable in [*self.weights, *self.metrics_variables]}
        return [variable for variable in self.variables if id(variable) not in others]

    def _unshare_weights(self) -> None:
        # On JAX a `fit` with use_ema=True leaves weights and averages in the same buffers, and the next `fit`,
        # `evaluate` or `predict` of Keras 3.15 gives the buffers of the weights away. All weights: those that are
        # frozen here may have averages in the optimizer of a part.
        if keras.backend.backend() == "jax":
            for variable in self.weights:
                variable.assign(ops.copy(variable))


def _check_weights(y: Any, options: dict[str, Any]) -> None:
    weighted = options.get("sample_weight") is not None
    check(not weighted or y is not None, "sample_weight", "come with `y`: Keras drops it otherwise", "an array")
