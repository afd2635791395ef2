"""Functions of tensors and arrays."""

from keras_gen.core.gradient import gradient as gradient
from keras_gen.diffusion.convert_prediction import convert_prediction as convert_prediction
from keras_gen.evaluation.image_grid import image_grid as image_grid
from keras_gen.flows.rational_quadratic_spline import rational_quadratic_spline as rational_quadratic_spline
from keras_gen.latent.concrete_log_prob import concrete_log_prob as concrete_log_prob
from keras_gen.latent.gumbel_softmax import gumbel_softmax as gumbel_softmax
from keras_gen.latent.straight_through import straight_through as straight_through
from keras_gen.quantization.nearest_code import nearest_code as nearest_code
from keras_gen.quantization.rotation_trick import rotation_trick as rotation_trick
