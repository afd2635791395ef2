"""Functions of tensors and arrays."""

from keras_gen.diffusion.convert_prediction import convert_prediction as convert_prediction
from keras_gen.evaluation.image_grid import image_grid as image_grid
