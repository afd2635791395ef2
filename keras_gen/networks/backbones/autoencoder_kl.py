"""The two networks of `AutoencoderKL`: an encoder from images to a Gaussian, and a decoder from latents to images."""

import dataclasses
from typing import Any

import keras
from keras import ops

from keras_gen.core.torch.kernels import Conv2D
from keras_gen.networks.blocks.attention import SelfAttention2D
from keras_gen.networks.blocks.norms import GroupNorm
from keras_gen.networks.blocks.residual import ResidualBlock

EPSILON = 1e-6
LOG_VARIANCES = (-30.0, 20.0)  # lowest and highest


@dataclasses.dataclass(frozen=True)
class AutoencoderNetworks:
    """Architecture of an encoder and a decoder for images of any height and width, which are halved at each level.

    Each level has residual blocks without an embedding, one more in the decoder than in the encoder. At the coarsest
    level, there is self-attention over pixels between two further blocks.

    Args:
        channels: int. Channels of the images.
        latent_channels: int. Channels of the latents.
        widths: channels of each level, from fine to coarse.
        blocks_per_level: int. Residual blocks per level of the encoder.
        groups: int. Groups of all normalizations.
        latent_convolutions: bool. Whether the encoder ends, and the decoder begins, with a 1 x 1 convolution.
        remat: bool. Whether blocks are recomputed in the backward pass.
        dtype: the dtype policy of the layers.
    """

    channels: int
    latent_channels: int
    widths: tuple[int, ...]
    blocks_per_level: int
    groups: int
    latent_convolutions: bool
    remat: bool
    dtype: Any

    def encoder(self) -> keras.Model:
        """Returns a functional model from images to the mean and the log-variance of their latents."""
        x = keras.Input((None, None, self.channels))
        h = self._convolved(x, self.widths[0], "first_conv")
        for level, width in enumerate(self.widths):
            for i in range(self.blocks_per_level):
                h = self._block(h, width, f"down_{level}_block_{i}")
            if level < len(self.widths) - 1:
                h = self._convolved(h, width, f"down_{level}_conv", strides=2)
        h = self._end(self._middle(h), 2 * self.latent_channels)
        if self.latent_convolutions:
            h = self._convolved(h, 2 * self.latent_channels, "moments_conv", size=1)
        mean, log_var = ops.split(h, 2, axis=-1)
        return keras.Model(x, [mean, ops.clip(log_var, *LOG_VARIANCES)], name="encoder")

    def decoder(self) -> keras.Model:
        """Returns a functional model from latents to images."""
        z = keras.Input((None, None, self.latent_channels))
        h = self._convolved(z, self.latent_channels, "latents_conv", size=1) if self.latent_convolutions else z
        h = self._middle(self._convolved(h, self.widths[-1], "first_conv"))
        for level, width in reversed(list(enumerate(self.widths))):
            for i in range(self.blocks_per_level + 1):
                h = self._block(h, width, f"up_{level}_block_{i}")
            if level > 0:
                h = keras.layers.UpSampling2D(data_format="channels_last", dtype=self.dtype)(h)
                h = self._convolved(h, width, f"up_{level}_conv")
        return keras.Model(z, self._end(h, self.channels), name="decoder")

    def _middle(self, h: Any) -> Any:
        width, options = self.widths[-1], {"epsilon": EPSILON, "remat": self.remat, "dtype": self.dtype}
        h = self._block(h, width, "middle_block_0")
        h = SelfAttention2D(1, self.groups, name="middle_attention_0", **options)(h)
        return self._block(h, width, "middle_block_1")

    def _end(self, h: Any, channels: int) -> Any:
        h = GroupNorm(self.groups, EPSILON, name="last_norm", dtype=self.dtype)(h)
        h = keras.layers.Activation("silu", dtype=self.dtype)(h)
        return self._convolved(h, channels, "last_conv")

    def _block(self, h: Any, width: int, name: str) -> Any:
        options = {"remat": self.remat, "epsilon": EPSILON, "dtype": self.dtype}
        return ResidualBlock(width, self.groups, name=name, **options)(h)

    def _convolved(self, h: Any, width: int, name: str, size: int = 3, strides: int = 1) -> Any:
        return Conv2D(width, size, strides=strides, padding="same", name=name, dtype=self.dtype)(h)
