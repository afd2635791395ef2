"""Callbacks for `fit`."""

from keras_gen.core.backup import Backup as Backup
from keras_gen.core.backup import StopOnNaN as StopOnNaN
from keras_gen.evaluation.evaluate_samples import EvaluateSamples as EvaluateSamples
from keras_gen.evaluation.sample_grid import SampleGrid as SampleGrid
from keras_gen.evaluation.tensorboard import tensorboard_images as tensorboard_images
