"""Clustering VAE, https://kexue.fm/archives/5887: unsupervised classes, over several seeds.

    KERAS_BACKEND=jax python examples/vae_cluster.py
    KERAS_BACKEND=jax python examples/vae_cluster.py --dataset mnist --epochs 50 --batch-size 256

Each cluster is assigned the most frequent label of its training images. Prints the accuracy of this assignment on
training and test images for each seed, and writes samples of each class (a column each) and the models to `--output`.
"""

import keras
import numpy as np
from datasets import load_split
from shared import as_count, number_of_steps, parser, save_picture, train

from keras_gen.losses import GaussianLikelihood
from keras_gen.metrics import cluster_accuracy
from keras_gen.models import ClusterVAE

LATENT_DIM, NUM_CLUSTERS = 20, 10


def build_model(image_shape: tuple[int, ...], steps: int, seed: int) -> ClusterVAE:
    x, z = keras.Input(image_shape), keras.Input((LATENT_DIM,))
    h = keras.layers.Flatten()(x)
    for units in (512, 256):
        h = keras.layers.Dense(units, "relu")(h)
    encoder = keras.Model(x, [keras.layers.Dense(LATENT_DIM)(h), keras.layers.Dense(LATENT_DIM)(h)])
    h = z
    for units in (256, 512):
        h = keras.layers.Dense(units, "relu")(h)
    decoder = keras.Model(z, keras.layers.Reshape(image_shape)(keras.layers.Dense(int(np.prod(image_shape)))(h)))
    classifier = keras.Sequential([keras.layers.Dense(256, "relu"), keras.layers.Dense(NUM_CLUSTERS)])
    # The post weights half the squared error of 784 pixels in [0, 1] by 2.5: a variance of 1 / 2.5, or 4 / 2.5 in
    # [-1, 1]. Fewer pixels need a smaller variance for the same balance with the KL divergence.
    likelihood = GaussianLikelihood(4 / 2.5 * np.prod(image_shape[:2]) / 784)
    # KL annealing (warm-up) over the first third: with the full weight from the start, classes merge irreversibly.
    kl_weight = keras.optimizers.schedules.PolynomialDecay(0.0, max(1, steps // 3), end_learning_rate=1.0)
    model = ClusterVAE(encoder, decoder, classifier, NUM_CLUSTERS, likelihood, kl_weight, seed=seed)
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def main() -> None:
    arguments = parser(__doc__, "vae_cluster", epochs=100)
    arguments.add_argument("--seeds", type=as_count, default=3, help="how many seeds, from --seed on")
    arguments = arguments.parse_args()
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    if labels is None:
        raise ValueError(f"`--dataset` must have labels to compare with. Received: {arguments.dataset}")
    steps = number_of_steps(arguments, len(images))
    table = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        keras.utils.set_random_seed(seed)
        model = build_model(images.shape[1:], steps, seed)
        train(model, images, None, arguments, validation_data=(test, None), folder=f"seed_{seed}")
        found, found_test = model.cluster(images), model.cluster(test)
        table.append(
            (cluster_accuracy(found, labels), cluster_accuracy(found_test, test_labels, reference=(found, labels)))
        )
        print(f"seed {seed}: accuracy {table[-1][0]:.1%} training, {table[-1][1]:.1%} test")
        condition = np.tile(np.arange(NUM_CLUSTERS), 8)
        samples = model.sample(len(condition), condition, seed=arguments.seed, verbose=0)
        save_picture(arguments.output / f"seed_{seed}" / "samples.png", samples, NUM_CLUSTERS)
    (train_mean, test_mean), (train_std, test_std) = np.mean(table, axis=0), np.std(table, axis=0)
    print(f"mean: {train_mean:.1%} (deviation {train_std:.1%}) training, {test_mean:.1%} ({test_std:.1%}) test")


if __name__ == "__main__":
    main()
