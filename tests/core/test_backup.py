"""A killed `fit` resumes: see `keras_gen/core/backup.py`. Kills at random moments: `python tests/kill_fit.py`."""

import errno
import os
import subprocess
import sys
import warnings

import keras
import kill_fit
import numpy as np
import pytest

from keras_gen.callbacks import Backup, SampleGrid


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise RuntimeError("killed")


def test_a_killed_fit_resumes_and_a_finished_one_trains_no_more(tmp_path):
    path = tmp_path / "new" / "backup.npz"
    whole = kill_fit.model()
    kill_fit.fit(whole, 4)
    with pytest.raises(RuntimeError, match="killed"):
        kill_fit.fit(kill_fit.model(), 4, [Backup(path), Kill()])
    assert Backup(path).finished_epochs() == 2
    resumed = kill_fit.model()
    assert kill_fit.fit(resumed, 4, [Backup(path)]).epoch == [2, 3]
    assert kill_fit.difference(whole, resumed) == 0
    finished = kill_fit.model()
    assert kill_fit.fit(finished, 4, [Backup(path)]).epoch == []
    assert kill_fit.difference(whole, finished) == 0
    assert kill_fit.fit(finished, 5, [Backup(path)]).epoch == [4]
    kill_fit.fit(whole := kill_fit.model(), 5)
    assert kill_fit.difference(whole, finished) == 0
    assert [file.name for file in path.parent.iterdir()] == ["backup.npz"]


def test_backups_after_some_epochs_and_after_the_last(tmp_path):
    backup, finished = Backup(tmp_path / "backup.npz", every=2), []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: finished.append(backup.finished_epochs()))
    kill_fit.fit(kill_fit.model(), 5, [backup, watch])
    assert finished == [0, 2, 2, 4, 5]


def test_a_full_disk_warns_and_the_last_backup_and_training_stay(tmp_path, monkeypatch):
    path, whole = tmp_path / "backup.npz", kill_fit.model()
    kill_fit.fit(whole, 3)
    model = kill_fit.model()

    class FullDisk(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                monkeypatch.setattr(os, "fsync", fail)

    def fail(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    grid = SampleGrid(tmp_path / "{epoch}.png", n=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kill_fit.fit(model, 3, [FullDisk(), Backup(path), grid])
    messages = [str(warning.message) for warning in caught if "No space left" in str(warning.message)]
    assert [message.split(":")[0] for message in messages] == [
        "no backup of epoch 2, the last one stays",
        "SampleGrid saves no picture of epoch 2",
        "no backup of epoch 3, the last one stays",
        "SampleGrid saves no picture of epoch 3",
    ]
    assert kill_fit.difference(whole, model) == 0
    assert Backup(path).finished_epochs() == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["1.png", "backup.npz"]


def test_bad_backups(tmp_path):
    path = tmp_path / "backup.npz"
    for arguments, match in (
        ({"filepath": tmp_path / "backup.keras"}, "`filepath` must end with .npz"),
        ({"every": 0}, "`every` must be an integer >= 1"),
    ):
        with pytest.raises(ValueError, match=match):
            Backup(**arguments)
    kill_fit.fit(kill_fit.model(), 1, [Backup(path)])
    other = kill_fit.model(widths=(8,))
    with pytest.raises(ValueError, match=r"`filepath` must be a backup of this model.*delete it to begin anew"):
        kill_fit.fit(other, 2, [Backup(path)])
    content = path.read_bytes()
    for damaged in (content[:-100], content[: len(content) // 2], b"", b"text", content.replace(b"epoch", b"ehcop")):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="`filepath` must be a whole backup.*backup.npz"):
            kill_fit.fit(kill_fit.model(), 2, [Backup(path)])
        with pytest.raises(ValueError, match="`filepath` must be a whole backup.*backup.npz"):
            Backup(path).finished_epochs()


@pytest.mark.one_backend
def test_a_process_killed_while_it_writes_resumes(tmp_path):
    run = [sys.executable, kill_fit.__file__, str(tmp_path), "--epochs", "3"]
    killed = subprocess.run([*run, "--in-backup", "2"], check=False, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    assert Backup(tmp_path / "backup.npz").finished_epochs() == 1
    subprocess.run(run, check=True, capture_output=True)
    whole = kill_fit.model()
    kill_fit.fit(whole, 3)
    with np.load(tmp_path / "weights.npz") as values:
        assert max(np.abs(a - values[str(i)]).max() for i, a in enumerate(kill_fit.values(whole))) == 0
