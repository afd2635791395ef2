import keras

from keras_gen import metrics

# name -> constructor
METRICS = {
    "code_perplexity": lambda: metrics.CodePerplexity((3, 4)),
    "code_usage": lambda: metrics.CodeUsage(3),
    "density_coverage": lambda: metrics.DensityCoverage(None, 4),
    "frechet_distance": lambda: metrics.FrechetDistance(keras.layers.Flatten()),
    "kernel_distance": lambda: metrics.KernelDistance(keras.layers.Flatten(), 10, 3, seed=1, batch_size=8),
    "precision_recall": lambda: metrics.PrecisionRecall(None, 5),
}
