import abc
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import batch_of, check, check_integer, finite_floats
from keras_gen.core.compiled import compiled, even_batches

KINDS = ("real", "generated")


class FeatureSet:
    """Features of one kind, all kept, for any split into batches."""

    def __init__(self) -> None:
        self.n = 0
        self.batches: list[np.ndarray] = []

    def add(self, features: np.ndarray) -> None:
        """Adds features `(batch, num_features)`."""
        self.n += len(features)
        self.batches.append(features)

    def array(self) -> np.ndarray:
        """Returns the features of all batches, `(n, num_features)`."""
        return np.concatenate(self.batches)


class FeatureMetric(keras.metrics.Metric):
    """Base class of metrics that compare features of data and of samples.

    Subclasses define `compare` and `worst`; `fewest`, if they need more than 2 samples of a kind; and `new_set`, if
    they need not keep all features.

    Features are collected on the host, from arrays and eager tensors: use the metric after training or through
    `callbacks.EvaluateSamples`, not in `compile(metrics=...)`. Its configuration includes that of the feature model,
    not the weights.

    Args:
        feature_model: a Keras layer or model from data to features, or `None`: the data themselves.
        name: str or `None`. Defaults to `None`.
        dtype: as for any Keras metric; the computation does not depend on it.
        batch_size: int >= 1. Number of samples that go through the feature model at a time. Defaults to `64`.
    """

    # The values of the metric, under the names that they have in logs: those of samples that are of no use at all.
    worst: ClassVar[dict[str, float]]

    def __init__(
        self, feature_model: keras.Layer | None, name: str | None = None, dtype: Any = None, batch_size: int = 64
    ):
        super().__init__(name=name, dtype=dtype)
        is_layer = feature_model is None or isinstance(feature_model, keras.Layer)
        check(is_layer, "feature_model", "be a Keras layer, a model, or None", feature_model)
        self.feature_model = feature_model
        self.batch_size = check_integer("batch_size", batch_size)
        self.extract: Any = None
        self.reset_state()

    @abc.abstractmethod
    def compare(self, real: Any, generated: Any) -> float | dict[str, float]:
        """Returns the value, or the values by the names of `worst`, of two sets as `new_set` makes them."""

    def new_set(self) -> Any:
        """Returns an empty set, which has `n` and `add`, for the features of a kind."""
        return FeatureSet()

    def fewest(self) -> tuple[int, str]:
        """Returns how many samples of a kind are needed, and the same in words."""
        return 2, "2"

    def reset_state(self) -> None:
        """Discards all features, and the number of features per sample."""
        self.num_features: int | None = None
        self.sets = {kind: self.new_set() for kind in KINDS}

    def reset_generated(self) -> None:
        """Discards the features of samples, and keeps those of the data."""
        self.sets["generated"] = self.new_set()

    def update_state(self, real: Any, generated: Any, sample_weight: Any = None) -> None:
        """Adds a batch of data and a batch of samples, possibly of different sizes; either may be `None`."""
        check(sample_weight is None, "sample_weight", "be None: all samples have equal weight", "a value")
        for kind, x in zip(KINDS, (real, generated), strict=True):
            if x is not None:
                self.collect(kind, self.features(kind, x))

    def features(self, kind: str, x: Any) -> np.ndarray:
        """Returns the features of data or samples, finite float32 `(n, num_features)`."""
        return finite_floats(f"features of {kind}", self.extracted(finite_floats(kind, x)))

    def extracted(self, x: np.ndarray) -> np.ndarray:
        """Returns the features of float32 data, `(n, num_features)`, in batches."""
        if self.feature_model is None:
            return x.reshape(len(x), -1)
        batches = even_batches(len(x), self.batch_size)
        try:
            parts = [ops.convert_to_numpy(self._program(x)(ops.convert_to_tensor(x[rows]))) for rows in batches]
        except (ValueError, TypeError) as error:  # Keras's words for an input of another shape
            name, rule = self.feature_model.name, f"take data of shape {batch_of(x.shape[1:])}"
            raise ValueError(f"`feature_model` must {rule}. Received: feature_model={name}: {error}") from error
        return np.concatenate(parts)[: len(x)].reshape(len(x), -1)

    def collect(self, kind: str, features: np.ndarray) -> None:
        """Adds features `(n, num_features)`; `kind` is `"real"` or `"generated"`."""
        self.num_features = self.num_features or features.shape[1]
        check(features.shape[1] == self.num_features, kind, f"have {self.num_features} features", features.shape[1])
        self.sets[kind].add(features)

    def result(self) -> float | dict[str, float]:
        number, words = self.fewest()
        for kind, features in self.sets.items():
            check(features.n >= number, kind, f"have at least {words} samples in total", features.n)
        return self.compare(*(self.sets[kind] for kind in KINDS))

    def values(self) -> dict[str, float]:
        """Returns the result by the names that it has in logs, those of `worst`."""
        result = self.result()
        return result if isinstance(result, dict) else dict.fromkeys(self.worst, result)

    def get_config(self) -> dict[str, Any]:
        feature_model, dtype = (
            keras.saving.serialize_keras_object(value) for value in (self.feature_model, self.dtype)
        )
        own = {"feature_model": feature_model, "batch_size": self.batch_size}
        return {**super().get_config(), **own, "name": self.name, "dtype": dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureMetric":
        return cls(**keras.saving.deserialize_keras_object(config))

    def _program(self, x: np.ndarray) -> Any:
        model = self.feature_model
        if self.extract is None and model is not None:
            if not model.built:
                model(ops.convert_to_tensor(x[:1]))
            self.extract = compiled(model, lambda x: ops.cast(model(x, training=False), "float32"))
        return self.extract
