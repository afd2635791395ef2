import keras

from keras_gen import metrics

# name -> constructor
METRICS = {
    "code_perplexity": lambda: metrics.CodePerplexity((3, 4)),
    "code_usage": lambda: metrics.CodeUsage(3),
    "frechet_distance": lambda: metrics.FrechetDistance(keras.layers.Flatten()),
    "precision_recall": lambda: metrics.PrecisionRecall(None, 5),
}
