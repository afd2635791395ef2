"""Compress, then generate: a prior over the codes of a VQ-VAE, https://kexue.fm/archives/6760, trained by a second fit.

    KERAS_BACKEND=jax python examples/vq_vae_prior.py
    KERAS_BACKEND=tensorflow python examples/vq_vae_prior.py --dataset mnist --epochs 5 --prior-epochs 20
    KERAS_BACKEND=jax python examples/vq_vae_prior.py --prior pixel_cnn

First a VQ-VAE encodes images as small maps of codes, then a causal transformer or a PixelCNN learns the distribution of
the maps, given the class. Writes samples of each class, images of uniformly drawn codes for comparison, and the model
with its prior to `--output`; prints nats and Frechet distances in the features of a classifier. An interrupted run
resumes, and an existing VQ-VAE is not trained again.
"""

import argparse

import keras
import numpy as np
from classifier import train_classifier
from datasets import count_classes, load_split
from shared import as_count, full_or_smoke, loaded_or_trained, parser, save_row_panels, train, warm_cosine
from vq_vae import build_model

from keras_gen.callbacks import Backup
from keras_gen.metrics import frechet_distance
from keras_gen.models import VQVAE, CodeTransformer, PixelCNN


def build_prior(arguments: argparse.Namespace, num_codes: int, codes: np.ndarray, classes: int | None) -> keras.Model:
    # A prior quickly overfits on a few thousand maps.
    small = len(codes) < 10_000
    options = {"num_classes": classes, "condition_dropout": 0.1 if classes else 0.0, "seed": arguments.seed}
    if arguments.prior == "pixel_cnn":
        return PixelCNN(num_codes, *((24, 4) if small else (64, 8)), **options)
    size = (48, 2, 4) if small else (192, 6, 6)
    length = codes[0].size
    return CodeTransformer(num_codes, length, *size, dropout=0.4 if small else 0.1, **options)


def train_vqvae(images: np.ndarray, arguments: argparse.Namespace) -> VQVAE:
    model = build_model(images.shape[1:], arguments.num_codes, "vq", arguments.seed)
    model.compile(keras.optimizers.Adam(2e-3))
    train(model, images, None, arguments, folder="vq_vae")
    return model


def main() -> None:
    arguments = parser(__doc__, "vq_vae_prior", epochs=60)
    arguments.add_argument("--num-codes", type=as_count, default=64)
    arguments.add_argument("--prior", choices=["transformer", "pixel_cnn"], default="transformer")
    arguments.add_argument("--prior-epochs", type=as_count, default=60)
    arguments.add_argument("--guidance", type=float, default=1.5)
    arguments = arguments.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    (images, labels), (test, test_labels) = load_split(arguments.dataset, arguments.size)
    output, seed = arguments.output, arguments.seed
    # An earlier run's, if there is one: the prior may be partly trained on its codes.
    model = loaded_or_trained(output / "vq_vae" / "model.keras", lambda: train_vqvae(images, arguments))
    classes = count_classes(labels)
    prior = build_prior(arguments, model.quantizer.code_sizes[0], model.encode(images), classes)
    steps = arguments.prior_epochs * -(-len(images) // arguments.batch_size)
    prior.compile(keras.optimizers.AdamW(warm_cosine(2e-3, steps), weight_decay=0.3, use_ema=True, ema_momentum=0.99))
    model.fit_prior(
        *(prior, images, labels),
        batch_size=arguments.batch_size,
        epochs=arguments.prior_epochs,
        validation_data=(test, test_labels),
        callbacks=[Backup(output / "prior_backup.npz")],
        verbose=2,
    )
    model.save(output / "model.keras")
    print(f"wrote {output / 'model.keras'}")
    nats = -prior.log_prob(model.encode(test), test_labels, verbose=0).mean()
    print(
        f"test: {nats:.2f} nats for {prior.length} codes; {prior.length * np.log(prior.num_codes):.2f} for even draws"
    )

    shown = None if classes is None else np.repeat(np.arange(min(classes, 10)), 2)
    guidance = arguments.guidance if classes else None
    n = 20 if shown is None else len(shown)
    even = np.random.default_rng(seed).integers(0, model.prior.num_codes, (n, *model.code_shape))
    panels = {
        "codes drawn evenly": model.decode(even),
        "codes drawn from the prior": model.sample(n, shown, seed=seed),
        f"the same, guidance {guidance}, top_p 0.95": model.sample(n, shown, seed=seed, guidance=guidance, top_p=0.95),
    }
    save_row_panels(output / "samples.png", {title: {"": row} for title, row in panels.items()})
    if labels is None:
        return
    _, features = train_classifier(images, labels, test, test_labels, output / "classifier.keras")
    n = full_or_smoke(len(test), 64)
    drawn = model.sample(n, test_labels[:n], seed=seed)
    real = features.predict(test[:n], verbose=0)
    for name, result in {"reconstructions": model.reconstruct(test[:n]), "samples": drawn}.items():
        distance = frechet_distance(features.predict(result, verbose=0), real)
        print(f"{name}: Frechet distance {distance:.2f} from test images")


if __name__ == "__main__":
    main()
