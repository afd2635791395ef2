"""Generative-model layers, models and samplers for Keras 3: the same code on TensorFlow, JAX and PyTorch.

Importing `keras_gen` registers every class with Keras, so that `keras.models.load_model` finds them.
"""

from keras_gen import _backend as _backend
from keras_gen import bijectors as bijectors
from keras_gen import callbacks as callbacks
from keras_gen import config as config
from keras_gen import data as data
from keras_gen import distributions as distributions
from keras_gen import estimators as estimators
from keras_gen import evaluation as evaluation
from keras_gen import initializers as initializers
from keras_gen import layers as layers
from keras_gen import losses as losses
from keras_gen import metrics as metrics
from keras_gen import models as models
from keras_gen import ops as ops
from keras_gen import plots as plots
from keras_gen import predictions as predictions
from keras_gen import samplers as samplers
from keras_gen import schedules as schedules
from keras_gen import tokenizers as tokenizers
from keras_gen.export import serve_aliases
from keras_gen.version import __version__ as __version__

serve_aliases()
del serve_aliases
