"""Codebook of a vector quantizer: the codes, their initialization and their updates."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.arrays import unit_vectors
from keras_gen.core.random import check_seed, keras_seed, seed_generator
from keras_gen.core.replicas import whole_batch
from keras_gen.quantization.kmeans import cluster_sums, kmeans, kmeans_plus_plus, stratified_rows

EPSILON = 1e-5  # Laplace smoothing of the counts
FIRST_BATCH_ITERATIONS = 10


class Codebook(keras.layers.Layer):
    """Codebook of `num_codes` vectors, updated by exponential moving averages ("ema") or the optimizer ("loss").

        N_k <- d N_k + (1 - d) n_k,   m_k <- d m_k + (1 - d) sum of the x nearest to k,   e_k = m_k / smoothed N_k

    N starts at 1 and m at e: with counts starting at 0, a code without vectors in the first batch would move far away.
    Raw counts are stored; only the division uses the smoothed counts, `(N + eps) / (sum N + K eps) sum N`.

    The codes are `base + shift`. The optimizer trains `shift`, which exists for "loss" only; k-means and restarts
    change `base`, which is not trainable: on JAX, assignments to a trainable weight during `fit` are lost.

    Args: see `VectorQuantizer`, which validates them.
    """

    def __init__(
        self,
        num_codes: int,
        update: str,
        decay: float,
        distance: str,
        initializer: Any,
        restart_below: float,
        seed: int | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_codes = num_codes
        self.update = update
        self.decay = decay
        self.distance = distance
        self.initializer = initializer
        self.restart_below = restart_below
        self.seed = check_seed(seed)
        self.seed_generator = seed_generator(self.seed)

    def build(self, dim: int) -> None:
        state = {"trainable": False, "dtype": "float32", "autocast": False}
        shape = (self.num_codes, dim)
        by_data = self.initializer == "kmeans"
        small = keras.initializers.RandomUniform(-1 / self.num_codes, 1 / self.num_codes, seed=keras_seed(self.seed))
        first = small if by_data else self.initializer
        self.base = self.add_weight(name="base", shape=shape, initializer=first, **state)
        self.counts = self.add_weight(name="counts", shape=(self.num_codes,), initializer="ones", **state)
        started = "zeros" if by_data else "ones"
        self.initialized = self.add_weight(name="initialized", shape=(), initializer=started, **state)
        if self.update == "ema":
            self.sums = self.add_weight(name="sums", shape=shape, initializer="zeros", **state)
            self.sums.assign(ops.copy(self.base))  # a copy: JAX donates buffers, so variables must not share one
        else:
            self.shift = self.add_weight(
                name="shift", initializer="zeros", **{**state, "shape": shape, "trainable": True}
            )
        self.built = True

    def vectors(self) -> Any:
        """Returns the codes, float32 `(num_codes, dim)`; of unit length if the distance is cosine."""
        codes = ops.convert_to_tensor(self.base)
        if self.update == "loss":
            codes = codes + ops.convert_to_tensor(self.shift)
        return self.normalized(codes)

    def normalized(self, vectors: Any) -> Any:
        """Scales vectors to unit length if the distance is cosine."""
        return unit_vectors(vectors) if self.distance == "cosine" else vectors

    def set_codes(self, codes: Any, where: Any = True) -> None:
        """Replaces the codes where `where` (bool, `(num_codes, 1)` or scalar) is true, and resets their averages."""
        count = max(self.restart_below, 1.0)
        self._assign(self.counts, count, ops.reshape(where, (-1,)))
        if self.update == "ema":
            self._assign(self.base, codes, where)
            self._assign(self.sums, count * codes, where)
        else:
            self._assign(self.base, codes - ops.stop_gradient(ops.convert_to_tensor(self.shift)), where)

    def start(self, x: Any, weights: Any) -> None:
        """Initializes the codes by k-means on the first batch, once."""
        if self.initializer != "kmeans":
            return
        x, weights = whole_batch.all_rows(x), whole_batch.all_rows(weights)
        total = ops.sum(weights)
        due = ops.logical_and(ops.convert_to_tensor(self.initialized) < 0.5, total > 0)
        draws = keras.random.uniform((self.num_codes,), dtype="float32", seed=self.seed_generator)
        centers = ops.cond(
            due,
            lambda: kmeans(x, weights, kmeans_plus_plus(x, weights, draws), FIRST_BATCH_ITERATIONS),
            lambda: ops.convert_to_tensor(self.base),
        )
        self.set_codes(centers, due)
        self._assign(self.initialized, 1.0, due)

    @property
    def shared_generators(self) -> list[keras.random.SeedGenerator]:
        """The generator whose draws are the same in all replicas: it chooses among the rows of all of them."""
        return [self.seed_generator]

    def learn(self, x: Any, weights: Any, indices: Any, reduce: Callable[[Any], Any]) -> None:
        """Updates averages and codes from one batch, and resets dead codes to random rows of the batch."""
        n, sums = (reduce(statistic) for statistic in cluster_sums(x, weights, indices, self.num_codes))
        # A batch without a valid row must not decay the averages.
        decay = ops.cast(ops.where(ops.sum(n) > 0, self.decay, 1.0), "float32")
        counts = decay * ops.convert_to_tensor(self.counts) + (1 - decay) * n
        self.counts.assign(counts)
        if self.update == "ema":
            self.sums.assign(decay * ops.convert_to_tensor(self.sums) + (1 - decay) * sums)
            total = ops.sum(counts)
            smoothed = (counts + EPSILON) / (total + self.num_codes * EPSILON) * total
            self.base.assign(ops.convert_to_tensor(self.sums) / ops.expand_dims(smoothed, -1))
        if self.restart_below > 0:
            x, weights = whole_batch.all_rows(x), whole_batch.all_rows(weights)
            rows = stratified_rows(x, weights, self.num_codes, self.seed_generator)
            dead = ops.logical_and(counts < self.restart_below, ops.sum(weights) > 0)
            self.set_codes(rows, ops.expand_dims(dead, -1))

    @staticmethod
    def _assign(weight: keras.Variable, value: Any, where: Any) -> None:
        weight.assign(ops.where(where, value, ops.convert_to_tensor(weight)))
