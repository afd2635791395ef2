"""Copies of a training run to return to, in a file and in memory."""

import pathlib
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.averages import CHECKSUM
from keras_gen.core.checks import check, check_integer, is_array
from keras_gen.core.files import DAMAGE, reading, replacing
from keras_gen.core.replicas import processes
from keras_gen.export import keras_gen_export

EPOCH, PATHS = "epoch", "paths"
NAMED = 5  # variables in a warning


@keras_gen_export("keras_gen.callbacks.Backup")
class Backup(keras.callbacks.Callback):
    """Callback that backs up training after epochs, so that a killed `fit` resumes as if it had not been killed.

    A single file holds the weights, the optimizer, all random states, including those of NumPy and PyTorch, and the
    number of finished epochs. A new backup is complete before it replaces the previous one, so that there is a valid
    file whenever the process is killed.

    If there is a backup when `fit` begins, training continues after its last epoch. If all epochs are finished, nothing
    is trained: a script that was killed after training continues with the trained model. Delete the file to start over.

    Resumed and uninterrupted training agree up to rounding; on TensorFlow, whose shuffling has a random state of its
    own, only if the order of the data is fixed, as with `shuffle=False`. The state of other callbacks, such as the best
    loss so far, is not in the file. If a backup cannot be written, for example because the disk is full, a warning is
    issued and the previous one is kept.

    Args:
        filepath: str or path of an `.npz` file. Missing folders are created. Defaults to `"backup.npz"`.
        every: int >= 1. Number of epochs between backups. Defaults to `1`.

    Raises:
        ValueError: if an argument is invalid, or if, when training begins, the file is damaged or of another model.

    Example:

    >>> model.fit(images, epochs=50, callbacks=[Backup("run/backup.npz")])   # after it was killed: resumes
    """

    def __init__(self, filepath: str | pathlib.Path = "backup.npz", every: int = 1):
        super().__init__()
        check(str(filepath).endswith(".npz"), "filepath", "end with .npz", filepath)
        self.filepath = pathlib.Path(filepath)
        self.every = check_integer("every", every)

    def finished_epochs(self) -> int:
        """Returns the number of epochs after which the backup was made, 0 if there is none.

        Raises:
            ValueError: if the file is damaged.
        """
        if not self.filepath.exists():
            return 0
        with reading("filepath", self.filepath, "be a whole backup", *DAMAGE), np.load(self.filepath) as arrays:
            return int(arrays[EPOCH])

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self.filepath.exists():
            return
        model = self.model
        variables = _variables(model)
        with reading("filepath", self.filepath, "be a whole backup", *DAMAGE), np.load(self.filepath) as arrays:
            names, epoch = arrays[PATHS].tolist(), int(arrays[EPOCH])
            values = [arrays[str(i)] for i in range(len(names))]
            states = {name: arrays[name] for name in _random_states()}
            checksum = int(arrays[CHECKSUM]) if CHECKSUM in arrays else None
        own, saved = _shapes(variables), [(name, value.shape) for name, value in zip(names, values, strict=True)]
        rule = "be a backup of this model, compiled alike (delete it to begin anew)"
        other = [name for (name, shape), (_, other) in zip(saved, own, strict=False) if shape != other]
        received = f"{self.filepath} with {len(saved)} variables for {len(own)}; of other shapes: {other[:3]}"
        check(len(saved) == len(own) and not other, "filepath", rule, received)
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        _set_random_states(**states)
        if hasattr(model, CHECKSUM):
            model.averages_checksum = checksum
        model._initial_epoch = epoch  # Keras: where `fit` begins, unless 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        is_due = (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]
        if not is_due or processes.processes()[0] > 0:  # all processes have the same state: the first one writes it
            return
        model = self.model
        variables = _variables(model)
        arrays = {str(i): _as_array(variable) for i, variable in enumerate(variables)}
        arrays |= _random_states()
        arrays[EPOCH], arrays[PATHS] = np.array(epoch + 1), np.array([variable.path for variable in variables])
        if getattr(model, CHECKSUM, None) is not None:
            arrays[CHECKSUM] = np.array(model.averages_checksum)
        try:
            with replacing(self.filepath) as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # mypy takes an array for `allow_pickle`
        except OSError as error:
            warnings.warn(f"no backup of epoch {epoch + 1}, the last one stays: {error}", stacklevel=2)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.model._initial_epoch = 0


@keras_gen_export("keras_gen.callbacks.StopOnNaN")
class StopOnNaN(keras.callbacks.Callback):
    """Callback that ends training when a loss is NaN or infinite, and restores the last good weights.

    Like `keras.callbacks.TerminateOnNaN`, it ends `fit` after the batch, without an error. A warning names the step and
    the weights that are no longer finite, each with the range of its finite values and its previous range. The model
    and its optimizer return to their state after the last epoch that left all values finite, or to that at the
    beginning of training. They can then be saved, sampled from and trained again, for example with a smaller learning
    rate or with `clipnorm`.

    Put it before other callbacks, which then see the good weights at the end of the epoch. It watches all logged values
    whose names end with `loss`, and keeps a copy of the weights and of the optimizer's variables in host memory.

    Raises:
        ValueError: if the model is not built when training begins.

    Example:

    >>> model.fit(images, epochs=50, callbacks=[StopOnNaN(), keras.callbacks.ModelCheckpoint("run.keras")])
    """

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.report: str | None = None
        self._keep("training began", self._values())

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        losses = {name: _number(value) for name, value in (logs or {}).items() if name.endswith("loss")}
        broken = [f"{name}={value}" for name, value in losses.items() if not np.isfinite(value)]
        if broken and self.report is None:
            self._stop(f"{', '.join(broken)} after step {batch + 1} of epoch {self.epoch}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self.report is None:
            values = self._values()
            if not self._broken(values):
                self._keep(f"epoch {self.epoch} ended", values)
                return
            self._stop(f"a finite loss, but weights that are not finite, at the end of epoch {self.epoch}")
        for variable, value in zip(_variables(self.model), self.kept, strict=True):
            variable.assign(value)
        if hasattr(self.model, CHECKSUM):
            self.model.averages_checksum = self.checksum
        message = f"StopOnNaN ends training: {self.report}. The weights are put back to those of when {self.when}"
        warnings.warn(message, stacklevel=2)

    def _values(self) -> list[np.ndarray]:
        # Copies, since arrays share memory with PyTorch's tensors.
        return [np.array(_as_array(variable)) for variable in _variables(self.model)]

    def _keep(self, when: str, values: list[np.ndarray]) -> None:
        self.when, self.kept = when, values
        self.checksum = getattr(self.model, CHECKSUM, None)

    def _stop(self, reason: str) -> None:
        self.model.stop_training = True  # on JAX, `self.model` fetches the weights, which are elsewhere in an epoch
        broken = self._broken(self._values())
        lines = [
            f"{path} has {(~np.isfinite(now)).sum()} of {now.size} values not finite, the others {_range(now)}; "
            f"they were {_range(before)}"
            for path, now, before in broken[:NAMED]
        ]
        more = [f"{len(broken) - NAMED} more variables are not finite"] if len(broken) > NAMED else []
        self.report = "; ".join([reason, *(lines or ["all weights are finite"]), *more])

    def _broken(self, values: list[np.ndarray]) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Returns path, values and kept values of the variables with values that were finite and no longer are."""
        rows = zip(_variables(self.model), values, self.kept, strict=True)
        return [
            (variable.path, now, before)
            for variable, now, before in rows
            if (~np.isfinite(now) & np.isfinite(before)).any()
        ]


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Returns all that changes in training: weights, statistics, random states, optimizer. Metrics start afresh."""
    check(model.built, "model", "be built before it is backed up", "an unbuilt model")
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    metrics = {id(variable) for variable in model.metrics_variables}
    own = [variable for variable in model.variables if id(variable) not in metrics]
    return [*own, *model.optimizer.variables]


def _random_states() -> dict[str, np.ndarray]:
    """Returns the random states outside of the model: NumPy's and, on PyTorch, its own, of shuffles and dropout."""
    _, keys, *position = np.random.get_state()
    states = {"numpy_keys": np.asarray(keys), "numpy_position": np.array(position)}
    if keras.backend.backend() == "torch":
        import torch

        states["torch"] = torch.random.get_rng_state().numpy()
        if torch.cuda.is_available():
            states["torch_cuda"] = torch.cuda.random.get_rng_state().numpy()
    return states


def _set_random_states(numpy_keys: np.ndarray, numpy_position: np.ndarray, **of_torch: np.ndarray) -> None:
    position, has_gauss, gauss = numpy_position
    np.random.set_state(("MT19937", numpy_keys, int(position), int(has_gauss), gauss))
    if of_torch:
        import torch

        torch.random.set_rng_state(torch.from_numpy(of_torch["torch"]))
        if "torch_cuda" in of_torch:
            torch.cuda.random.set_rng_state(torch.from_numpy(of_torch["torch_cuda"]))


def _shapes(variables: list[keras.Variable]) -> list[tuple[str, tuple[int, ...]]]:
    return [(variable.path, tuple(variable.shape)) for variable in variables]


def _as_array(variable: keras.Variable) -> np.ndarray:
    array = ops.convert_to_numpy(variable)
    return array if array.dtype.kind in "biuf" else array.astype("float32")  # NumPy's files know no bfloat16


def _number(value: Any) -> float:
    return float(ops.convert_to_numpy(value)) if is_array(value) else float(value)


def _range(x: np.ndarray) -> str:
    finite = x[np.isfinite(x)]
    return f"in [{finite.min():.3g}, {finite.max():.3g}]" if finite.size else "none"
