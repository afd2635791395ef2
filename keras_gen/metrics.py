"""Metrics of sample quality, clustering and codebook usage."""

from keras_gen.evaluation.cluster_accuracy import cluster_accuracy as cluster_accuracy
from keras_gen.evaluation.comparison import compare as compare
from keras_gen.evaluation.frechet_distance import FrechetDistance as FrechetDistance
from keras_gen.evaluation.frechet_distance import frechet_distance as frechet_distance
from keras_gen.evaluation.kernel_distance import KernelDistance as KernelDistance
from keras_gen.evaluation.precision_recall import DensityCoverage as DensityCoverage
from keras_gen.evaluation.precision_recall import PrecisionRecall as PrecisionRecall
from keras_gen.quantization.metrics import CodePerplexity as CodePerplexity
from keras_gen.quantization.metrics import CodeUsage as CodeUsage
