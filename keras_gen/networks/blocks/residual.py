"""Residual blocks of the U-Nets: two convolutions, with the time embedding in between, if there is one."""

from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import check, check_flag, check_integer, check_rate
from keras_gen.core.frozen import StaysFrozen
from keras_gen.core.random import check_seed, seed_generator
from keras_gen.core.torch.kernels import Conv2D
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.norms import GroupNorm, groups_for
from keras_gen.networks.blocks.recomputing import recomputed


@keras_gen_export("keras_gen.layers.ResidualBlock")
class ResidualBlock(StaysFrozen, keras.layers.Layer):
    """Residual block of a diffusion U-Net: two normalized convolutions with the time embedding in between.

        h = conv(silu(norm(x))) + dense(embedding)
        y = shortcut(x) + conv(dropout(silu(norm(h))))

    With `scale_shift`, `a, b = dense(embedding)` act after the second normalization: `(1 + a) norm(conv(...)) + b`.
    Without an embedding, as in autoencoders, there is no `dense`.

    The second convolution is initialized to zero, so that the block starts as its shortcut: the identity, or a 1x1
    convolution if the number of channels changes.

    Args:
        width: int >= 1. Number of output channels.
        groups: int >= 1. Groups of the normalizations. Must divide `width` and the input's channels. Defaults to `8`.
        dropout: float in [0, 1). Defaults to `0.0`.
        remat: bool. Whether to recompute the block in the backward pass instead of storing its activations (gradient
            checkpointing): less memory, a third more time. Defaults to `False`.
        seed: int or `None`. Seeds the dropout. Defaults to `None`.
        epsilon: float > 0. Epsilon of the normalizations. Defaults to `1e-5`.
        scale_shift: bool. Whether the embedding scales and shifts the output of `norm_2`. Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of the image `(batch, height, width, channels)` and the embedding `(batch, dim)`, or the image
            alone.
        training: bool. Whether to apply dropout.

    Returns:
        `(batch, height, width, self.width)`.

    Raises:
        ValueError: if an argument is outside its range, `groups` does not divide a number of channels, or there is no
            embedding for `scale_shift`.

    Reference: Ho et al. 2020, arXiv:2006.11239, appendix B; Dhariwal and Nichol 2021, arXiv:2105.05233, for
    `scale_shift`.
    """

    def __init__(
        self,
        width: int,
        groups: int = 8,
        dropout: float = 0.0,
        remat: bool = False,
        seed: int | None = None,
        epsilon: float = 1e-5,
        scale_shift: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.width = check_integer("width", width)
        self.groups = groups
        self.dropout = check_rate("dropout", dropout)
        self.remat = check_flag("remat", remat)
        self.seed = check_seed(seed)
        self.scale_shift = check_flag("scale_shift", scale_shift)
        self.seed_generator = seed_generator(self.seed)
        options = {"dtype": self.dtype_policy}
        self.norm_1 = GroupNorm(groups, epsilon, name="norm_1", **options)
        self.conv_1 = Conv2D(self.width, 3, padding="same", name="conv_1", **options)
        self.dense: keras.Layer | None = None
        self.shortcut: keras.Layer | None = None

    def build(self, inputs_shape: Any) -> None:
        # The order of these layers is that of the optimizer's variables in files.
        width, options = self.width, {"dtype": self.dtype_policy}
        has_embedding = isinstance(inputs_shape[0], list | tuple)
        x_shape, embedding_shape = inputs_shape if has_embedding else (inputs_shape, None)
        h_shape = (*x_shape[:-1], width)
        check(has_embedding or not self.scale_shift, "scale_shift", "be False without an embedding", self.scale_shift)
        self.norm_1.build(x_shape)
        self.conv_1.build(x_shape)
        if has_embedding:
            self.dense = keras.layers.Dense(2 * width if self.scale_shift else width, name="dense", **options)
            self.dense.build(embedding_shape)
        self.norm_2 = GroupNorm(self.groups, self.norm_1.epsilon, name="norm_2", **options)
        self.norm_2.build(h_shape)
        self.conv_2 = Conv2D(width, 3, padding="same", kernel_initializer="zeros", name="conv_2", **options)
        self.conv_2.build(h_shape)
        if x_shape[-1] != width:
            self.shortcut = Conv2D(width, 1, name="shortcut", **options)
            self.shortcut.build(x_shape)

    def call(self, inputs: Any, training: bool = False) -> Any:
        x, *embeddings = inputs if isinstance(inputs, list | tuple) else [inputs]
        masks = []
        if training and self.dropout > 0:
            # Drawn here, since a recomputation must not draw again.
            kept = ops.ones((*ops.shape(x)[:-1], self.width), self.compute_dtype)
            masks = [keras.random.dropout(kept, self.dropout, seed=self.seed_generator)]
        return recomputed(self._block, self.remat)(x, *embeddings, *masks)

    def _block(self, x: Any, *others: Any) -> Any:
        h = self.conv_1(ops.silu(self.norm_1(x)))
        if self.dense is None:
            h, masks = self.norm_2(h), others
        else:
            h, masks = self._conditioned(h, self.dense(others[0])), others[1:]
        h = ops.silu(h)
        for mask in masks:
            h = h * mask
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return shortcut + self.conv_2(h)

    def _conditioned(self, h: Any, shift: Any) -> Any:
        shift = ops.expand_dims(shift, (1, 2))
        if not self.scale_shift:
            return self.norm_2(h + shift)
        scale, shift = ops.split(shift, 2, axis=-1)
        return self.norm_2(h) * (1 + scale) + shift

    def compute_output_shape(self, inputs_shape: Any) -> tuple[int | None, ...]:
        x_shape = inputs_shape[0] if isinstance(inputs_shape[0], list | tuple) else inputs_shape
        return (*x_shape[:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        own = {
            "width": self.width,
            "groups": self.groups,
            "dropout": self.dropout,
            "remat": self.remat,
            "seed": self.seed,
            "epsilon": self.norm_1.epsilon,
            "scale_shift": self.scale_shift,
        }
        return {**super().get_config(), **own}


@keras_gen_export("keras_gen.layers.LightBlock")
class LightBlock(StaysFrozen, keras.layers.Layer):
    """Residual block of the DDPM post's light U-Net: normalized after the addition, without biases.

        x = projection(x),   y = norm(x + conv(silu(conv(x + dense(embedding)))))

    The projection, a 1x1 convolution, exists only if the number of channels changes.

    Args:
        width: int >= 1. Number of output channels.
        remat: bool. Whether to recompute the block in the backward pass instead of storing its activations (gradient
            checkpointing). Defaults to `False`.
        **kwargs: `name`, `dtype`, as for any Keras layer.

    Call arguments:
        inputs: list of the image `(batch, height, width, channels)` and the embedding `(batch, dim)`.

    Returns:
        `(batch, height, width, self.width)`.

    Raises:
        ValueError: if `width` is not an integer >= 1, or `remat` not a bool.

    Reference: https://kexue.fm/archives/9152.
    """

    def __init__(self, width: int, remat: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        width = self.width = check_integer("width", width)
        self.remat = check_flag("remat", remat)
        options = {"use_bias": False, "dtype": self.dtype_policy}
        self.dense = keras.layers.Dense(width, name="dense", **options)
        self.conv_1 = Conv2D(width, 3, padding="same", name="conv_1", **options)
        self.conv_2 = Conv2D(width, 3, padding="same", name="conv_2", **options)
        self.norm = GroupNorm(groups_for(width), dtype=self.dtype_policy, name="norm")
        self.projection: keras.Layer | None = None

    def build(self, inputs_shape: Any) -> None:
        x_shape, embedding_shape = inputs_shape
        h_shape = (*x_shape[:-1], self.width)
        if x_shape[-1] != self.width:
            self.projection = Conv2D(self.width, 1, use_bias=False, dtype=self.dtype_policy, name="projection")
            self.projection.build(x_shape)
        self.dense.build(embedding_shape)
        for layer in (self.conv_1, self.conv_2, self.norm):
            layer.build(h_shape)

    def call(self, inputs: Any) -> Any:
        return recomputed(self._block, self.remat)(*inputs)

    def _block(self, x: Any, embedding: Any) -> Any:
        if self.projection is not None:
            x = self.projection(x)
        h = x + ops.expand_dims(self.dense(embedding), (1, 2))
        return self.norm(x + self.conv_2(ops.silu(self.conv_1(h))))

    def compute_output_shape(self, inputs_shape: Any) -> tuple[int | None, ...]:
        return (*inputs_shape[0][:-1], self.width)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "width": self.width, "remat": self.remat}
