"""Layers."""

from keras_gen.diffusion.group_norm import GroupNorm as GroupNorm
from keras_gen.diffusion.light_block import LightBlock as LightBlock
from keras_gen.diffusion.residual_block import ResidualBlock as ResidualBlock
from keras_gen.diffusion.self_attention_2d import SelfAttention2D as SelfAttention2D
from keras_gen.diffusion.sinusoidal_embedding import SinusoidalEmbedding as SinusoidalEmbedding
