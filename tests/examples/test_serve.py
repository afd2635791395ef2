"""The service of `examples/serve.py`, with real clients over the loopback: bounded in requests and in time."""

import base64
import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from laws import ddpm

from keras_gen.core.fixtures import randomize_weights
from keras_gen.samplers import DDIMSampler

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.one_backend

ROOT = pathlib.Path(__file__).parents[2]
SERVE = ROOT / "examples" / "serve.py"
LIMITS = ("--steps", "10", "--max-steps", "20", "--max-n", "4", "--batch", "8", "--queue", "16")


class Service:
    """A running service, and what it answers."""

    def __init__(self, file):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(SERVE), str(file), "--port", str(self.port), *LIMITS]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.output = None
        for _ in range(300):
            with contextlib.suppress(OSError):
                if self.ask("GET", "/healthz")[0] == 200:
                    return
            if self.process.poll() is not None:
                break
            time.sleep(0.2)
        self.stop()
        raise RuntimeError(self.output)

    def stop(self):
        self.process.terminate()
        self.output = self.process.communicate(timeout=30)[0].decode()
        return self.process.returncode

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def sample(self, accept="image/png", **fields):
        return self.ask("POST", "/sample", json.dumps(fields), accept=accept)

    def at_once(self, many):
        with concurrent.futures.ThreadPoolExecutor(len(many)) as pool:
            return list(pool.map(lambda fields: self.sample(**fields), many))


@pytest.fixture(scope="module")
def model():
    result = ddpm(num_classes=10)
    randomize_weights(result)
    return result


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("serve") / "model.keras"
    model.save(file)
    running = Service(file)
    yield running
    if running.process.poll() is None:
        running.stop()


def pixels(png):
    return np.array(Image.open(io.BytesIO(png))).astype(int)


def expected(model, seed, condition, steps=10):
    image = model.sample(1, DDIMSampler(steps, clip_x0=1.0), condition, seed=seed, verbose=0)[0]
    return np.clip((image[..., 0] + 1) * 127.5, 0, 255).round().astype(int)


def test_each_of_many_clients_gets_the_image_of_its_seed(service, model):
    asked = [{"seed": 40 + k, "condition": k % 10} for k in range(8)]
    alone = [service.sample(**fields) for fields in asked]
    together = service.at_once(asked)
    for fields, (status, headers, png), (_, _, same) in zip(asked, together, alone, strict=True):
        assert status == 200
        assert (headers["Content-Type"], headers["X-Seeds"]) == ("image/png", str(fields["seed"]))
        assert png == same  # to the byte, whatever it was batched with
        # A batch of one adds in another order: a value on the border of two levels may fall on the other side.
        difference = np.abs(pixels(png) - expected(model, **fields))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.02
    assert len({png for _, _, png in together}) == 8


def test_several_images_have_seeds_in_a_row(service, model):
    status, headers, png = service.sample(n=3, seed=5, condition=3)
    assert (status, headers["X-Seeds"]) == (200, "5,6,7")
    pictures = np.split(pixels(png), 3, axis=1)
    for k, picture in enumerate(pictures):
        assert np.abs(picture - expected(model, 5 + k, 3)).max() <= 1
    status, _, body = service.sample("application/json", n=3, seed=5, condition=3)
    answer = json.loads(body)
    assert (status, answer["seeds"]) == (200, [5, 6, 7])
    for picture, text in zip(pictures, answer["images"], strict=True):
        np.testing.assert_array_equal(pixels(base64.b64decode(text)), picture)


def test_steps_of_a_request(service, model):
    _, _, png = service.sample(seed=5, condition=3, steps=4)
    assert np.abs(pixels(png) - expected(model, 5, 3, steps=4)).max() <= 1
    assert np.abs(pixels(png) - expected(model, 5, 3)).max() > 1


def test_without_a_seed_each_request_draws_one(service):
    (_, one, first), (_, other, second) = (service.sample(condition=0) for _ in range(2))
    assert one["X-Seeds"] != other["X-Seeds"]
    assert first != second
    assert service.sample(condition=0, seed=int(one["X-Seeds"]))[2] == first


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ('{"n": 5, "condition": 3}', "`n` must be at most 4. Received: n=5"),
        ('{"n": 0, "condition": 3}', "`n` must be an integer >= 1. Received: n=0"),
        ('{"n": true, "condition": 3}', "`n` must be an integer >= 1. Received: n=True"),
        ('{"steps": 21, "condition": 3}', "`steps` must be at most 20. Received: steps=21"),
        ('{"seed": -1, "condition": 3}', "`seed` must be an integer >= 0. Received: seed=-1"),
        ('{"seed": "1", "condition": 3}', "`seed` must be an integer >= 0. Received: seed='1'"),
        ('{"seed": 9223372036854775808, "condition": 3}', "`seed` must be below 2**63."),
        ("{}", "`condition` must be given: the network takes a condition"),
        ('{"condition": "cat"}', "`condition` must be numbers: give integers for names of classes"),
        ('{"condition": 3, "size": 8}', "`body` must have no fields but n, seed, condition, steps. Received: "),
        ("[1]", "`body` must be a JSON object. Received: body=list"),
        ("{", "`body` must be a JSON object. Received: "),
        ("[" * 60_000, "`body` must be a JSON object. Received: "),
        (b"\xff\xfe\x00", "`body` must be a JSON object. Received: "),
        (" " * 70_000, "`body` must have at most 65536 bytes. Received: body=more"),
    ],
)
def test_refused(service, body, rule):
    status, _, answer = service.ask("POST", "/sample", body)
    assert status == 422
    assert json.loads(answer)["error"].startswith(rule)


def test_a_condition_that_fails_fails_alone(service):
    """The network of this model does not say how many classes it knows."""
    asked = [{"seed": k, "condition": 3} for k in range(4)]
    answers = service.at_once([*asked, {"seed": 9, "condition": 99}])
    assert [status for status, _, _ in answers] == [200, 200, 200, 200, 500]
    assert [png for _, _, png in answers[:4]] == [service.sample(**fields)[2] for fields in asked]


def test_a_full_queue_refuses_at_once_and_answers_again(service):
    answers = service.at_once([{"n": 4, "seed": k, "condition": 3, "steps": 20} for k in range(16)])
    counts = {status: sum(status == other for other, _, _ in answers) for status, _, _ in answers}
    assert counts.keys() == {200, 503}, counts
    refused = next((headers, body) for status, headers, body in answers if status == 503)
    assert refused[0]["Retry-After"] == "1"
    assert json.loads(refused[1])["error"] == "16 images wait already: ask again later"
    assert service.sample(seed=1, condition=3)[0] == 200


def test_other_addresses(service):
    status, _, body = service.ask("GET", "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok", "waiting": 0})
    assert service.ask("GET", "/sample")[0] == 405
    assert service.ask("GET", "/")[0] == 404


def test_sigterm_finishes_what_runs(service):  # the last one: it ends the service
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(service.sample, n=4, seed=k, condition=3, steps=20) for k in range(4)]
        for _ in range(200):
            if json.loads(service.ask("GET", "/healthz")[2])["waiting"]:
                break
            time.sleep(0.002)
        os.kill(service.process.pid, signal.SIGTERM)
        answers = [future.result(timeout=30) for future in asked]
    assert [status for status, _, _ in answers] == [200] * 4
    service.output = service.process.communicate(timeout=30)[0].decode()
    assert service.process.returncode in (0, -signal.SIGTERM)  # uvicorn raises the signal again after it has finished
    assert "Finished server process" in service.output
    with pytest.raises(ConnectionRefusedError):
        service.ask("GET", "/healthz")


def test_without_a_model_it_says_what_is_missing():
    result = subprocess.run([sys.executable, str(SERVE)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    assert "`model` must be given: the .keras file of a diffusion model" in result.stderr
