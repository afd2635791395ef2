"""Several replicas learn what one device learns: on JAX 4 devices, on TensorFlow 2, on PyTorch 2 processes."""

import concurrent.futures
import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from laws.models import MODELS

from keras_gen.models import CodeTransformer, DiT, UNet, UNet2DCondition

TESTS = pathlib.Path(__file__).parent.parent
ENGINE = {"jax": "data_parallel", "tensorflow": "mirrored", "torch": "processes"}
MACHINES = {"jax": "hosts", "tensorflow": "workers"}
PATIENCE = 1200
SHORT = ["probe", "vqvae", "flow_condition", "ddpm"]


def processes(engine, out, names, number):
    """Runs the script in `number` processes, and returns what each wrote, by run, model and key."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(number)}
    command = [sys.executable, str(TESTS / "replicas_run.py"), engine, str(out), *names]
    started = []
    for rank in range(number):
        environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "PYTHONWARNINGS": "ignore"}
        environment |= {**group, "RANK": str(rank)} if number > 1 else {}
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **options))
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        waiting = [pool.submit(process.communicate, timeout=PATIENCE) for process in started]
        for future in concurrent.futures.as_completed(waiting):
            if future.exception() or started[waiting.index(future)].returncode:
                for process in started:
                    process.kill()  # the others would wait for it
        errors = [future.result()[1][-2000:] for future in waiting]
    assert all(process.returncode == 0 for process in started), "\n".join(errors)
    return [results(f"{out}.{rank}.npz") for rank in range(number)]


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


def test_replicas_are_one_model(tmp_path, request):
    engine = ENGINE[keras.backend.backend()]
    is_whole = request.config.getoption("--all-cases")
    names = ["probe", *MODELS] if is_whole else SHORT
    first, *others = processes(engine, tmp_path / "run", names, 2 if engine == "processes" else 1)
    offenders = []
    for name, result in first["all"].items():
        if engine == "data_parallel" or not result["draws"]:
            apart, where = difference(result, first["one"][name])
            if apart > 5e-6:
                offenders.append(f"{name}: {where} is {apart:.1e} from that of one device")
        if result["apart"] > 0:
            offenders.append(f"{name}: two devices have weights {result['apart']:.1e} apart")
        for other in others:
            apart, where = difference(result, other["all"][name])
            if apart > 0:
                offenders.append(f"{name}: {where} of two processes is {apart:.1e} apart")
    assert not offenders, "\n".join(offenders)
    if engine == "processes":
        messages = first["refused"]["messages"]
        assert str(messages["arguments"]).startswith("`arguments` must be the same in all processes")
        assert "`x` must be of as many batches in each process. Received: x=[1, 2] batches" in str(messages["batches"])
    noise, rows = first["all"]["probe"]["noise"].T
    assert len(set(noise)) == len(noise) == 8, "rows of one batch share noise"
    np.testing.assert_array_equal(rows, first["one"]["probe"]["noise"][:, 1])  # in the order of the batch


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="its processes are tested above")
def test_processes_on_several_machines_are_one_model(tmp_path, request):
    if not request.config.getoption("--all-cases"):
        pytest.skip("runs with --all-cases")
    backend = keras.backend.backend()
    [one] = processes(ENGINE[backend], tmp_path / "one", SHORT, 1)
    first, second = processes(MACHINES[backend], tmp_path / "run", SHORT, 2)
    offenders = []
    for name in SHORT:
        apart, where = difference(first["all"][name], second["all"][name])
        if apart > 0:
            offenders.append(f"{name}: {where} of two processes is {apart:.1e} apart")
        if backend == "jax" or not first["all"][name]["draws"]:
            apart, where = difference(first["all"][name], one["one"][name])
            if apart > 5e-6:
                offenders.append(f"{name}: {where} is {apart:.1e} from that of one device")
    assert not offenders, "\n".join(offenders)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="weights are split on JAX alone")
def test_weights_split_over_devices_learn_the_same(tmp_path, request):
    names = ["dit", "unet", "transformer"] if request.config.getoption("--all-cases") else ["dit"]
    [result] = processes("model_parallel", tmp_path / "run", names, 1)
    offenders = []
    for name in names:
        split, whole = result["all"][name], result["one"][name]
        apart, where = difference(split, whole)
        if apart > 5e-6:
            offenders.append(f"{name}: {where} is {apart:.1e} from that of one device")
        if split["bytes"] > 0.8 * whole["bytes"]:
            offenders.append(f"{name}: a device has {split['bytes']} of {whole['bytes']} bytes")
    assert not offenders, "\n".join(offenders)


def test_a_layout_needs_an_axis_of_the_mesh():
    mesh = keras.distribution.DeviceMesh((1, 1), ["batch", "model"], devices=["cpu:0"])
    for network in (CodeTransformer, DiT, UNet, UNet2DCondition):
        with pytest.raises(ValueError, match="`axis` must be an axis of the mesh"):
            network.layout_map(mesh, "heads")
        with pytest.raises(ValueError, match="`mesh` must be a keras.distribution.DeviceMesh"):
            network.layout_map(None)
