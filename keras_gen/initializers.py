"""Initializers of weights, for any layer of Keras."""

from keras_gen.networks.blocks.upsampling import ICNR as ICNR
