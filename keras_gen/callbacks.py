"""Callbacks for `fit`."""

from keras_gen.evaluation.sample_grid import SampleGrid as SampleGrid
