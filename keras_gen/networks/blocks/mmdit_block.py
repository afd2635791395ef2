"""Block of a diffusion transformer with two sequences, the tokens of an image and those of a condition."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_divides, check_flag, check_integer, known_size
from keras_gen.core.frozen import StaysFrozen
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.dit_block import plain_layer_norm
from keras_gen.networks.blocks.recomputing import recomputed


@keras_gen_export("keras_gen.layers.MMDiTBlock")
class MMDiTBlock(StaysFrozen, keras.layers.Layer):
    """Block of a multimodal diffusion transformer (MM-DiT): image and text attend jointly, with weights of their own.

        a_1, b_1, g_1, a_2, b_2, g_2 = embedding W
        h = x + g_1 attention((1 + a_1) LayerNorm(x) + b_1)
        output = h + g_2 mlp((1 + a_2) LayerNorm(h) + b_2)

    Both sequences are computed like this, each with its own weights, but both attend to the keys and values of both, as
    to one sequence. With dual attention, the image, modulated by a third triple of vectors, also attends to itself
    alone: its h has a third term, `g_3 attention((1 + a_3) LayerNorm(x) + b_3)`. Both `W` are initialized to zero, so
    that the block starts as the identity.

    Args:
        num_heads: int >= 1. Must divide the number of channels. Defaults to `4`.
        expansion: int >= 1. Hidden width of the feed-forward layers, in multiples of the channels. Defaults to `4`.
        qk_norm: bool. Whether queries and keys are RMS-normalized in each head, with learned scales. Defaults to
            `True`.
        dual_attention: bool. Whether the image, modulated a third time, also attends to itself alone. Defaults to
            `False`.
        last: bool. Whether the text ends here: it is attended to but has no output. The weights of its queries, which
            files of Stable Diffusion 3 contain, are then neither used nor trained. Defaults to `False`.
        remat: bool. Whether to recompute the block in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of the image's tokens `(batch, ..., channels)`, a sequence or a grid, the text's tokens
            `(batch, tokens, channels)` and the embedding `(batch, dim)`.

    Returns:
        Two tensors like the tokens of image and text; the former alone if `last`.

    Raises:
        ValueError: if an argument is outside its range or of the wrong type, `num_heads` does not divide the number of
            channels, or the two sequences have different numbers of channels.

    Example:

    >>> image, text = keras_gen.layers.MMDiTBlock(8)([image, text, embedding])

    Reference: Esser et al. 2024, arXiv:2403.03206, figure 2.
    """

    def __init__(
        self,
        num_heads: int = 4,
        expansion: int = 4,
        qk_norm: bool = True,
        dual_attention: bool = False,
        last: bool = False,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_integer("num_heads", num_heads)
        self.expansion = check_integer("expansion", expansion)
        self.qk_norm = check_flag("qk_norm", qk_norm)
        self.dual_attention = check_flag("dual_attention", dual_attention)
        self.last = check_flag("last", last)
        self.remat = check_flag("remat", remat)
        options = {"dtype": self.dtype_policy}
        heads = self.num_heads, self.qk_norm
        text = LastHeads if self.last else Heads
        self.norm = plain_layer_norm(name="norm", **options)
        self.image = Heads(*heads, name="image", **options)
        self.text = text(*heads, name="text", **options)
        self.image_alone = Heads(*heads, name="image_alone", **options) if self.dual_attention else None
        self.image_mlp = FeedForward(self.expansion, name="image_mlp", **options)
        self.text_mlp = None if self.last else FeedForward(self.expansion, name="text_mlp", **options)

    def build(self, inputs_shape: Any) -> None:
        x_shape, y_shape, embedding_shape = inputs_shape
        channels = known_size("image", x_shape)
        check(len(x_shape) > 2, "image", "have shape (batch, ..., channels)", f"shape {tuple(x_shape)}")
        check_divides("num_heads", self.num_heads, channels)
        is_text = len(y_shape) == 3 and y_shape[-1] == channels
        check(is_text, "text", f"have shape (batch, tokens, {channels})", f"shape {tuple(y_shape)}")
        vectors = {"image_modulation": 9 if self.dual_attention else 6, "text_modulation": 2 if self.last else 6}
        self.image_modulation, self.text_modulation = (
            keras.layers.Dense(n * channels, kernel_initializer="zeros", name=name, dtype=self.dtype_policy)
            for name, n in vectors.items()
        )
        for layer in (self.image_modulation, self.text_modulation):
            layer.build(embedding_shape)
        for layer in (self.norm, self.image, self.text, self.image_alone, self.image_mlp, self.text_mlp):
            if layer is not None:
                layer.build(y_shape)

    def call(self, inputs: Any) -> Any:
        x, y, embedding = inputs
        tokens = ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))
        tokens, *text = recomputed(self._block, self.remat)(tokens, y, embedding)
        image = ops.reshape(tokens, ops.shape(x))
        return image if self.last else [image, *text]

    def _block(self, x: Any, y: Any, embedding: Any) -> tuple[Any, ...]:
        a_1, b_1, g_1, a_2, b_2, g_2, *of_image_alone = _vectors(self.image_modulation(embedding), x)
        c_1, d_1, *of_text_output = _vectors(self.text_modulation(embedding), x)

        n, h = ops.shape(x)[1], self.norm(x)
        q, k, v = self.image((1 + a_1) * h + b_1)
        *text_q, text_k, text_v = self.text((1 + c_1) * self.norm(y) + d_1)
        q, k, v = (ops.concatenate(both, axis=1) for both in ([q, *text_q], [k, text_k], [v, text_v]))
        attended = ops.dot_product_attention(q, k, v)
        x = x + g_1 * self.image.join(attended[:, :n])
        if self.image_alone is not None:
            a_3, b_3, g_3 = of_image_alone
            attended_alone = ops.dot_product_attention(*self.image_alone((1 + a_3) * h + b_3))
            x = x + g_3 * self.image_alone.join(attended_alone)
        x = x + g_2 * self.image_mlp((1 + a_2) * self.norm(x) + b_2)
        if self.text_mlp is None:
            return (x,)

        g_1, c_2, d_2, g_2 = of_text_output
        y = y + g_1 * self.text.join(attended[:, n:])
        return x, y + g_2 * self.text_mlp((1 + c_2) * self.norm(y) + d_2)

    def compute_output_shape(self, inputs_shape: Any) -> Any:
        x_shape, y_shape, _ = inputs_shape
        return tuple(x_shape) if self.last else [tuple(x_shape), tuple(y_shape)]

    def get_config(self) -> dict[str, Any]:
        own = {
            "num_heads": self.num_heads,
            "expansion": self.expansion,
            "qk_norm": self.qk_norm,
            "dual_attention": self.dual_attention,
            "last": self.last,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}


def _vectors(modulation: Any, x: Any) -> list[Any]:
    """Returns the vectors `(batch, 1, channels)` of which a modulation consists."""
    return ops.split(ops.expand_dims(modulation, 1), modulation.shape[-1] // x.shape[-1], axis=-1)


class KeysAndValues(StaysFrozen, keras.layers.Layer):
    """Keys and values of tokens `(batch, tokens, channels)`, in heads: `(batch, tokens, num_heads, dim)` each."""

    def __init__(self, num_heads: int, qk_norm: bool, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.k_norm = self._norm("k_norm") if qk_norm else None

    def build(self, x_shape: Any) -> None:
        self.key, self.value = (self._dense(name, x_shape) for name in ("key", "value"))
        if self.k_norm is not None:
            self.k_norm.build(self._heads_shape(x_shape))

    def call(self, h: Any) -> list[Any]:
        return [self._heads(h, self.key, self.k_norm), self._heads(h, self.value)]

    def _norm(self, name: str) -> keras.Layer:
        return keras.layers.RMSNormalization(epsilon=1e-6, name=name, dtype=self.dtype_policy)

    def _dense(self, name: str, x_shape: Any) -> keras.Layer:
        layer = keras.layers.Dense(x_shape[-1], name=name, dtype=self.dtype_policy)
        layer.build(x_shape)
        return layer

    def _heads_shape(self, x_shape: Any) -> tuple[int | None, ...]:
        return (*x_shape[:-1], self.num_heads, x_shape[-1] // self.num_heads)

    def _heads(self, h: Any, layer: keras.Layer, norm: keras.Layer | None = None) -> Any:
        heads = ops.reshape(layer(h), self._heads_shape(ops.shape(h)))
        return heads if norm is None else norm(heads)


class Heads(KeysAndValues):
    """Queries, keys and values of tokens, in heads, and the layer that joins the results of attention to tokens."""

    def __init__(self, num_heads: int, qk_norm: bool, **kwargs: Any):
        super().__init__(num_heads, qk_norm, **kwargs)
        self.q_norm = self._norm("q_norm") if qk_norm else None

    def build(self, x_shape: Any) -> None:
        super().build(x_shape)
        self.query, self.output_dense = (self._dense(name, x_shape) for name in ("query", "output"))
        if self.q_norm is not None:
            self.q_norm.build(self._heads_shape(x_shape))

    def call(self, h: Any) -> list[Any]:
        return [self._heads(h, self.query, self.q_norm), *super().call(h)]

    def join(self, attended: Any) -> Any:
        """Returns tokens `(batch, tokens, channels)` of heads."""
        batch, tokens, heads, dim = ops.shape(attended)
        return self.output_dense(ops.reshape(attended, (batch, tokens, heads * dim)))


class LastHeads(KeysAndValues):
    """Keys and values alone. The weights of queries are kept for files but not trained, as they are not used."""

    def build(self, x_shape: Any) -> None:
        super().build(x_shape)
        channels = x_shape[-1]
        self.query_kernel = self.add_weight(name="query_kernel", shape=(channels, channels), trainable=False)
        self.query_bias = self.add_weight(name="query_bias", shape=(channels,), initializer="zeros", trainable=False)
        if self.k_norm is not None:
            dim = channels // self.num_heads
            self.query_scale = self.add_weight(name="query_scale", shape=(dim,), initializer="ones", trainable=False)


class FeedForward(StaysFrozen, keras.layers.Layer):
    """Two dense layers with a GELU (tanh) in between."""

    def __init__(self, expansion: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.expansion = expansion

    def build(self, x_shape: Any) -> None:
        channels, options = x_shape[-1], {"dtype": self.dtype_policy}
        self.mlp_1 = keras.layers.Dense(self.expansion * channels, name="mlp_1", **options)
        self.mlp_2 = keras.layers.Dense(channels, name="mlp_2", **options)
        self.mlp_1.build(x_shape)
        self.mlp_2.build((*x_shape[:-1], self.expansion * channels))

    def call(self, h: Any) -> Any:
        return self.mlp_2(ops.gelu(self.mlp_1(h), approximate=True))
