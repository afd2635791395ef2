"""A small classifier, for counting the classes of samples, and for the features of Frechet distances.

classifier, features = train_classifier(images, labels, test, test_labels, "runs/gan/classifier.keras")
"""

import pathlib
import time

import keras
import numpy as np
from shared import load_model

FEATURES = 64


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    path: str | pathlib.Path,
    seed: int = 0,
) -> tuple[keras.Model, keras.Model]:
    """Trains a classifier of images in [-1, 1] and saves it, or loads a saved one; prints its accuracy.

    Returns:
        classifier: model from images to logits.
        features: model from images to the `(n, 64)` inputs of the last layer.
    """
    path = pathlib.Path(path)
    if path.exists():
        classifier = load_model(path)
    else:
        keras.utils.set_random_seed(seed)
        classifier = _build(images.shape[1:], int(labels.max()) + 1)
        start, small = time.time(), len(images) < 10_000
        epochs, batch_size = (40, 32) if small else (4, 64)
        rate = keras.optimizers.schedules.CosineDecay(2e-3, epochs * -(-len(images) // batch_size))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        classifier.compile(keras.optimizers.Adam(rate), loss)
        classifier.fit(images, labels, batch_size, epochs, verbose=0)
        path.parent.mkdir(parents=True, exist_ok=True)
        classifier.save(path)
        print(f"classifier trained in {time.time() - start:.0f} s, wrote {path}")
    accuracy = np.mean(classes(classifier, test) == test_labels)
    print(f"classifier: accuracy {accuracy:.1%} on {len(test)} test images")
    return classifier, keras.Model(classifier.inputs, classifier.get_layer("features").output)


def classes(classifier: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the most likely class of each image."""
    return classifier.predict(images, batch_size=256, verbose=0).argmax(axis=-1)


def _build(image_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    conv = keras.layers.Conv2D
    x = h = keras.Input(image_shape)
    # 8 x 8 pixels are too few for two downsamplings.
    for filters, strides in ((32, 1 if image_shape[0] < 16 else 2), (64, 2)):
        h = conv(filters, 3, strides, "same", activation="relu")(h)
    h = keras.layers.Dropout(0.3)(keras.layers.Flatten()(h))
    h = keras.layers.Dense(FEATURES, "relu", name="features")(h)
    return keras.Model(x, keras.layers.Dense(num_classes)(h))
