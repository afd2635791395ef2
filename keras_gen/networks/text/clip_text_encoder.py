from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import (
    check,
    check_choice,
    check_depth,
    check_flag,
    check_integer,
    check_integer_or_none,
    check_positive,
)
from keras_gen.core.foreign.weights import Entry, ForeignWeights
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.transformer_block import ACTIVATIONS, TransformerBlock
from keras_gen.networks.text.clip_text_encoder_weights import (
    CLASSES,
    LAYERS,
    PREFIX,
    SIZES,
    clip_arguments,
    clip_config,
    clip_table,
)
from keras_gen.networks.text.text_network import TextNetwork


@keras_gen_export("keras_gen.models.CLIPTextEncoder")
class CLIPTextEncoder(ForeignWeights, TextNetwork):
    """Text encoder of CLIP: a causal transformer over token ids, with learned positions.

        h_0 = E[ids] + P,   h_i = block_i(h_i-1),   tokens = LayerNorm(h_depth)

    Padding is not masked: as each token attends to those before it, no padding reaches the text, but it is part of
    `tokens`. The pooled vector is `tokens` at the end of the text, multiplied by a matrix where there is a
    `projection_dim`. Stable Diffusion 1 and 2 take `tokens`; SDXL and SD3 `penultimate`, and `pooled`.

    The defaults are those of CLIP ViT-L/14, without its projection. OpenCLIP's ViT-bigG/14 has `dim=1280`, `depth=32`,
    `num_heads=20`, `hidden_dim=5120`, `projection_dim=1280` and `activation="gelu"`.

    Args:
        vocabulary_size: int >= 1. Ids are 0 .. vocabulary_size - 1. Defaults to `49408`.
        max_length: int >= 1. Number of positions. Shorter texts are encoded as well. Defaults to `77`.
        dim: int >= 1. Number of channels. Defaults to `768`.
        depth: int >= 1. Number of blocks. Defaults to `12`.
        num_heads: int >= 1. Must divide `dim`. Defaults to `12`.
        hidden_dim: int >= 1. Hidden width of the feed-forward layers. Defaults to `3072`.
        projection_dim: int >= 1 or `None`. Size of the pooled vector. Defaults to `None`, no projection.
        activation: `"quick_gelu"`, `"gelu"` (exact) or `"gelu_tanh"`. Defaults to `"quick_gelu"`.
        end_id: int >= 0 or `None`. The vector is pooled at the first token of this id, and with `None` at the first
            token of the largest id, the rule of older files. Defaults to `49407`.
        epsilon: float > 0. Epsilon of the normalizations. Defaults to `1e-5`.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        ids: int `(batch, tokens)`, such as from `keras_gen.tokenizers.CLIPTokenizer`.

    Returns:
        dict of `"tokens"` `(batch, tokens, dim)`; `"penultimate"` `(batch, tokens, dim)`, the state before the last
        block, without normalization; and `"pooled"` `(batch, projection_dim)`, or `(batch, dim)`.

    Raises:
        ValueError: if an argument is outside its range or of the wrong type, `num_heads` does not divide `dim`, there
            are more tokens than positions, or a NumPy array holds ids outside of the vocabulary.

    Example:

    >>> tokenizer = keras_gen.tokenizers.CLIPTokenizer.from_folder("stable-diffusion/tokenizer")
    >>> encoder = keras_gen.models.CLIPTextEncoder(end_id=tokenizer.end_id)
    >>> tokens = encoder(tokenizer(["a photo of a cat"]))["tokens"]     # (1, 77, 768)

    Reference: Radford et al. 2021, arXiv:2103.00020.
    """

    foreign_classes = CLASSES
    foreign_file = "model"
    foreign_prefixes = (PREFIX,)
    foreign_ignored = ("embeddings.position_ids",)
    foreign_sizes, foreign_layers = SIZES, LAYERS

    def __init__(
        self,
        vocabulary_size: int = 49408,
        max_length: int = 77,
        dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        hidden_dim: int = 3072,
        projection_dim: int | None = None,
        activation: str = "quick_gelu",
        end_id: int | None = 49407,
        epsilon: float = 1e-5,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(vocabulary_size, check_integer("max_length", max_length), **kwargs)
        self.dim = check_integer("dim", dim)
        self.depth = check_depth("depth", depth)
        self.num_heads = check_integer("num_heads", num_heads)
        check(self.dim % self.num_heads == 0, "num_heads", f"divide dim, {dim}", num_heads)
        self.hidden_dim = check_integer("hidden_dim", hidden_dim)
        self.projection_dim = check_integer_or_none("projection_dim", projection_dim)
        check_choice("activation", activation, ACTIVATIONS)
        self.activation = activation
        self.end_id = check_integer_or_none("end_id", end_id, at_least=0)
        is_known = self.end_id is None or self.end_id < self.vocabulary_size
        check(is_known, "end_id", f"be in 0 .. {self.vocabulary_size - 1}", end_id)
        self.epsilon = check_positive("epsilon", epsilon)
        self.remat = check_flag("remat", remat)

        options = {"dtype": self.dtype_policy}
        self.token_embedding = keras.layers.Embedding(self.vocabulary_size, self.dim, name="tokens", **options)
        self.position_embedding = keras.layers.Embedding(self.max_length, self.dim, name="positions", **options)
        self.blocks = [
            TransformerBlock(
                self.num_heads,
                hidden_dim=self.hidden_dim,
                activation=self.activation,
                epsilon=self.epsilon,
                remat=self.remat,
                name=f"block_{i}",
                **options,
            )
            for i in range(self.depth)
        ]
        self.last_norm = keras.layers.LayerNormalization(epsilon=self.epsilon, name="last_norm", **options)
        self.projection = None
        if self.projection_dim is not None:
            self.projection = keras.layers.Dense(self.projection_dim, use_bias=False, name="projection", **options)
        self.finish()

    def build(self, ids_shape: Any) -> None:
        for layer in (self.token_embedding, self.position_embedding):
            layer.build(ids_shape)
        tokens_shape = (*ids_shape, self.dim)
        for layer in (*self.blocks, self.last_norm):
            layer.build(tokens_shape)
        if self.projection is not None:
            self.projection.build((None, self.dim))

    def call(self, ids: Any) -> dict[str, Any]:
        positions = ops.arange(ops.shape(ids)[1], dtype="int32")
        h = self.token_embedding(ids) + self.position_embedding(positions)
        for block in self.blocks[:-1]:
            h = block(h)
        tokens = self.last_norm(self.blocks[-1](h))
        pooled = ops.take_along_axis(tokens, self._end_of_text(ids)[:, None, None], axis=1)[:, 0]
        if self.projection is not None:
            pooled = self.projection(pooled)
        return {"tokens": tokens, "penultimate": h, "pooled": pooled}

    def _end_of_text(self, ids: Any) -> Any:
        """Returns the position of the end of each text, `(batch,)`. Of equal values, `argmax` takes the first."""
        return ops.argmax(ids if self.end_id is None else ops.cast(ids == self.end_id, "int32"), axis=-1)

    def compute_output_shape(self, ids_shape: Any) -> dict[str, tuple[int | None, ...]]:
        tokens = (*ids_shape, self.dim)
        return {"tokens": tokens, "penultimate": tokens, "pooled": (ids_shape[0], self.projection_dim or self.dim)}

    def get_config(self) -> dict[str, Any]:
        own = {
            "vocabulary_size": self.vocabulary_size,
            "max_length": self.max_length,
            "dim": self.dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "projection_dim": self.projection_dim,
            "activation": self.activation,
            "end_id": self.end_id,
            "epsilon": self.epsilon,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}

    @classmethod
    def foreign_arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        return clip_arguments(config)

    def foreign_config(self) -> dict[str, Any]:
        return clip_config(self)

    def foreign_table(self) -> list[Entry]:
        return clip_table(self)
