"""What the trainings on MNIST share: the split of the data, the optimizer, and a run that can be interrupted."""

import pathlib
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_gen.callbacks import Backup

PIXELS = 784
TRAINING_IMAGES = 50_000  # of 60,000; the others are for validation


def load_mnist(path: str, prepare: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the training, validation and test images, `(n, 784)`, as `prepare` makes them of integers in 0 .. 255."""
    with np.load(path, allow_pickle=False) as arrays:
        images, test = (prepare(arrays[name].reshape(-1, PIXELS)) for name in ("x_train", "x_test"))
    return images[:TRAINING_IMAGES], images[TRAINING_IMAGES:], test


def build_optimizer(steps: int, rate: float, decay: float, undecayed: Sequence[str]) -> keras.optimizers.Optimizer:
    """Returns AdamW with averaged weights; the learning rate rises to `rate`, and falls to 0 in `steps` steps."""
    schedule = keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=rate, warmup_steps=200)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=decay, use_ema=True, ema_momentum=0.999)
    optimizer.exclude_from_weight_decay(var_names=list(undecayed))
    return optimizer


def train(
    model: keras.Model,
    images: np.ndarray,
    validation: np.ndarray,
    output: pathlib.Path,
    *,
    epochs: int,
    batch_size: int,
    validation_batch_size: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> None:
    """Trains a compiled model, and writes the learning curve of its averages and the model itself to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    backup = Backup(output / "backup.npz")
    curve = keras.callbacks.CSVLogger(output / "curve.csv", append=backup.filepath.exists())
    start = time.time()
    model.fit(
        images,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=(validation, None),
        validation_batch_size=validation_batch_size,
        callbacks=[*callbacks, curve, backup],
        verbose=2,
    )
    print(f"trained in {(time.time() - start) / 60:.1f} min")
    model.save(output / "model.keras")
