"""Bijectors, the invertible transforms of flows, also available in `keras_gen.layers`."""

from keras_gen.flows.bijector import Bijector as Bijector
from keras_gen.flows.compose import Chain as Chain
from keras_gen.flows.compose import Invert as Invert
from keras_gen.flows.compose import MultiScale as MultiScale
from keras_gen.flows.continuous_flow import ContinuousFlow as ContinuousFlow
from keras_gen.flows.coupling import AdditiveCoupling as AdditiveCoupling
from keras_gen.flows.coupling import AffineCoupling as AffineCoupling
from keras_gen.flows.dequantize import Dequantize as Dequantize
from keras_gen.flows.elementwise import ActNorm as ActNorm
from keras_gen.flows.elementwise import LogitTransform as LogitTransform
from keras_gen.flows.elementwise import Scale as Scale
from keras_gen.flows.invertible_1x1_conv import Invertible1x1Conv as Invertible1x1Conv
from keras_gen.flows.masked_autoregressive import MaskedAutoregressive as MaskedAutoregressive
from keras_gen.flows.shape import Permutation as Permutation
from keras_gen.flows.shape import Reshape as Reshape
from keras_gen.flows.shape import Squeeze as Squeeze
from keras_gen.flows.spline_coupling import SplineCoupling as SplineCoupling
