"""Data for `fit`: pictures and arrays from files, their scale and split, batches of any kind, and packed sequences."""

from keras_gen.autoregressive.packing import PackedSequences as PackedSequences
from keras_gen.core.data import Batches as Batches
from keras_gen.sources.arrays import array_names as array_names
from keras_gen.sources.arrays import load_arrays as load_arrays
from keras_gen.sources.arrays import load_npz as load_npz
from keras_gen.sources.pictures import load_images as load_images
from keras_gen.sources.pixels import denormalize_images as denormalize_images
from keras_gen.sources.pixels import normalize_images as normalize_images
from keras_gen.sources.split import train_test_split as train_test_split
