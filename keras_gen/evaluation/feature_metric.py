import abc
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, finite_floats
from keras_gen.core.compiled import compiled

KINDS = ("real", "generated")


class FeatureMetric(keras.metrics.Metric):
    """Base class of metrics that compare features of data and of samples.

    Subclasses define `collect` and `result`, and extend `reset_state`.

    Features are collected on the host, from arrays and eager tensors: use the metric after training or in a callback,
    not in `compile(metrics=...)`. Its configuration includes that of the feature model, not the weights.

    Args:
        feature_model: a Keras layer or model from data to features, or `None`: the data themselves.
        name: str or `None`. Defaults to `None`.
        dtype: as for any Keras metric; the computation does not depend on it.
    """

    def __init__(self, feature_model: keras.Layer | None, name: str | None = None, dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        is_layer = feature_model is None or isinstance(feature_model, keras.Layer)
        check(is_layer, "feature_model", "be a Keras layer, a model, or None", feature_model)
        self.feature_model = feature_model
        self.extract: Any = None
        self.reset_state()

    def reset_state(self) -> None:
        """Discards all features, and the number of features per sample."""
        self.num_features: int | None = None

    @abc.abstractmethod
    def collect(self, name: str, features: np.ndarray) -> None:
        """Adds float32 features `(batch, num_features)`; `name` is `"real"` or `"generated"`."""

    def update_state(self, real: Any, generated: Any, sample_weight: Any = None) -> None:
        """Adds a batch of data and a batch of samples, possibly of different sizes; either may be `None`."""
        check(sample_weight is None, "sample_weight", "be None: all samples have equal weight", "a value")
        for name, x in zip(KINDS, (real, generated), strict=True):
            if x is not None:
                self.collect(name, self._features(name, finite_floats(name, x)))

    def get_config(self) -> dict[str, Any]:
        feature_model, dtype = (
            keras.saving.serialize_keras_object(value) for value in (self.feature_model, self.dtype)
        )
        return {**super().get_config(), "feature_model": feature_model, "name": self.name, "dtype": dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FeatureMetric":
        return cls(**keras.saving.deserialize_keras_object(config))

    def _features(self, name: str, x: np.ndarray) -> np.ndarray:
        model = self.feature_model
        if model is not None:
            if self.extract is None:
                if not model.built:
                    model(ops.convert_to_tensor(x[:1]))
                self.extract = compiled(model, lambda x: ops.cast(model(x, training=False), "float32"))
            x = ops.convert_to_numpy(self.extract(ops.convert_to_tensor(x)))
        x = finite_floats(f"features of {name}", x.reshape(len(x), -1))
        self.num_features = self.num_features or x.shape[1]
        check(x.shape[1] == self.num_features, name, f"have {self.num_features} features", x.shape[1])
        return x
