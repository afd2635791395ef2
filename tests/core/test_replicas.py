"""Several replicas learn what one device learns: on JAX 4 devices, on TensorFlow 2, on PyTorch 2 processes."""

import concurrent.futures
import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from laws.models import MODELS

from keras_gen.callbacks import Backup
from keras_gen.models import NICE, CodeTransformer, DiT, MMDiT, UNet, UNet2DCondition

TESTS = pathlib.Path(__file__).parent.parent
ENGINE = {"jax": "data_parallel", "tensorflow": "mirrored", "torch": "processes"}
MACHINES = {"jax": "hosts", "tensorflow": "workers"}
PATIENCE = 3600  # seconds, on a busy machine
SHORT = ["probe", "vqvae", "flow_condition", "ddpm"]
# Of tests/replicas_run.py, beside the table, and what of it replicas cannot do on a backend.
OTHERS = ["probe", "remat", "accumulation", "uneven", "reflow", "fit_prior", "packed", "vqgan_no_draws", "normalized"]
LACKING = {"tensorflow": "accumulation", "torch": "normalized", "jax": "uneven"}
DISTRIBUTED = ["made_before", "text_to_image"]  # where one process has all rows, and may set the distribution late
HOSTS = [*SHORT, "remat", "accumulation", "reflow", "code_transformer", "vqgan", "vae", "score_sde"]
REFUSED = {
    "accumulation": "`gradient_accumulation_steps` must be None with several replicas of TensorFlow: train on larger "
    "batches.",
    "arguments": "`arguments` must be the same in all processes, which share the batches.",
    "batches": "`x` must be of as many batches in each process.",
    "pairs": "`x` must be of as many batches in each process.",
    "validation": "`validation_data` must be of as many batches in each process.",
    "steps": "`x` must be of as many batches in each process.",
    "images": "`images` must be the same in all processes.",
    "callbacks": "`callbacks` must hold a keras_gen.callbacks.Backup instead, with several processes.",
}
REFUSALS = {
    "data_parallel": [],
    "mirrored": ["accumulation"],
    "processes": ["arguments", "batches", "pairs", "validation", "steps", "images", "callbacks"],
}


def free_port(number):
    """Returns the first of `number` free ports in a row.

    They lie below those of outgoing connections, one of which might take a port before the process that listens there,
    which may first train for minutes.
    """
    for first in random.SystemRandom().sample(range(20000, 32000), 1000):  # all tests have one seed
        with contextlib.ExitStack() as sockets, contextlib.suppress(OSError):
            for port in range(first, first + number):
                sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise RuntimeError("no free ports")


def started(number, script, *arguments):
    """Starts a script in `number` processes that know each other."""
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port(number)), "WORLD_SIZE": str(number)}
    running = []
    for rank in range(number):
        environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "PYTHONWARNINGS": "ignore"}
        environment |= {**group, "RANK": str(rank)} if number > 1 else {}
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, str(TESTS / script), *map(str, arguments)]
        running.append(subprocess.Popen(command, env=environment, **options))
    return running


def processes(engine, out, names, number):
    """Trains in `number` processes, and returns what each wrote, by run, model and key."""
    finish(started(number, "replicas_run.py", engine, out, *names))
    return [results(f"{out}.{rank}.npz") for rank in range(number)]


def finish(running):
    """Waits until all processes have ended well, or ends them all."""
    with concurrent.futures.ThreadPoolExecutor(len(running)) as pool:
        waiting = [pool.submit(process.communicate, timeout=PATIENCE) for process in running]
        for future in concurrent.futures.as_completed(waiting):
            if future.exception() or running[waiting.index(future)].returncode:
                for process in running:
                    process.kill()  # the others would wait for it
        errors = [future.result()[1][-2000:] for future in waiting]
    assert all(process.returncode == 0 for process in running), "\n".join(errors)


def results(file):
    tree = {"one": {}, "all": {}}
    with np.load(file) as arrays:
        for path in arrays.files:
            run, name, key = path.split("|")
            tree.setdefault(run, {}).setdefault(name, {})[key] = arrays[path]
    return tree


def difference(a, b):
    """Returns the largest difference of two runs, relative to 1 and the value, and where it is."""
    assert a.keys() == b.keys()
    numbers = [key for key in a if key not in ("apart", "noise", "bytes")]
    apart = {k: np.max(np.abs(a[k].astype("float64") - b[k]) / (1 + np.abs(b[k])), initial=0) for k in numbers}
    where = max(apart, key=apart.get)
    return apart[where], where


def compare(engine, one, first, *others):
    """Lists what replicas have learned, or return, otherwise than one device, and each than the others."""
    offenders, is_jax = [], engine in ("data_parallel", "hosts")
    for name, result in first["all"].items():
        if is_jax or not result["draws"]:
            apart, where = difference(result, one["one"][name])
            if apart > (5e-6 if is_jax else 1e-6):
                offenders.append(f"{name}: {where} is {apart:.1e} from that of one device")
        if result["apart"] > 0:
            offenders.append(f"{name}: two devices have weights {result['apart']:.1e} apart")
        for other in others:
            apart, where = difference(result, other["all"][name])
            if apart > 0:
                offenders.append(f"{name}: {where} of two processes is {apart:.1e} apart")
    for run in first.keys() & {"methods, two", "methods, all"}:
        for name, result in first[run].items():
            apart, where = difference(result, one["methods, one"][name])
            if apart > 1e-6:
                offenders.append(f"{name}: {where} ({run}) is {apart:.1e} from that of one device")
    return offenders


def table():
    """Returns the names of all models that the engines of this backend train."""
    return [name for name in [*OTHERS, *MODELS] if name != LACKING.get(keras.backend.backend())]


def test_replicas_are_one_model(tmp_path, request):
    engine = ENGINE[keras.backend.backend()]
    names = SHORT
    if request.config.getoption("--all-cases"):
        names = [*table(), *(DISTRIBUTED if engine == "data_parallel" else [])]
    first, *others = processes(engine, tmp_path / "run", names, 2 if engine == "processes" else 1)
    offenders = compare(engine, first, first, *others)
    assert not offenders, "\n".join(offenders)
    messages = first.get("refused", {}).get("messages", {})
    received = {name: str(message).partition(" Received: ")[0] for name, message in messages.items()}
    assert received == {name: REFUSED[name] for name in REFUSALS[engine]}
    if engine == "mirrored":
        np.testing.assert_array_equal(first["computing"]["probe"]["index"], [0, 0, 1, 1, 0, 0, 1, 1])
    if engine == "processes":
        assert [int(run["streamed"]["nice"]["steps"]) for run in (first, *others)] == [4, 4]
        written = {file.name for file in tmp_path.iterdir()}
        assert written == {"run.0.npz", "run.1.npz", "run.0.csv", "run.0.keras"}
    noise, rows = first["all"]["probe"]["noise"].T
    assert len(set(noise)) == len(noise) == 8, "rows of one batch share noise"
    np.testing.assert_array_equal(rows, first["one"]["probe"]["noise"][:, 1])  # in the order of the batch


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="its processes have rows of their own")
@pytest.mark.parametrize("number", [3, 4])
def test_more_processes_share_batches_of_eight(number, tmp_path, request):
    if not request.config.getoption("--all-cases"):
        pytest.skip("runs with --all-cases")
    names = table() if number == 3 else SHORT  # three have uneven shares
    first, *others = processes("processes", tmp_path / "run", names, number)
    offenders = compare("processes", first, first, *others)
    assert not offenders, "\n".join(offenders)


def test_a_killed_process_ends_the_others_and_all_resume(tmp_path, request):
    if not request.config.getoption("--all-cases"):
        pytest.skip("runs with --all-cases")
    engine = MACHINES.get(keras.backend.backend(), "processes")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    finish(started(2, "replicas_kill.py", engine, whole))
    survivor, victim = started(2, "replicas_kill.py", engine, killed, "--kill")
    assert victim.wait(PATIENCE) == -signal.SIGKILL
    patience = 150 if engine == "hosts" else 60  # JAX misses a process after 100 s, unless told otherwise
    assert survivor.wait(patience) != 0
    assert Backup(killed / "backup.npz").finished_epochs() == 2
    finish(started(2, "replicas_kill.py", engine, killed))
    for rank in range(2):
        with np.load(whole / f"{rank}.npz") as one, np.load(killed / f"{rank}.npz") as other:
            assert max(np.abs(one[key].astype("float64") - other[key]).max() for key in one) == 0


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="process groups are those of PyTorch")
def test_a_process_group_serves_the_device(monkeypatch):
    served = {"get_backend_config": lambda: "cuda:nccl", "is_initialized": lambda: True}
    group = types.SimpleNamespace(**served, get_rank=lambda: 0, get_world_size=lambda: 2)
    monkeypatch.setattr("keras_gen.core.replicas.processes.group", lambda: group)
    model = NICE(2, [8], None, seed=0)
    model.compile("sgd")
    with pytest.raises(ValueError, match=r"`process group` must serve the device .* cpu.* Received: .*=cuda:nccl"):
        model.fit(np.zeros((4, 8), "float32"), verbose=0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="strategies are those of TensorFlow")
def test_a_model_is_made_in_the_scope_that_trains_it():
    import tensorflow as tf

    model = NICE(2, [8], None, seed=0)
    model.compile("sgd")
    with (
        tf.distribute.MirroredStrategy(["CPU:0"]).scope(),
        pytest.raises(ValueError, match="`model` must be made within"),
    ):
        model.fit(np.zeros((4, 8), "float32"), verbose=0)


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="its processes are tested above")
def test_processes_on_several_machines_are_one_model(tmp_path, request):
    if not request.config.getoption("--all-cases"):
        pytest.skip("runs with --all-cases")
    engine = MACHINES[keras.backend.backend()]
    names = table() if engine == "workers" else HOSTS
    [one] = processes("one", tmp_path / "one", names, 1)
    first, second = processes(engine, tmp_path / "run", names, 2)
    offenders = compare(engine, one, first, second)
    assert not offenders, "\n".join(offenders)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="weights are split on JAX alone")
@pytest.mark.parametrize(("engine", "share"), [("model_parallel", 0.8), ("fully_sharded", 0.7)])
def test_weights_split_over_devices_learn_the_same(tmp_path, request, engine, share):
    names = ["dit"]
    if request.config.getoption("--all-cases"):
        names = ["dit", "mmdit", "transformer", "unet", "unet_condition"]
    elif engine == "fully_sharded":
        pytest.skip("runs with --all-cases")
    [result] = processes(engine, tmp_path / "run", names, 1)
    offenders = []
    for name in names:
        split, whole = result["all"][name], result["one"][name]
        apart, where = difference(split, whole)
        if apart > 5e-6:
            offenders.append(f"{name}: {where} is {apart:.1e} from that of one device")
        if split["bytes"] > share * whole["bytes"]:
            offenders.append(f"{name}: a device has {split['bytes']} of {whole['bytes']} bytes")
    assert not offenders, "\n".join(offenders)
    # Tokens are summed after attention and after the hidden layer, and gradients as often; the kernel of queries, keys
    # and values is exchanged once in each direction.
    exchanged = {kind: int(count) for kind, count in result["exchanged"]["transformer_block"].items()}
    expected = {"all-to-all": 2, "collective-permute": 0, "sums of tokens": 4, "tokens otherwise": 0}
    assert exchanged == expected


def test_a_layout_needs_an_axis_of_the_mesh():
    mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "model"], devices=["cpu:0"])
    for network in (CodeTransformer, DiT, MMDiT, UNet, UNet2DCondition):
        with pytest.raises(ValueError, match="`axis` must be an axis of the mesh"):
            network.layout_map(mesh, "heads")
        with pytest.raises(ValueError, match="`mesh` must be a keras.distribution.DeviceMesh"):
            network.layout_map(None)
