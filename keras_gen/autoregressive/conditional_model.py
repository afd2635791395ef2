"""Base class of conditional autoregressive models."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.autoregressive.autoregressive_model import AutoregressiveModel
from keras_gen.core.arrays import at_index
from keras_gen.core.checks import (
    as_labels,
    batch_of,
    check,
    check_integer_or_none,
    check_rate,
    condition_rows,
    flat_labels,
    same_shape,
)
from keras_gen.core.exporting.graph import Input


class ConditionalModel(AutoregressiveModel):
    """Base class of autoregressive models of codes with class labels, vectors or nothing as condition.

    In training a fraction of the conditions is replaced by the null condition, the class `num_classes` or the zero
    vector, for classifier-free guidance. Subclasses call `build_condition` in `build`, and `embed` wherever the
    condition is used.
    """

    def __init__(
        self,
        num_codes: int,
        num_classes: int | None = None,
        condition_dim: int | None = None,
        condition_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(num_codes, seed=seed, **kwargs)
        self.num_classes = check_integer_or_none("num_classes", num_classes)
        self.condition_dim = check_integer_or_none("condition_dim", condition_dim)
        is_single = num_classes is None or condition_dim is None
        check(is_single, "condition_dim", "be None where num_classes is given", condition_dim)
        self.condition_dropout = check_rate("condition_dropout", condition_dropout)
        rule = "be 0 for a model without a condition"
        check(condition_dropout == 0 or self.takes_condition, "condition_dropout", rule, condition_dropout)

    @property
    def takes_condition(self) -> bool:
        """Whether the model is conditional."""
        return self.num_classes is not None or self.condition_dim is not None

    def build_condition(self, width: int) -> None:
        """Builds the embedding layer of the condition, if there is one."""
        options = {"dtype": self.dtype_policy, "name": "condition"}
        if self.num_classes is not None:
            self.condition_layer = keras.layers.Embedding(self.num_classes + 1, width, **options)
            self.condition_layer.build((None,))
        elif self.condition_dim is not None:
            # Without a bias, so that the null condition adds nothing.
            self.condition_layer = keras.layers.Dense(width, use_bias=False, **options)
            self.condition_layer.build((None, self.condition_dim))

    def embed(self, condition: Any, training: bool = False) -> Any:
        """Returns the embedding `(batch, width)` of conditions, a fraction of which is dropped in training."""
        condition = flat_labels(condition)
        if training and self.condition_dropout > 0:
            drawn = keras.random.uniform((ops.shape(condition)[0],), dtype="float32", seed=self.seed_generator)
            dropped = drawn < self.condition_dropout
            if self.num_classes is not None:
                condition = ops.where(dropped, self.num_classes, condition)
            else:
                condition = ops.where(dropped[:, None], 0.0, condition)
        return self.condition_layer(condition)

    def null_condition(self, condition: np.ndarray) -> np.ndarray:
        return np.zeros_like(condition) if self.num_classes is None else np.full_like(condition, self.num_classes)

    def check_batch(self, x: Any, y: Any) -> None:
        super().check_batch(x, None)
        is_integer = "int" in keras.backend.standardize_dtype(x.dtype)
        check(is_integer, "x", "be integers", f"dtype {x.dtype}")
        if not self.takes_condition:
            check(y is None, "y", "be None: the model takes no condition", "a value")
            return
        check(y is not None, "y", "be given: the model takes a condition", None)
        is_condition = same_shape(flat_labels(y).shape[1:], self._condition_shape())
        check(is_condition, "y", f"have shape {batch_of(self._condition_shape())}", f"shape {tuple(y.shape)}")

    def condition_inputs(self) -> list[Input]:
        if not self.takes_condition:
            return []
        dtype = "int32" if self.num_classes is not None else "float32"
        return [Input("condition", (None, *self._condition_shape()), dtype)]

    def _condition_shape(self) -> tuple[int, ...]:
        return () if self.condition_dim is None else (self.condition_dim,)

    def prepare_condition(self, condition: Any, n: int, name: str = "condition") -> np.ndarray | None:
        if not self.takes_condition:
            check(condition is None, name, "be None: the model takes no condition", "a value")
            return None
        check(condition is not None, name, "be given: the model takes a condition", None)
        if self.num_classes is not None:
            return as_labels(name, condition, n, self.num_classes)
        return condition_rows(name, condition, n, self._condition_shape(), "float32")

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_classes": self.num_classes,
            "condition_dim": self.condition_dim,
            "condition_dropout": self.condition_dropout,
        }
        return {**super().get_config(), **own}


def code_log_prob(logits: Any, codes: Any) -> Any:
    """Returns the log-probability of each code, float32, from logits with one more axis."""
    logits = ops.cast(logits, "float32")
    return at_index(logits, codes) - ops.logsumexp(logits, axis=-1)
