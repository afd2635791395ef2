"""Prediction targets (parametrizations) of diffusion networks."""

from keras_gen.diffusion.prediction import X0 as X0
from keras_gen.diffusion.prediction import Epsilon as Epsilon
from keras_gen.diffusion.prediction import Preconditioned as Preconditioned
from keras_gen.diffusion.prediction import Prediction as Prediction
from keras_gen.diffusion.prediction import Score as Score
from keras_gen.diffusion.prediction import V as V
from keras_gen.diffusion.prediction import Velocity as Velocity
