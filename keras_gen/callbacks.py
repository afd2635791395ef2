"""Callbacks for `fit`."""

from keras_gen.core.backup import Backup as Backup
from keras_gen.evaluation.sample_grid import SampleGrid as SampleGrid
