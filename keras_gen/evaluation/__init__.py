"""Visualization and evaluation of samples."""

from keras_gen.evaluation.comparison import compare as compare
