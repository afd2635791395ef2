"""Base class of all generative models."""

import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core import averages, jax_weights
from keras_gen.core.checks import check, check_verbose
from keras_gen.core.compiled import CompiledFunctions
from keras_gen.core.configured import check_configured
from keras_gen.core.data import Batches, check_batch_size, check_class_weight
from keras_gen.core.data_checks import checked_data
from keras_gen.core.exporting.exports import Exports
from keras_gen.core.frozen import StaysFrozen
from keras_gen.core.random import check_seed, seed_generator, step_seeds
from keras_gen.core.replicas import preparation, processes, training_step, whole_batch
from keras_gen.core.runs_batches import RunsBatches
from keras_gen.core.scheduled import steps_per_update
from keras_gen.core.torch.inductor import compiling
from keras_gen.core.torch.optimizer import few_passes
from keras_gen.core.weights import load_whole

INSTEAD_OF_PREDICT = ("sample", "log_prob", "elbo", "map_latents", "denoise_from")


class GenerativeModel(StaysFrozen, RunsBatches, Exports, keras.Model):
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
    takes_unit_images = False  # whether data that are images are to be in [-1, 1]
    nested_data: tuple[type, ...] = ()  # kinds of nested arrays that data may be, beside a single array
    data_dtype = "float32"
    reconstructing = False  # whether `call` reconstructs: within `predict` of an autoencoder

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = check_seed(seed)
        self.seed_generator = seed_generator(self.seed)
        self.programs = CompiledFunctions()
        self.warned_of_range = False
        self._sample_weight: Any = None  # of the current training step
        self.training_thread: int | None = None
        self.averages_checksum: int | None = None  # of the averages, while they are in the weights
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
            with whole_batch.keeping(self._saved), training_step.shifted(self._states_of_replica):
                losses, penalty = self._losses_and_penalty(x, y, training)
        finally:
            self._sample_weight = None
        rule = "return one value per sample, (batch,)"
        check(len(losses.shape) == 1, "loss_per_sample", rule, f"shape {losses.shape}")
        if weighted:
            losses = losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,))
        loss = ops.mean(losses) + penalty
        return training_step.weighted(loss, ops.shape(losses)[0], training)

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *, jit_compile: str | bool = "auto", **kwargs: Any
    ) -> None:
        """Configures training; see `keras.Model.compile`. The model computes its own loss, so it takes none.

        On PyTorch `jit_compile=True` compiles traced networks, in training and sampling, not the step around them.
        """
        for name, value in {"loss": loss, **kwargs}.items():
            if name in ("loss", "loss_weights"):
                check(value is None, name, "be left out: the model computes its own loss", value)
            if name in ("metrics", "weighted_metrics"):
                check(
                    value is None, name, "be left out: callbacks.EvaluateSamples evaluates samples during `fit`", value
                )
        is_choice = jit_compile == "auto" or isinstance(jit_compile, bool)
        check(is_choice, "jit_compile", "be 'auto', True or False", repr(jit_compile))
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self.jit_choice = jit_compile
        self.averages_checksum = None
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
        """Trains the model; see `keras.Model.fit`.

        With `use_ema=True` in the optimizer, the weights are the averages at the end of each epoch, so that these are
        what callbacks see and what is left at the end of `fit`, finished or interrupted. The next `fit` goes on from
        the weights of training, also after `save` and `keras.models.load_model`.
        """
        with preparation.scope_of(self):
            return self._fit_checked(_options(super().fit, x, y, *args, **kwargs))

    def _fit_checked(self, options: dict[str, Any]) -> keras.callbacks.History:
        options["x"] = checked_data(self, options.get("x"), options.get("y"), options.get("sample_weight"))
        if isinstance(options["x"], Batches):
            options["shuffle"] = False  # else Keras asks for them in an order that their source has not
        validation = options.get("validation_data")
        if isinstance(validation, tuple | list):
            checked_data(self, *(*validation, None, None)[:3])
        elif validation is not None:
            options["validation_data"] = checked_data(self, validation)
        jax_weights.copy(self)
        self._build_optimizer()
        options["callbacks"] = preparation.callbacks_of_process(_as_list(options.get("callbacks")))
        optimizer = getattr(self, "optimizer", None)
        preparation.check_accumulation(steps_per_update(optimizer))
        options = preparation.prepared(options, [*self.variables, *getattr(optimizer, "variables", [])])
        if not averages.keeps_averages(optimizer):
            return self._fit(options)
        options["callbacks"] = [averages.Averages(), *averages.without_swaps(options["callbacks"])]
        with averages.keeping_raw_weights(optimizer), self._ending_with_averages():
            return self._fit(options)

    def _fit(self, options: dict[str, Any]) -> keras.callbacks.History:
        self.training_thread = threading.get_ident()
        try:
            return super().fit(**options)
        finally:
            self.training_thread = None

    @contextlib.contextmanager
    def _ending_with_averages(self) -> Iterator[None]:
        try:
            yield
        finally:
            jax_weights.recover(self)
            averages.put_in(self)

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Context in which the weights are the averages that the optimizer keeps of them (`use_ema=True`).

        They are so anyway after `fit`, and in a callback at the end of an epoch; in a callback after a batch, or in a
        training loop of one's own, they are not. Without averages, the weights stay as they are.

        Example:

        >>> with model.averaged_weights():
        ...     model.sample(16)
        """
        jax_weights.fetch(self)
        inside = self.averages_checksum is not None
        if getattr(self, "optimizer", None) is not None:
            averages.put_in(self)
        try:
            yield
        finally:
            if not inside:
                averages.take_out(self)

    def save(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the model; see `keras.Model.save`. The file holds the averages, if any, and the weights of training."""
        check_configured("model", self)
        is_hdf5 = str(filepath).endswith((".h5", ".hdf5"))
        check(not is_hdf5, "filepath", "end with .keras: not all models can be loaded from HDF5", filepath)
        with self.averaged_weights():
            super().save(filepath, *args, **kwargs)

    def save_weights(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        """Saves the weights: the averages, if any, and those of training; see `keras.Model.save_weights`."""
        with self.averaged_weights():
            super().save_weights(filepath, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns the loss on `x`; see `keras.Model.evaluate`.

        All draws are those of one fixed seed: evaluating twice gives the same loss, and validation during `fit` leaves
        the draws of training as they are.
        """
        with preparation.scope_of(self):
            return self._evaluate_checked(_options(super().evaluate, x, y, *args, **kwargs))

    def _evaluate_checked(self, options: dict[str, Any]) -> Any:
        if not options.get("_use_cached_eval_dataset"):  # else `fit` has checked them, and Keras has begun with them
            options["x"] = checked_data(self, options.get("x"), options.get("y"), options.get("sample_weight"))
            options = preparation.prepared(options, [])
        jax_weights.copy(self)
        states = self._random_states()
        before = [ops.convert_to_numpy(state) for state in states]
        for state, row in zip(states, step_seeds(len(states), 0, 0, self.seed_generator.state.dtype), strict=True):
            state.assign(row)
        try:
            return super().evaluate(**options)
        finally:
            jax_weights.recover(self)
            for state, value in zip(states, before, strict=True):
                state.assign(value)

    def reconstruction(self, x: Any) -> Any:
        """Computes reconstructions of a batch, a tensor, without sampling. Only autoencoders define it."""
        raise NotImplementedError(f"{type(self).__name__} reconstructs no data")

    @property
    def reconstructing_layers(self) -> list[keras.Layer]:
        """The layers that `reconstruction` calls."""
        return []

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the reconstructions of an autoencoder; see `keras.Model.predict`.

        Raises:
            NotImplementedError: if the model is no autoencoder. The message names the methods to use instead.
        """
        self._check_reconstructs("predict", [name for name in INSTEAD_OF_PREDICT if hasattr(self, name)])
        jax_weights.copy(self)
        self.reconstructing = True
        try:
            return super().predict(*args, **kwargs)
        finally:
            self.reconstructing = False
            jax_weights.recover(self)

    def _check_reconstructs(self, method: str, others: list[str]) -> None:
        if type(self).reconstruction is GenerativeModel.reconstruction:
            instead = f": use {', '.join(f'`{name}`' for name in others)}" if others else ""
            raise NotImplementedError(f"{type(self).__name__} has no `{method}`{instead}")

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        for i, state in enumerate(self._random_states()):
            store[f"random_state_{i}"] = ops.convert_to_numpy(state)
        if self.averages_checksum is not None:
            store[averages.CHECKSUM] = np.array(self.averages_checksum)

    def load_own_variables(self, store: Any) -> None:
        values = {key: store[key] for key in store.keys()}  # noqa: SIM118 (a Keras store has keys, but no iterator)
        checksum = values.pop(averages.CHECKSUM, None)
        self.averages_checksum = None if checksum is None else int(np.asarray(checksum))
        super().load_own_variables({key: values[key] for key in values if not key.startswith("random_state_")})
        for i, state in enumerate(self._random_states()):
            # Absent if the saved network had fewer dropout layers: then the new generator keeps its own state.
            state.assign(values.get(f"random_state_{i}", state))

    def load_weights(self, filepath: Any, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Loads all weights of a file, or leaves the model as it is; see `keras.Model.load_weights`.

        Args:
            filepath: path of a `.weights.h5` or `.keras` file with the weights of this model and no others.
            skip_mismatch: bool. Whether to load what fits, and to ignore what the file lacks or has besides. Defaults
                to `False`.
            **kwargs: as for `keras.Model.load_weights`.

        Raises:
            ValueError: with the path, if the file is damaged, or a weight is missing, left over, of another shape or
                NaN.
        """
        self.check_built()
        load_whole(self, super().load_weights, filepath, skip_mismatch, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}

    def _losses_and_penalty(self, x: Any, y: Any, training: bool) -> tuple[Any, Any]:
        """Returns the loss of each sample, and the sum of weight regularizers and losses added by `add_loss`."""
        self._clear_losses()
        if keras.backend.backend() != "jax":
            losses = self.loss_per_sample(x, y, training)
            penalty = sum(ops.cast(loss, losses.dtype) for loss in self.losses)  # TensorFlow adds only what is alike
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

    def _saved(self) -> Callable[[], None]:
        """Returns a function that restores the sample weights of the step and the losses that layers have added."""
        weight, losses = self._sample_weight, [(layer, list(layer._losses)) for layer in self._flatten_layers()]

        def restore() -> None:
            self._sample_weight = weight
            for layer, added in losses:
                layer._losses[:] = added

        return restore

    def _build_optimizer(self) -> None:
        """Creates the optimizer's variables now: if the first trace did, TensorFlow would trace the step twice."""
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and not optimizer.built and all(layer.built for layer in self._flatten_layers()):
            optimizer.build(self.trainable_variables)

    def _random_states(self) -> list[keras.Variable]:
        # Keras's `weights` are the `variables` without those of metrics and random generators.
        others = {id(variable) for variable in [*self.weights, *self.metrics_variables]}
        return [variable for variable in self.variables if id(variable) not in others]

    def _states_of_replica(self) -> list[keras.Variable]:
        """Returns the random states that each replica shifts: all but those that `shared_generators` of layers name."""
        layers = self._flatten_layers()
        shared = {id(each.state) for layer in layers for each in getattr(layer, "shared_generators", ())}
        return [state for state in self._random_states() if id(state) not in shared]

    def train_step(self, *args: Any) -> Any:
        """Performs a step of training; see `keras.Model.train_step`. All replicas learn the same."""
        update = few_passes(self.optimizer)
        with training_step.averaging_gradients(self.optimizer, args), update, compiling(self.jit_compile):
            logs = super().train_step(*args)
        training_step.average_statistics(self)
        return training_step.reducible(logs)

    def test_step(self, *args: Any) -> Any:
        """Performs a step of evaluation; see `keras.Model.test_step`."""
        with compiling(self.jit_compile):
            logs = super().test_step(*args)
        return training_step.reducible(logs)

    def _should_torch_compile(self) -> bool:
        # Keras would hand its step to Dynamo, which compiles Keras's calls of layers over and over.
        return False

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the values of all metrics, over the rows of all replicas; see `keras.Model.get_metrics_result`."""
        with training_step.summed(self.metrics_variables):
            return super().get_metrics_result()

    def make_train_function(self, force: bool = False) -> Any:
        jax_weights.remember(self)
        for layer in self._flatten_layers():
            if hasattr(layer, "steps_per_update"):
                layer.steps_per_update = steps_per_update(self.optimizer)
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        jax_weights.remember(self)
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        jax_weights.remember(self)
        return super().make_predict_function(force)

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        # TensorFlow's trainer looks at a batch here, and fails at one of several workers. The model is built by now.
        if processes.processes()[1] == 1:
            super()._maybe_symbolic_build(*args, **kwargs)


def _options(method: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Returns the arguments of Keras's `fit` or `evaluate` by name, after checking those that do not depend on data."""
    options = inspect.signature(method).bind(*args, **kwargs).arguments
    options |= options.pop("kwargs", {})
    check_batch_size(options.get("batch_size"))
    check_class_weight(options.get("class_weight"))
    check_verbose(options.get("verbose", "auto"))
    return options


def _as_list(callbacks: Any) -> list[Any]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(keras.tree.flatten(callbacks)) if callbacks is not None else []
