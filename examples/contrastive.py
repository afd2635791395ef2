"""Self-supervised learning, https://kexue.fm/archives/6024: features that tell images apart instead of drawing them.

    KERAS_BACKEND=jax python examples/contrastive.py
    KERAS_BACKEND=jax python examples/contrastive.py --dataset mnist --epochs 10 --batch-size 512

Each image is seen twice, rotated, scaled and moved at random. InfoNCE asks which of the views of all images is the
partner of a given one, so that features keep what both views share. A linear classifier of the frozen features shows
how much they reveal about classes that no label has taught them, compared with pixels, and with the latents of a VAE
with the same encoder, which must reconstruct every pixel. Prints accuracies on test images for three seeds, and writes
the features as a picture to `--output`.
"""

import functools
from typing import Any

import keras
import numpy as np
from datasets import load_split
from scipy.ndimage import affine_transform
from shared import full_or_smoke, parser, save_panels, train
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE

from keras_gen.losses import GaussianLikelihood, InfoNCE
from keras_gen.models import VAE

FEATURES = 32
LABELS = 100  # of a second classifier


class Views(keras.utils.PyDataset):
    """Batches of two views of each image, drawn anew in each epoch: `(batch, 2, height, width, channels)`."""

    def __init__(self, images: np.ndarray, batch_size: int, seed: int):
        super().__init__()
        self.images, self.batch_size, self.rng = images, batch_size, np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.order[batch * self.batch_size : (batch + 1) * self.batch_size]
        views = np.array([[self.view(image), self.view(image)] for image in self.images[rows]])
        return views, np.zeros((len(rows), 2, 1))  # targets, which Keras wants

    def on_epoch_end(self) -> None:
        self.order = self.rng.permutation(len(self.images))

    def view(self, image: np.ndarray) -> np.ndarray:
        """Rotates by up to 25 degrees, scales by up to 25%, and moves by up to an eighth of the size."""
        (angle, scale), shift = self.rng.uniform(-1, 1, 2) * (np.pi / 7, 0.25), self.rng.uniform(-1, 1, 2)
        matrix, center = np.eye(3), np.array(image.shape) / 2 - 0.5
        matrix[:2, :2] = np.exp(scale) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        offset = center - matrix @ center + np.array([*shift, 0]) * image.shape[0] / 8
        return affine_transform(image, matrix, offset, order=1, cval=-1)


def build_trunk(image_shape: tuple[int, ...]) -> keras.Model:
    layers = [keras.layers.Conv2D(*size, padding="same", activation="relu") for size in ((32, 3, 1), (64, 3, 2))]
    return keras.Sequential([keras.Input(image_shape), *layers, keras.layers.Flatten()])


def build_contrastive(image_shape: tuple[int, ...]) -> tuple[keras.Model, keras.Model]:
    """Returns the encoder, and the model that is trained: the encoder twice, and a head that is thrown away later."""
    encoder = keras.Sequential([build_trunk(image_shape), keras.layers.Dense(FEATURES)])
    head = [keras.layers.Activation("relu"), keras.layers.Dense(FEATURES), keras.layers.UnitNormalization()]
    views, branch = keras.Input((2, *image_shape)), keras.Sequential([encoder, *head])
    return encoder, keras.Model(views, keras.ops.stack([branch(views[:, 0]), branch(views[:, 1])], axis=1))


def find_partners(_: Any, pair: Any) -> Any:
    return InfoNCE(temperature=0.2)(pair[:, 0], pair[:, 1])


def build_vae(image_shape: tuple[int, ...], seed: int) -> VAE:
    trunk, dense = build_trunk(image_shape), keras.layers.Dense
    encoder = keras.Model(trunk.inputs, [dense(FEATURES)(trunk.outputs[0]), dense(FEATURES)(trunk.outputs[0])])
    decoder = [dense(256, "relu"), dense(int(np.prod(image_shape))), keras.layers.Reshape(image_shape)]
    return VAE(encoder, keras.Sequential([keras.Input((FEATURES,)), *decoder]), GaussianLikelihood(0.1), seed=seed)


def main() -> None:
    arguments = parser(__doc__, "contrastive", epochs=60, batch_size=128).parse_args()
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    scores: dict[str, list[list[float]]] = {}
    for seed in range(arguments.seed, arguments.seed + full_or_smoke(3, 1)):
        keras.utils.set_random_seed(seed)
        encoder, model = build_contrastive(images.shape[1:])
        model.compile(keras.optimizers.Adam(1e-3), find_partners)
        train(model, Views(images, arguments.batch_size, seed), None, arguments, folder=f"contrastive_{seed}")
        vae = build_vae(images.shape[1:], seed)
        vae.compile(keras.optimizers.Adam(1e-3))
        train(vae, images, None, arguments, folder=f"vae_{seed}")
        features = {
            "pixels": [x.reshape(len(x), -1) for x in (images, test)],
            "latents of a VAE": [vae.encode(x) for x in (images, test)],
            "contrastive features": [encoder.predict(x, verbose=0) for x in (images, test)],
        }
        few = np.random.default_rng(seed).permutation(len(images))[:LABELS]
        for name, parts in features.items():
            x, test_x = (part / parts[0].std(axis=0).mean() for part in parts)  # so that the penalty is alike
            probes = [LogisticRegression(max_iter=1000).fit(x[rows], labels[rows]) for rows in (slice(None), few)]
            scores.setdefault(name, []).append([probe.score(test_x, test_labels) for probe in probes])
    for name, found in scores.items():
        (every, few), (spread, spread_few) = np.mean(found, axis=0), np.std(found, axis=0)
        print(f"{name:21}{len(images)} labels: {every:.1%} +- {spread:.1%}, {LABELS}: {few:.1%} +- {spread_few:.1%}")

    def draw(name: str, axes: Any) -> None:
        accuracies = "{:.1%} from all labels,\n{:.1%} from {}".format(*np.mean(scores[name], axis=0), LABELS)
        plane = TSNE(random_state=0).fit_transform(features[name][1])
        axes.scatter(*plane.T, c=test_labels, cmap="tab10", s=8)
        for label in np.unique(test_labels):
            axes.text(*np.median(plane[test_labels == label], axis=0), label, weight="bold")
        axes.set(title=name, xlabel=accuracies, xticks=[], yticks=[])

    save_panels(arguments.output / "features.png", [functools.partial(draw, name) for name in features], 3, 3, 3.5)


if __name__ == "__main__":
    main()
