"""Trains in several processes, of which one may be killed; started again, they resume from the backup.

    RANK=0 WORLD_SIZE=2 ... python tests/replicas_kill.py ENGINE FOLDER [--kill]    # in each process

`FOLDER/<rank>.npz` holds what a process has learned. With `--kill` the last process kills itself in the third epoch.
`tests/core/test_replicas.py` compares.
"""

import os
import pathlib
import signal
import sys

import engines

ENGINE, FOLDER, KILL = sys.argv[1], pathlib.Path(sys.argv[2]), "--kill" in sys.argv
engines.prepare(ENGINE)

import alone  # noqa: F401 (before Keras)
import keras
import kill_fit
import numpy as np

from keras_gen.callbacks import Backup

EPOCHS, BATCH = 4, 8


class Kill(keras.callbacks.Callback):
    """Kills the process in the middle of the third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (2, 1):
            os.kill(os.getpid(), signal.SIGKILL)


def main():
    rank, world, scope = engines.start(ENGINE)
    with scope():
        model = kill_fit.model()
    callbacks = [Backup(FOLDER / "backup.npz"), *([Kill()] if KILL and engines.RANK == engines.WORLD - 1 else [])]
    options = {"epochs": EPOCHS, "shuffle": False, "verbose": 0, "callbacks": callbacks}
    if ENGINE == "workers":
        model.fit(engines.sharded((kill_fit.IMAGES,), BATCH), **options)
    else:
        model.fit(
            engines.own_rows(kill_fit.IMAGES, BATCH, rank, world),
            batch_size=engines.share(BATCH, rank, world),
            **options,
        )
    np.savez(FOLDER / f"{engines.RANK}.npz", *kill_fit.values(model))


if __name__ == "__main__":
    main()
