from typing import Any

import keras
from keras import ops

from keras_gen.autoregressive.conditional_model import ConditionalModel, code_log_prob
from keras_gen.core.arrays import sum_per_sample
from keras_gen.core.checks import check, check_depth, check_flag, check_integer
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.gated_pixel_block import GatedPixelBlock
from keras_gen.networks.blocks.masked import MaskedConv2D


@keras_gen_export("keras_gen.models.PixelCNN")
class PixelCNN(ConditionalModel):
    """Gated PixelCNN: masked convolutions predict each pixel, or code of a map, from the preceding ones, row by row.

        p(x | condition) = prod_i softmax(network(x_1 .. x_{i-1}, condition))[x_i]

    Pixels are codes 0 .. num_codes - 1, each with an embedding; no order of the codes is assumed. The channels of a
    pixel are predicted one after the other. Train with `fit(codes)`, or `fit(codes, condition)`; no `loss` is given to
    `compile`. The loss is the exact negative log-likelihood, in nats per sample. Sampling takes one forward pass for
    each code.

    Args:
        num_codes: int >= 2.
        filters: int >= 1. Number of features for each channel of a pixel. Defaults to `64`.
        blocks: int >= 2. Number of gated blocks. Defaults to `5`.
        kernel_size: odd int >= 3. Kernel size of all convolutions. Defaults to `3`.
        num_classes: int >= 1 or `None`. If given, the condition is a label in 0 .. num_classes - 1. Defaults to `None`.
        condition_dim: int >= 1 or `None`. If given, the condition is a vector of this size. Defaults to `None`.
        condition_dropout: float in [0, 1). Fraction of conditions dropped in training, for `guidance`. Defaults to
            `0.0`.
        seed: int or `None`. Seeds all draws of the model. Defaults to `None`, a seed from Keras's global one.
        remat: bool. Whether to recompute blocks in the backward pass to save memory (gradient checkpointing). Defaults
            to `False`.
        **kwargs: `name`, `dtype`, `trainable`, as for any Keras model.

    Call arguments:
        x: integers `(batch, height, width)` or `(batch, height, width, channels)`.

    Returns:
        The data unchanged; use `fit`, `log_prob` and `sample`.

    Raises:
        ValueError: if an argument is outside its range, or arrays of data are not such codes. Codes from a dataset are
            not checked.

    Example:

    >>> model = keras_gen.models.PixelCNN(17, num_classes=10)
    >>> model.compile(keras.optimizers.Adam(1e-3))
    >>> model.fit(x, labels, epochs=20)                 # integers 0 .. 16, (n, 8, 8, 1)
    >>> new = model.sample(16, condition=3, seed=0)     # int32 (16, 8, 8, 1)
    >>> log_p = model.log_prob(new, condition=3)        # nats, (16,)

    Reference: van den Oord et al. 2016, arXiv:1606.05328; as the prior of a VQ-VAE https://kexue.fm/archives/6760.
    """

    def __init__(
        self,
        num_codes: int,
        filters: int = 64,
        blocks: int = 5,
        kernel_size: int = 3,
        num_classes: int | None = None,
        condition_dim: int | None = None,
        condition_dropout: float = 0.0,
        seed: int | None = None,
        remat: bool = False,
        **kwargs: Any,
    ):
        super().__init__(num_codes, num_classes, condition_dim, condition_dropout, seed, **kwargs)
        self.filters = check_integer("filters", filters)
        self.blocks = check_depth("blocks", blocks, at_least=2)
        self.kernel_size = check_integer("kernel_size", kernel_size, at_least=3)
        check(self.kernel_size % 2 == 1, "kernel_size", "be odd", kernel_size)
        self.remat = check_flag("remat", remat)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        rank = len(self.data_shape)
        check(rank in (2, 3), "x", "have shape (n, height, width) or (n, height, width, channels)", self.data_shape)
        self.channels = self.data_shape[2] if rank == 3 else 1
        width = self.filters * self.channels
        options = {"dtype": self.dtype_policy}
        self.build_condition(width)
        self.code_embedding = keras.layers.Embedding(self.num_codes, self.filters, name="codes", **options)
        self.code_embedding.build((None,))
        map_shape = (None, *self.data_shape[:2], width)
        embedding_shape = [(None, width)] if self.takes_condition else []
        self.stack = []
        for i in range(self.blocks):
            name = f"block_{i}"
            block = GatedPixelBlock(
                width, self.kernel_size, i == 0, self.channels, remat=self.remat, name=name, **options
            )
            block.build([map_shape, map_shape, *embedding_shape])
            self.stack.append(block)
        self.head = []
        for name, size in (("head_1", width), ("head_2", self.channels * self.num_codes)):
            self.head.append(MaskedConv2D(size, 1, groups=self.channels, name=name, **options))
            self.head[-1].build(map_shape)

    def features(self, x: Any, condition: Any = None, training: bool = False) -> Any:
        """Returns the features `(batch, height, width, any)` from which the logits of all pixels are computed."""
        x = self.code_embedding(ops.reshape(ops.cast(x, "int32"), (-1, *self.data_shape[:2], self.channels)))
        vertical = horizontal = ops.reshape(x, (*ops.shape(x)[:3], self.channels * self.filters))
        embedding = [self.embed(condition, training)] if self.takes_condition else []
        for block in self.stack:
            vertical, horizontal = block([vertical, horizontal, *embedding], training=training)
        return horizontal

    def logits_of(self, features: Any) -> Any:
        """Returns the logits `(batch, height, width, channels, num_codes)` of features, for any height and width."""
        for layer in self.head:
            features = layer(ops.relu(features))
        return ops.reshape(features, (*ops.shape(features)[:3], self.channels, self.num_codes))

    def log_density(self, x: Any, condition: Any = None, training: bool = False) -> Any:
        logits = self.logits_of(self.features(x, condition, training))
        codes = ops.reshape(x, (-1, *self.data_shape[:2], self.channels))
        return sum_per_sample(code_log_prob(logits, codes))

    def next_logits(self, i: Any, codes: Any, cache: Any, inputs: dict[str, Any]) -> tuple[Any, Any]:
        features = self.features(codes, inputs.get("condition"))
        pixels = ops.reshape(features, (-1, self.length // self.channels, 1, 1, features.shape[-1]))
        logits = self.logits_of(ops.take(pixels, i // self.channels, axis=1))
        return ops.cast(ops.take(logits[:, 0, 0], i % self.channels, axis=1), "float32"), cache

    def get_config(self) -> dict[str, Any]:
        own = {
            "filters": self.filters,
            "blocks": self.blocks,
            "kernel_size": self.kernel_size,
            "remat": self.remat,
        }
        return {**super().get_config(), **own}
