"""Base class of all generative models."""

import contextlib
import functools
import inspect
import math
import pathlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core import averages, replicas
from keras_gen.core.checks import check, check_image_range, check_integer, check_no_scalar, check_verbose, is_array
from keras_gen.core.compiled import CompiledFunctions, as_tensor, even_batches, progress_bar, run_in_parts, shapes_of
from keras_gen.core.conditions import map_parts, names_of
from keras_gen.core.data import Batches, check_batch_size, first_batch, is_source
from keras_gen.core.exporting.graph import Graph
from keras_gen.core.exporting.writers import writer_for
from keras_gen.core.frozen import StaysFrozen
from keras_gen.core.random import check_seed, check_seeds, seed_generator, step_seeds
from keras_gen.core.reconstruction import Reconstruction
from keras_gen.core.scheduled import steps_per_update
from keras_gen.core.stateless import in_random_state
from keras_gen.core.torch.inductor import compiling
from keras_gen.core.torch.optimizer import few_passes
from keras_gen.core.weights import load_whole

INSTEAD_OF_PREDICT = ("sample", "log_prob", "elbo", "map_latents", "denoise_from")
EXPORTED_PARTS = ("network", "sampling_generator", "diffusion.network", "autoencoder")

SEQUENCES = list | tuple | range | np.ndarray
DRAW_LOCK = threading.Lock()


class GenerativeModel(StaysFrozen, keras.Model):
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
        self._warned_of_range = False
        self._sample_weight: Any = None  # of the current training step
        self._training_thread: int | None = None
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
            with replicas.keeping(self._saved), replicas.shifted(self._states_of_replica):
                losses, penalty = self._losses_and_penalty(x, y, training)
        finally:
            self._sample_weight = None
        rule = "return one value per sample, (batch,)"
        check(len(losses.shape) == 1, "loss_per_sample", rule, f"shape {losses.shape}")
        if weighted:
            losses = losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,))
        loss = ops.mean(losses) + penalty
        return replicas.weighted(loss, ops.shape(losses)[0], training)

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
        with replicas.scope_of(self):
            return self._fit_checked(_options(super().fit, x, y, *args, **kwargs))

    def _fit_checked(self, options: dict[str, Any]) -> keras.callbacks.History:
        options["x"] = self._checked(options.get("x"), options.get("y"), options.get("sample_weight"))
        if isinstance(options["x"], Batches):
            options["shuffle"] = False  # else Keras asks for them in an order that their source has not
        validation = options.get("validation_data")
        if isinstance(validation, tuple | list):
            self._checked(*(*validation, None, None)[:3])
        elif validation is not None:
            options["validation_data"] = self._checked(validation)
        self._copy_weights()
        self._build_optimizer()
        options["callbacks"] = replicas.callbacks_of_process(_as_list(options.get("callbacks")))
        optimizer = getattr(self, "optimizer", None)
        replicas.check_accumulation(steps_per_update(optimizer))
        options = replicas.prepared(options, [*self.variables, *getattr(optimizer, "variables", [])])
        if not averages.keeps_averages(optimizer):
            return self._fit(options)
        options["callbacks"] = [averages.Averages(), *averages.without_swaps(options["callbacks"])]
        with averages.keeping_raw_weights(optimizer), self._ending_with_averages():
            return self._fit(options)

    def _fit(self, options: dict[str, Any]) -> keras.callbacks.History:
        self._training_thread = threading.get_ident()
        try:
            return super().fit(**options)
        finally:
            self._training_thread = None

    @contextlib.contextmanager
    def _ending_with_averages(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._recover_weights()
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
        self._check_weights_are_here()
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
        with replicas.scope_of(self):
            return self._evaluate_checked(_options(super().evaluate, x, y, *args, **kwargs))

    def _evaluate_checked(self, options: dict[str, Any]) -> Any:
        if not options.get("_use_cached_eval_dataset"):  # else `fit` has checked them, and Keras has begun with them
            options["x"] = self._checked(options.get("x"), options.get("y"), options.get("sample_weight"))
            options = replicas.prepared(options, [])
        self._copy_weights()
        states = self._random_states()
        before = [ops.convert_to_numpy(state) for state in states]
        for state, row in zip(states, step_seeds(len(states), 0, 0, self.seed_generator.state.dtype), strict=True):
            state.assign(row)
        try:
            return super().evaluate(**options)
        finally:
            self._recover_weights()
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
        self._copy_weights()
        self.reconstructing = True
        try:
            return super().predict(*args, **kwargs)
        finally:
            self.reconstructing = False
            self._recover_weights()

    def export(self, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        """Exports the reconstruction of an autoencoder, a function of data; see `keras.Model.export`.

        Raises:
            NotImplementedError: if the model is no autoencoder. The message names the parts that can be exported.
        """
        parts = [path for path in EXPORTED_PARTS if isinstance(_part(self, path), keras.Model)]
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
        return type(self).method_graphs is not GenerativeModel.method_graphs

    def _check_reconstructs(self, method: str, others: list[str]) -> None:
        if type(self).reconstruction is GenerativeModel.reconstruction:
            instead = f": use {', '.join(f'`{name}`' for name in others)}" if others else ""
            raise NotImplementedError(f"{type(self).__name__} has no `{method}`{instead}")

    def draw_seed(self, seed: int | None) -> int:
        """Returns `seed`, or for `None` the next seed from the model's own generator, another one in each thread."""
        self._check_weights_are_here()
        if seed is None:
            with DRAW_LOCK:
                return int(keras.random.randint((), 0, 2**31 - 1, seed=self.seed_generator))
        return check_integer("seed", seed, at_least=0)

    def draw_seeds(self, seed: Any, n: int) -> int | tuple[int, ...]:
        """Returns the seed of `n` samples as `draw_seed` does, or a tuple if `seed` holds one for each of them."""
        return check_seeds(seed, n) if isinstance(seed, SEQUENCES) else self.draw_seed(seed)

    def program(
        self, key: Any, function: Callable[..., Any], extra_layers: Sequence[keras.Layer] = ()
    ) -> Callable[..., Any]:
        """Compiles `function`, which reads the weights of the model and of `extra_layers`, once for each `key`.

        Keys include the shapes: TensorFlow would otherwise trace a single, slower function for all shapes. The last
        16 programs are kept.

        Raises:
            RuntimeError: if another thread trains the model, on JAX.
        """
        self._check_weights_are_here()
        return self.programs.get(key, function, self, *extra_layers)

    def run_steps(
        self,
        name: Any,
        loop: Callable[[dict[str, Any], Any, Any, Any], Any],
        arrays: dict[str, Any],
        start: Callable[[dict[str, Any]], Any],
        *,
        steps: int,
        batch_size: int,
        verbose: str | int,
        shared: dict[str, Any] | None = None,
        seed: int | tuple[int, ...] | None = None,
        draws: int = 1,
        stops: Sequence[int] | None = None,
        part: Callable[[int, int], dict[str, Any]] | None = None,
        read: Callable[[Any], Any] = lambda state: state,
        extra_layers: Sequence[keras.Layer] = (),
    ) -> Iterator[tuple[np.ndarray, int, Any]]:
        """Runs a compiled, seeded loop of steps for batches of the arrays' rows, with a progress bar.

        Args:
            name: distinguishes loops over the same arrays.
            loop: `loop(inputs, state, first, last)` performs the steps first .. last - 1 and returns the new state.
            arrays: each `(n, ...)`, or a dict of such arrays; `inputs` contains the rows of one batch under the same
                names, without entries for `None`.
            start: returns the initial state from the inputs of a batch.
            steps: int >= 1.
            batch_size: int >= 1.
            verbose: `"auto"`, 0 or 1: whether to show progress.
            shared: further inputs, nested tensors that are the same for all batches. Defaults to `None`.
            seed: int, tuple or `None`. If given, `inputs["seeds"]` contains the rows for `StepSeed`,
                `(steps, draws, 2)`, different for each batch; for a tuple of `n` seeds `(steps, draws, batch, 2)`, in
                which a row has those of a batch of one. Defaults to `None`, for a loop without random draws.
            draws: int >= 1. Number of draws per step. Defaults to `1`.
            stops: the steps after which to yield the state. Defaults to `None`, the last step.
            part: `part(first, last)` returns further inputs for the steps between two stops. Defaults to `None`.
            read: function of a state that returns what to yield of it, nested tensors with one row per sample. Defaults
                to the state itself.
            extra_layers: further layers whose weights the loop reads. Defaults to `()`.

        Yields:
            The row indices of a batch, a stop, and what `read` returns after that step, as NumPy arrays. The last batch
            is padded with row n - 1. Several processes, or devices of a strategy, share the batches; all are yielded.
        """
        check_integer("batch_size", batch_size)
        given = {key: array for key, array in arrays.items() if array is not None}
        leaves = keras.tree.flatten(given)
        batches = list(even_batches(len(leaves[0]), batch_size))
        by_row = isinstance(seed, tuple)
        shared = shared or {}

        def inputs_of(number: int) -> dict[str, Any]:
            rows = batches[number]
            own = keras.tree.map_structure(lambda array: replicas.placed(as_tensor(array[rows])), given)
            if seed is not None:
                own["seeds"] = as_tensor(self._step_seeds((steps, draws), seed, number, rows))
            return own

        key = (name, steps, len(batches[0]), shapes_of(given), by_row, replicas.devices())
        program = self.program(key, replicas.on_devices(loop), extra_layers)
        rounds = replicas.rounds(len(batches), leaves)
        bar = progress_bar(len(rounds) * steps, verbose)
        for numbers, together in rounds:
            own = [inputs_of(number) for number in numbers]
            start_state = replicas.spread([start({**shared, **each}) for each in own])
            inputs = {**shared, **replicas.spread(own)}
            for stop, state in run_in_parts(program, inputs, start_state, steps, stops or (steps,), bar, part):
                results = [read(each) for each in replicas.unspread(state)]
                for other, result in zip(together, replicas.of_each_process(results), strict=True):
                    yield batches[other], stop, result

    def in_batches(
        self,
        name: Any,
        function: Callable[..., Any],
        *arrays: Any,
        batch_size: int = 256,
        verbose: str | int = 0,
        seed: int | None = None,
        extra_layers: Sequence[keras.Layer] = (),
    ) -> np.ndarray:
        """Computes `function(*rows)` for batches of the arrays' rows, and concatenates the results.

        Args:
            name: distinguishes functions of the same shapes.
            function: takes one tensor per array, or a dict of them, returns one tensor. It may draw from the model's
                generators.
            *arrays: each `(n, ...)`, or a dict of such arrays.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"`, 0 or 1: whether to show progress. Defaults to `0`.
            seed: int or `None`. Seeds all generators of the model, differently for each batch; their own states do not
                change. Defaults to `None`, for a function without random draws.

        Returns:
            array `(n, ...)`.
        """
        check_integer("batch_size", batch_size)
        leaves = keras.tree.flatten(arrays)
        n = len(leaves[0])
        batches = list(even_batches(n, batch_size))
        states = [] if seed is None else self._random_states()
        # Seeds are arguments: what other threads draw, and the state that they draw from, is left alone.
        run = self.program(
            (name, len(batches[0]), shapes_of(arrays), len(states), replicas.devices()),
            replicas.on_devices(in_random_state(self, states, function)),
            extra_layers,
        )

        def inputs_of(number: int) -> tuple[Any, ...]:
            drawn = step_seeds(len(states), seed or 0, number, self.seed_generator.state.dtype)
            rows = batches[number]
            own = keras.tree.map_structure(lambda array: replicas.placed(as_tensor(array[rows], array.dtype)), arrays)
            return list(map(ops.convert_to_tensor, drawn)), *own

        rounds = replicas.rounds(len(batches), leaves)
        bar = progress_bar(len(rounds), verbose)
        parts = []
        for numbers, _ in rounds:
            inputs = replicas.spread([inputs_of(number) for number in numbers])
            parts += replicas.of_each_process(replicas.unspread(run(*inputs)))
            bar.add(1)
        return np.concatenate(parts)[:n]

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

    def _step_seeds(
        self, shape: tuple[int, int], seed: int | tuple[int, ...], number: int, rows: np.ndarray
    ) -> np.ndarray:
        """Returns the seeds of all draws of a batch, `(*shape, 2)`, or those of each row, `(*shape, batch, 2)`."""
        dtype = self.seed_generator.state.dtype
        if isinstance(seed, tuple):
            of_rows = [step_seeds(math.prod(shape), seed[row], 0, dtype).reshape(*shape, 2) for row in rows]
            return np.stack(of_rows, axis=2)
        return step_seeds(math.prod(shape), seed, number, dtype).reshape(*shape, 2)

    def _check_weights_are_here(self) -> None:
        """Fetches the weights from Keras's training loop on JAX, which holds them elsewhere while it runs."""
        if keras.backend.backend() != "jax" or self._training_thread is None:
            return
        if self._training_thread != threading.get_ident():
            raise RuntimeError(f"{self.name} is being trained in another thread: on JAX, wait for the end of `fit`")
        self.jax_state_sync()

    def train_step(self, *args: Any) -> Any:
        """Performs a step of training; see `keras.Model.train_step`. All replicas learn the same."""
        update = few_passes(self.optimizer)
        with replicas.averaging_gradients(self.optimizer, args), update, compiling(self.jit_compile):
            logs = super().train_step(*args)
        replicas.average_statistics(self)
        return replicas.reducible(logs)

    def test_step(self, *args: Any) -> Any:
        """Performs a step of evaluation; see `keras.Model.test_step`."""
        with compiling(self.jit_compile):
            logs = super().test_step(*args)
        return replicas.reducible(logs)

    def _should_torch_compile(self) -> bool:
        # Keras would hand its step to Dynamo, which compiles Keras's calls of layers over and over.
        return False

    def get_metrics_result(self) -> dict[str, Any]:
        """Returns the values of all metrics, over the rows of all replicas; see `keras.Model.get_metrics_result`."""
        with replicas.summed(self.metrics_variables):
            return super().get_metrics_result()

    def make_train_function(self, force: bool = False) -> Any:
        self._remember_weights()
        for layer in self._flatten_layers():
            if hasattr(layer, "steps_per_update"):
                layer.steps_per_update = steps_per_update(self.optimizer)
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        self._remember_weights()
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        self._remember_weights()
        return super().make_predict_function(force)

    def _maybe_symbolic_build(self, *args: Any, **kwargs: Any) -> None:
        # TensorFlow's trainer looks at a batch here, and fails at one of several workers. The model is built by now.
        if replicas.processes()[1] == 1:
            super()._maybe_symbolic_build(*args, **kwargs)

    def _remember_weights(self) -> None:
        """On JAX, Keras takes the values out of the variables, and loses them if the first step fails."""
        if keras.backend.backend() == "jax":
            kinds = ("trainable_variables", "non_trainable_variables", "metrics_variables")
            state = {kind: [variable.value for variable in getattr(self, kind)] for kind in kinds}
            optimizer = getattr(self, "optimizer", None)
            state["optimizer_variables"] = [variable.value for variable in getattr(optimizer, "variables", [])]
            self._jax_state = state

    def _recover_weights(self) -> None:
        """After a step that failed on JAX, gives the variables the values of the last finished one."""
        if keras.backend.backend() == "jax":
            self.jax_state_sync()

    def _checked(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Checks arrays, or the first batch of a dataset or generator; returns data that still begin with it."""
        check(x is not None, "x", "be given: arrays, a dataset or a generator", None)
        is_nested = isinstance(x, list | tuple | dict)
        parts: list[Any] = list(x.values() if isinstance(x, dict) else x) if is_nested else []
        is_taken = isinstance(x, self.nested_data) and len(parts) > 0 if is_nested else is_source(x)
        check(is_taken, "x", "be one array, a dataset or a generator", f"a {type(x).__name__}")
        check(all(map(is_array, parts)), "x", "hold arrays", repr(x)[:80])
        is_whole = is_array(x) or isinstance(x, self.nested_data)
        check(y is None or is_whole, "y", "be None: a dataset or a generator yields it with each batch", "a value")
        if is_array(x) and len(x.shape) > 0:
            map_parts(lambda name, part: _check_rows(name, part, len(x)), names_of("y", y), y)
        self.check_data(x, y)
        batch, x = first_batch(x)
        if batch is None:
            has_target = sample_weight is None or y is not None
            check(has_target, "sample_weight", "come with `y`: Keras drops it otherwise", "an array")
            self._check_weights(x, sample_weight)
            self._check_range(x)
        else:
            first_x, first_y, first_weight = keras.utils.unpack_x_y_sample_weight(batch)
            keys = list(first_x) if isinstance(first_x, dict) else []
            rule = f"yield (x,) or (x, y), as `keras_gen.data.Batches(x, x=<key>, y=<key>)` does with keys of {keys}"
            is_taken = not isinstance(first_x, dict) or isinstance(first_x, self.nested_data)
            check(is_taken, "x", rule, "dicts")
            self.check_data(first_x, first_y)
            self._check_weights(first_x, first_weight)
            self._check_range(first_x)
        return x

    def _check_range(self, x: Any) -> None:
        doubt = check_image_range("x", x) if self.takes_unit_images else None
        if doubt and not self._warned_of_range:
            warnings.warn(doubt, stacklevel=5)
            self._warned_of_range = True

    def _check_weights(self, x: Any, sample_weight: Any) -> None:
        if sample_weight is not None:
            weight = ops.convert_to_numpy(sample_weight)
            n = len(keras.tree.flatten(x)[0])
            check(weight.shape in ((n,), (n, 1)), "sample_weight", f"have shape ({n},)", f"shape {weight.shape}")
            is_weight = np.isfinite(weight) & (weight >= 0)
            check(bool(is_weight.all()), "sample_weight", "be finite and >= 0", weight[~is_weight][:5])

    def _copy_weights(self) -> None:
        # On JAX a `fit` with use_ema=True leaves weights and averages in the same buffers, and the next `fit`,
        # `evaluate` or `predict` of Keras 3.15 donates the buffers of the weights. All weights: those frozen here may
        # be averaged by the optimizer of a submodel.
        if keras.backend.backend() == "jax":
            for variable in self.weights:
                variable.assign(ops.copy(variable))


def _options(method: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Returns the arguments of Keras's `fit` or `evaluate` by name, after checking those that do not depend on data."""
    options = inspect.signature(method).bind(*args, **kwargs).arguments
    options |= options.pop("kwargs", {})
    check_batch_size(options.get("batch_size"))
    check_verbose(options.get("verbose", "auto"))
    return options


def _as_list(callbacks: Any) -> list[Any]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(keras.tree.flatten(callbacks)) if callbacks is not None else []


def _check_rows(name: str, y: Any, n: int) -> None:
    """Checks that `y`, or a part of it, is an array beside `n` samples, or `None`."""
    check_no_scalar(name, y, n)
    check(y is None or is_array(y), name, "be an array, as x is", f"a {type(y).__name__}")


def _part(model: Any, path: str) -> Any:
    """Returns the part of a model under a dotted path, or `None`."""
    return functools.reduce(lambda part, name: getattr(part, name, None), path.split("."), model)
