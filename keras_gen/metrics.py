"""Measures of sample quality."""

from keras_gen.evaluation.frechet_distance import frechet_distance as frechet_distance
