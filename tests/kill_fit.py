"""Kills a training at random moments, and compares what resumes with the uninterrupted run.

    KERAS_BACKEND=torch python tests/kill_fit.py runs/kills --kills 20
    python tests/kill_fit.py FOLDER [--epochs 4] [--in-backup N]       # one training; N: kills itself in the N-th write

Of the kills, a quarter falls into the writing of a backup. Each training is started again until it ends; the largest
difference to the uninterrupted one, in weights, averages, optimizer and random states, is printed.
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import keras
import numpy as np

from keras_gen.callbacks import Backup
from keras_gen.models import DDPM
from keras_gen.schedules import LinearSchedule

IMAGES = np.random.default_rng(0).uniform(-1, 1, (16, 4, 4, 1)).astype("float32")


def model(widths: Sequence[int] = (4,)) -> DDPM:
    """Returns a compiled diffusion model with dropout and averages."""
    keras.utils.set_random_seed(0)
    x, t = keras.Input((4, 4, 1)), keras.Input((), dtype="int32")
    h = keras.ops.reshape(x, (-1, 16))
    for width in widths:
        h = keras.layers.Dropout(0.1)(keras.layers.Dense(width, "tanh")(h) + keras.layers.Embedding(10, width)(t))
    network = keras.Model([x, t], keras.ops.reshape(keras.layers.Dense(16)(h), (-1, 4, 4, 1)))
    result = DDPM(network, LinearSchedule(10), seed=0)
    result.compile(keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9))
    return result


def fit(trained: DDPM, epochs: int, callbacks: Sequence[keras.callbacks.Callback] = ()) -> keras.callbacks.History:
    """Trains in a fixed order of the data."""
    return trained.fit(IMAGES, batch_size=4, epochs=epochs, shuffle=False, verbose=0, callbacks=[*callbacks])


def values(trained: DDPM) -> list[np.ndarray]:
    """Returns weights, random states, and the optimizer's variables."""
    return [np.asarray(keras.ops.convert_to_numpy(v)) for v in [*trained.variables, *trained.optimizer.variables]]


def difference(a: DDPM, b: DDPM) -> float:
    """Returns the largest difference in all that training changes."""
    return max(float(np.abs(x.astype("float64") - y).max()) for x, y in zip(values(a), values(b), strict=True))


class KillInside:
    """Writes half of the `number`-th backup, then kills the process."""

    def __init__(self, number: int):
        self.number, self.savez = number, np.savez

    def __call__(self, file: object, **arrays: np.ndarray) -> None:
        self.number -= 1
        if self.number:
            self.savez(file, **arrays)
        else:
            self.savez(file, **dict(list(arrays.items())[: len(arrays) // 2]))
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: pathlib.Path, epochs: int, in_backup: int | None) -> None:
    """Trains, or resumes, and writes the values."""
    if in_backup:
        np.savez = KillInside(in_backup)
    trained = model()
    fit(trained, epochs, [Backup(folder / "backup.npz")])
    np.savez(folder / "weights.npz", **{str(i): value for i, value in enumerate(values(trained))})


def kill(folder: pathlib.Path, kills: int, epochs: int, seed: int) -> None:
    """Runs chains of kills, and prints their differences to an uninterrupted run."""
    random.seed(seed)
    command = [sys.executable, __file__, str(folder), "--epochs", str(epochs)]
    start = time.time()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    whole, duration = dict(np.load(folder / "weights.npz")), time.time() - start
    done = 0
    while done < kills:
        shutil.rmtree(folder)
        moments = []
        while True:
            inside = (done + len(moments)) % 4 == 3 and done + len(moments) < kills
            process = subprocess.Popen(
                [*command, *(["--in-backup", str(random.randint(1, 2))] if inside else [])], stderr=subprocess.DEVNULL
            )
            moment = random.uniform(0.4, 1.1) * duration
            try:
                process.wait(None if inside or done + len(moments) >= kills else moment)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.returncode == 0:
                break
            moments.append("in a backup" if inside else f"{moment:.1f} s")
        resumed = np.load(folder / "weights.npz")
        largest = max(np.abs(value.astype("float64") - resumed[name]).max() for name, value in whole.items())
        done += max(1, len(moments))
        print(f"{done} of {kills}, killed after {', '.join(moments) or 'its end'}: largest difference {largest}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--in-backup", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.kills:
        kill(arguments.folder, arguments.kills, arguments.epochs, arguments.seed)
    else:
        train(arguments.folder, arguments.epochs, arguments.in_backup)


if __name__ == "__main__":
    main()
