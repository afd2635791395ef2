import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gen.autoregressive.conditional_model import ConditionalModel, code_log_prob
from keras_gen.autoregressive.packing import segment_mask, segment_positions, unpack_sequences
from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.checks import as_numpy, check, check_choice, check_depth, check_integer
from keras_gen.core.replicas import whole_batch
from keras_gen.core.torch.trace import Trace, traceable
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.layouts import ATTENTION, MLP, SplitWeights
from keras_gen.networks.blocks.rotary import RotaryEmbedding
from keras_gen.networks.blocks.transformer_block import TransformerBlock


@keras_gen_export("keras_gen.models.CodeTransformer")
class CodeTransformer(SplitWeights, ConditionalModel):
    """Causal transformer over codes: sequences, or maps in row-major order, such as the codes of a `VQVAE`.

        p(x | condition) = prod_i softmax(network(start + condition, x_1 .. x_{i-1}))[x_i]

    Train with `fit(codes)`, or `fit(codes, condition)`; no `loss` is given to `compile`. The loss is the exact
    negative log-likelihood, in nats per sample. `sample` caches the keys and values of earlier codes, so that each code
    costs one forward pass of one token.

    Sequences of different lengths are packed in rows by `keras_gen.ops.pack_sequences`: `fit(packed)`,
    `log_prob(packed)`. Codes then attend only to their own sequence, positions restart at 0, the first code of each
    sequence is predicted from the start token, and padding is ignored. The loss of packed rows is in nats per code.
    `sample` draws sequences of `max_length` codes: reserve one code as an end token.

    Args:
        num_codes: int >= 2.
        max_length: int >= 1. Maximum length of a sequence; packed rows may be longer.
        dim: int >= 1. Number of channels of the network. Defaults to `128`.
        depth: int >= 1. Number of blocks. Defaults to `4`.
        num_heads: int >= 1. Must divide `dim`. Defaults to `4`.
        positions: `"learned"` or `"rotary"`. Defaults to `"learned"`.
        dropout: float in [0, 1). Defaults to `0.0`.
        num_classes: int >= 1 or `None`. If given, the condition is a label in 0 .. num_classes - 1. Defaults to `None`.
        condition_dim: int >= 1 or `None`. If given, the condition is a vector of this size. Defaults to `None`.
        condition_dropout: float in [0, 1). Fraction of conditions dropped in training, for `guidance`. Defaults to
            `0.0`.
        seed: int or `None`. Seeds all draws of the model. Defaults to `None`, a seed from Keras's global one.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: integers `(batch, ...)`.

    Returns:
        The data unchanged; use `fit`, `log_prob` and `sample`.

    Raises:
        ValueError: if an argument is outside its range, arrays of data are not such codes, or sequences are
            longer than `max_length`. Codes from a dataset are not checked.

    Example:

    >>> model = keras_gen.models.CodeTransformer(64, max_length=16, num_classes=10)
    >>> model.compile(keras.optimizers.Adam(1e-3))
    >>> model.fit(codes, labels, epochs=20)             # integers 0 .. 63, (n, 4, 4)
    >>> new = model.sample(16, condition=3, seed=0)     # int32 (16, 4, 4)
    >>> log_p = model.log_prob(new, condition=3)        # nats, (16,)

    Reference: Esser et al. 2020, arXiv:2012.09841; Vaswani et al. 2017, arXiv:1706.03762; rotary positions
    https://kexue.fm/archives/8265.
    """

    nested_data = (dict,)  # packed rows

    splits = (ATTENTION, MLP)

    def __init__(
        self,
        num_codes: int,
        max_length: int,
        dim: int = 128,
        depth: int = 4,
        num_heads: int = 4,
        positions: str = "learned",
        dropout: float = 0.0,
        num_classes: int | None = None,
        condition_dim: int | None = None,
        condition_dropout: float = 0.0,
        seed: int | None = None,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(num_codes, num_classes, condition_dim, condition_dropout, seed, **kwargs)
        self.max_length = check_integer("max_length", max_length)
        self.dim = check_integer("dim", dim)
        self.depth = check_depth("depth", depth)
        check_choice("positions", positions, ("learned", "rotary"))
        self.positions = positions
        options = {"dtype": self.dtype_policy}
        self.blocks = [
            TransformerBlock(
                num_heads,
                positions=RotaryEmbedding(**options) if positions == "rotary" else None,
                dropout=dropout,
                seed=None if self.seed is None else self.seed + i,
                remat=remat,
                name=f"block_{i}",
                **options,
            )
            for i in range(self.depth)
        ]
        check(self.dim % num_heads == 0, "num_heads", f"divide dim, {dim}", num_heads)
        is_even = positions == "learned" or self.dim // num_heads % 2 == 0
        check(is_even, "dim", "give heads of even size for rotary positions", f"{dim} in {num_heads} heads")
        self._trace = Trace(self, self._plain_logits)

    def build(self, input_shape: Any) -> None:
        super().build((None, self.max_length) if isinstance(input_shape, dict) else input_shape)
        rule = f"have at most max_length={self.max_length} codes"
        check(self.length <= self.max_length, "x", rule, f"{self.length}")
        options = {"dtype": self.dtype_policy}
        self.build_condition(self.dim)
        self.code_embedding = keras.layers.Embedding(self.num_codes, self.dim, name="codes", **options)
        self.start = keras.layers.Embedding(1, self.dim, name="start", **options)
        for layer in (self.code_embedding, self.start):
            layer.build((None, None))
        if self.positions == "learned":
            self.position_embedding = keras.layers.Embedding(self.max_length, self.dim, name="positions", **options)
            self.position_embedding.build((None, None))
        tokens = (None, None, self.dim)
        for block in self.blocks:
            block.build(tokens)
        self.norm = keras.layers.LayerNormalization(epsilon=1e-6, name="norm", **options)
        self.head = keras.layers.Dense(self.num_codes, name="head", **options)
        self.norm.build(tokens)
        self.head.build(tokens)

    def logits(self, x: Any, condition: Any = None, segments: Any = None, training: bool = False) -> Any:
        """Returns the logits `(rows, length, num_codes)` of all codes of tensors, each given the preceding ones.

        Args:
            x: int32 `(rows, length)`.
            condition: `(rows, ...)`, for a conditional model. Defaults to `None`.
            segments: int32 `(rows, length)`, the segment ids of packed rows. Defaults to `None`.
            training: bool. Defaults to `False`.
        """
        inputs = {"x": x, "condition": condition, "segments": segments}
        inputs = {name: value for name, value in inputs.items() if value is not None}
        # With `remat`, autograd calls the blocks again.
        if self.blocks[0].remat or not traceable(inputs):
            return self._plain_logits(inputs, training)
        return self._trace(inputs, training)

    def _plain_logits(self, inputs: dict[str, Any], training: bool) -> Any:
        x, condition, segments = inputs["x"], inputs.get("condition"), inputs.get("segments")
        h = self.code_embedding(x)
        h = ops.concatenate([self._start(ops.shape(x)[0], condition, training), h[:, :-1]], axis=1)
        mask = positions = None
        if segments is not None:
            first = segments[:, 1:] != segments[:, :-1]
            h = ops.concatenate([h[:, :1], ops.where(first[..., None], h[:, :1], h[:, 1:])], axis=1)
            mask, positions = segment_mask(segments), segment_positions(segments)
        if self.positions == "learned":
            h = h + self.position_embedding(
                ops.arange(ops.shape(x)[1], dtype="int32")[None] if positions is None else positions
            )
        for block in self.blocks:
            h = block(h, attention_mask=mask, token_positions=positions, training=training)
        return self.head(self.norm(h))

    def _start(self, rows: Any, condition: Any, training: bool = False) -> Any:
        """Returns the start token, from which the first code is predicted, `(rows, 1, dim)`."""
        start = self.start(ops.zeros((rows, 1), "int32"))
        return start if condition is None else start + self.embed(condition, training)[:, None]

    def log_density(self, x: Any, condition: Any = None, training: bool = False) -> Any:
        x = ops.reshape(x, (-1, self.length))
        return sum_per_sample(code_log_prob(self.logits(x, condition, training=training), x))

    def packed_log_density(self, x: dict[str, Any], training: bool = False) -> Any:
        """Returns the log-probability `(rows, length)` of each code of packed rows, 0 for padding."""
        log_prob = code_log_prob(self.logits(x["codes"], None, x["segments"], training), x["codes"])
        return ops.where(x["segments"] > 0, log_prob, 0.0)

    def empty_cache(self, batch: int, length: int) -> Any:
        return tuple(block.empty_cache(batch, length) for block in self.blocks)

    def next_logits(self, i: Any, codes: Any, cache: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        before = ops.take(codes, ops.maximum(i - 1, 0), axis=1)[:, None]
        start = self._start(ops.shape(codes)[0], inputs.get("condition"))
        h = ops.where(i == 0, start, self.code_embedding(before))
        if self.positions == "learned":
            h = h + self.position_embedding(ops.reshape(i, (1, 1)))
        caches = []
        for block, old in zip(self.blocks, cache, strict=True):
            h, new = block.extend(h, old, i)
            caches.append(new)
        return ops.cast(self.head(self.norm(h))[:, 0], "float32"), tuple(caches)

    def loss_per_sample(self, x: Any, y: Any, training: bool) -> Any:
        if not isinstance(x, dict):
            return super().loss_per_sample(x, y, training)
        check(self._sample_weight is None, "sample_weight", "be None for packed rows", "a value")
        count = ops.maximum(ops.sum(ops.cast(x["segments"] > 0, "float32")), 1.0)
        nll = -ops.sum(self.packed_log_density(x, training), axis=1)
        mean = ops.sum(nll) / count
        self.nll_tracker.update_state(mean, count)
        self.bits_tracker.update_state(mean / math.log(2), count)
        # The mean over the rows, those of all replicas, then equals the mean over all codes.
        return nll * (whole_batch.total(ops.cast(ops.shape(nll)[0], nll.dtype)) / whole_batch.total(count))

    def check_batch(self, x: Any, y: Any) -> None:
        if isinstance(x, dict):
            self.check_unconditional(y)
        else:
            super().check_batch(x, y)

    def check_data(self, x: Any, y: Any) -> None:
        if not isinstance(x, dict):
            super().check_data(x, y)
            return
        self.check_unconditional(y)
        self.prepare_packed(x)

    def check_unconditional(self, y: Any) -> None:
        """Raises `ValueError` for conditions, which packed rows do not support."""
        check(not self.takes_condition, "x", "not be packed rows for a model with a condition", "packed rows")
        check(y is None, "y", "be None for packed rows", "a value")

    def prepare_packed(self, x: dict[str, Any]) -> list[np.ndarray]:
        """Returns the arrays of packed rows, after checking them; builds the model if necessary."""
        rule = "hold 'codes' and 'segments', as returned by pack_sequences"
        check(set(x) == {"codes", "segments"}, "x", rule, set(x))
        codes, segments = (as_numpy(name, x[name]) for name in ("codes", "segments"))
        is_integers = codes.dtype.kind in "iu" and segments.dtype.kind in "iu"
        check(is_integers and codes.ndim == 2, "x", "hold integers (rows, length)", f"{codes.dtype}, {codes.shape}")
        check(codes.shape == segments.shape, "segments", f"have the codes' shape, {codes.shape}", segments.shape)
        check(bool((segments > 0).any()), "segments", "hold at least one sequence", f"shape {segments.shape}")
        self.check_values("codes", codes)
        sequences = unpack_sequences(codes, segments)
        # After an interruption, positions would restart at 0, but attention would include the earlier part.
        starts = (segments > 0) & (np.diff(segments, axis=1, prepend=0) != 0)
        is_contiguous = starts.sum() == len(sequences)
        check(is_contiguous, "segments", "be contiguous", f"{starts.sum()} pieces of {len(sequences)} sequences")
        longest = max(map(len, sequences))
        check(longest <= self.max_length, "x", f"have sequences of at most max_length={self.max_length} codes", longest)
        if not self.built:
            self.build((None, self.max_length))
        return [codes.astype("int32"), segments.astype("int32")]

    def log_prob(self, x: Any, condition: Any = None, batch_size: int = 256, verbose: str | int = "auto") -> np.ndarray:
        """Computes the exact log-probability of codes, or of each sequence in packed rows.

        Args:
            x: codes `(n, *data_shape)`, or the output of `pack_sequences`.
            condition: for a conditional model, one for each sample or one for all. Defaults to `None`.
            batch_size: int >= 1. Defaults to `256`.
            verbose: `"auto"` (a bar in a terminal), 0 (silent), 1 (a bar) or 2 (a line). Defaults to `"auto"`.

        Returns:
            float32 array `(n,)`, in nats; for packed rows n is the number of sequences, in their order.

        Raises:
            ValueError: if an argument does not fit the model.
        """
        if not isinstance(x, dict):
            return super().log_prob(x, condition, batch_size, verbose)
        self.check_unconditional(condition)
        arrays = self.prepare_packed(x)

        def log_prob(codes: Any, segments: Any) -> Any:
            return self.packed_log_density({"codes": codes, "segments": segments})

        values = self.in_batches("packed", log_prob, *arrays, batch_size=batch_size, verbose=verbose)
        return np.array([part.sum() for part in unpack_sequences(values, arrays[1])], "float32")

    def lengths(self, x: Any) -> np.ndarray:
        if not isinstance(x, dict):
            return super().lengths(x)
        return np.array([len(part) for part in unpack_sequences(x["codes"], x["segments"])])

    def get_config(self) -> dict[str, Any]:
        own = {
            "max_length": self.max_length,
            "dim": self.dim,
            "depth": self.depth,
            "num_heads": self.blocks[0].num_heads,
            "positions": self.positions,
            "dropout": self.blocks[0].dropout,
            "remat": self.blocks[0].remat,
        }
        return {**super().get_config(), **own}
