"""An HTTP service that draws images from a diffusion model by DDIM (https://kexue.fm/archives/9181), in batches.

    pip install -e '.[serve]'
    python examples/serve.py runs/ddpm/model.keras --port 8000
    curl -d '{"n": 4, "seed": 5, "condition": 3, "steps": 20}' localhost:8000/sample > images.png

POST /sample takes a JSON object of `n` images (1), the `seed` (drawn), the `condition` of a conditional model, and the
`steps` of the DDIM sampler. It answers with a PNG, the images side by side, or, if the request accepts
"application/json", with `{"seeds": [...], "images": [PNG in base64, ...]}`. Image k has the seed `seed + k`: it is the
one of `model.sample(1, sampler, condition, seed=seed + k)`. GET /healthz says that the service is running, and how many
images are waiting.

A batch is always as large as `--batch`, filled up with copies of a row, so that the sums of the network are added in
the same order whatever an image is batched with: a seed gives the same bytes at any load. (`sample(1)`, a batch of
one, adds in another order: about 1e-6 apart, which a PNG shows where a value lies on the border of two levels.)

A bad request is answered with 422 and the rule that it breaks, a request that finds the queue full with 503. On SIGTERM
the service finishes the requests that it has accepted, then exits.
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import dataclasses
import io
import json
import logging
import pathlib
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import keras
import numpy as np
import uvicorn
from PIL import Image
from shared import as_count, load_model
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keras_gen.core.checks import check, check_integer
from keras_gen.ops import image_grid
from keras_gen.samplers import ClassifierFreeGuidance, DDIMSampler

GATHERING = 0.005  # seconds that a first request waits for others: clients that were answered together ask again
MAX_BODY = 2**16
FIELDS = ("n", "seed", "condition", "steps")
LOG = logging.getLogger("uvicorn.error")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the service allows: images of a batch, of a request and in the queue, and steps."""

    batch: int = 8
    n: int = 8
    queue: int = 64
    steps: int = 100


@dataclasses.dataclass(frozen=True)
class Row:
    """One image that was asked for."""

    seed: int
    condition: Any
    steps: int


class Drawing:
    """Draws rows from a model, in batches of one size.

    Args:
        model: a trained diffusion model of gray or color images.
        batch: int >= 1. Size of all batches.
        guidance: a `Guidance` or `None`.
    """

    def __init__(self, model: keras.Model, batch: int, guidance: Any = None):
        self.model, self.batch, self.guidance = model, batch, guidance

    def sampler(self, steps: int) -> DDIMSampler:
        """Returns the sampler of all requests. Latents have no bound to clip to."""
        return DDIMSampler(steps, clip_x0=None if hasattr(self.model, "autoencoder") else 1.0)

    def check(self, row: Row) -> None:
        """Raises `ValueError` if the model cannot draw the row."""
        of_latents = getattr(self.model, "diffusion", self.model)
        of_latents.check_sampling(1, self.sampler(row.steps), self.conditions([row]), self.guidance)

    def conditions(self, rows: Sequence[Row]) -> np.ndarray | None:
        """Returns the conditions of the rows as an array, `None` if they have none."""
        return None if rows[0].condition is None else np.array([row.condition for row in rows])

    def __call__(self, rows: Sequence[Row]) -> np.ndarray:
        """Returns the images of at most `batch` rows of equal `steps`."""
        full = [*rows, *[rows[-1]] * (self.batch - len(rows))]
        images = self.model.sample(
            self.batch,
            self.sampler(rows[0].steps),
            self.conditions(full),
            self.guidance,
            seed=[row.seed for row in full],
            batch_size=self.batch,
            verbose=0,
        )
        return images[: len(rows)]


class FullQueueError(Exception):
    """More images wait than the service allows."""


class Batches:
    """The queue of rows, and the worker that draws those of equal `steps` together, the oldest first.

    Args:
        draw: function of a list of rows that returns their images.
        limits: the `Limits`.
    """

    def __init__(self, draw: Any, limits: Limits):
        self.draw, self.limits = draw, limits
        self.waiting: collections.deque[tuple[Row, asyncio.Future[np.ndarray]]] = collections.deque()
        self.arrived = asyncio.Event()

    async def images(self, rows: Sequence[Row]) -> list[np.ndarray]:
        """Returns the images of rows, which wait for their turn; raises `FullQueueError` at once if they cannot."""
        if len(self.waiting) + len(rows) > self.limits.queue:
            raise FullQueueError
        loop = asyncio.get_running_loop()
        drawn = [(row, loop.create_future()) for row in rows]
        self.waiting.extend(drawn)
        self.arrived.set()
        return await asyncio.gather(*(image for _, image in drawn))

    async def work(self) -> None:
        """Draws batch after batch, in a thread: the service goes on answering."""
        while True:
            await self.arrived.wait()
            await self._gather()
            await self._answer(self._next_batch())

    async def _gather(self) -> None:
        """Waits until a batch is full, or no more rows arrive."""
        before = 0
        while before < len(self.waiting) < self.limits.batch:
            before = len(self.waiting)
            await asyncio.sleep(GATHERING)

    def _next_batch(self) -> list[tuple[Row, asyncio.Future[np.ndarray]]]:
        steps = self.waiting[0][0].steps
        batch = [drawn for drawn in self.waiting if drawn[0].steps == steps][: self.limits.batch]
        for drawn in batch:
            self.waiting.remove(drawn)
        if not self.waiting:
            self.arrived.clear()
        return batch

    async def _answer(self, batch: list[tuple[Row, asyncio.Future[np.ndarray]]]) -> None:
        try:
            images = await asyncio.to_thread(self.draw, [row for row, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for drawn in batch:  # one of them, such as a condition that gives NaN, must not fail the others
                await self._answer([drawn])
            return
        for (_, image), value in zip(batch, images, strict=True):
            image.set_result(value)


def rows_of(body: bytes, steps: int, limits: Limits) -> list[Row]:
    """Reads the rows that a request asks for.

    Args:
        body: the JSON of the request.
        steps: int. Number of steps unless the request gives it.
        limits: the `Limits`.

    Raises:
        ValueError: with the rule that the request breaks.
    """
    try:
        fields = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"`body` must be a JSON object. Received: {error}") from error
    check(isinstance(fields, dict), "body", "be a JSON object", type(fields).__name__)
    unknown = sorted(fields.keys() - set(FIELDS))
    check(not unknown, "body", f"have no fields but {', '.join(FIELDS)}", unknown)
    n = _at_most("n", fields.get("n", 1), limits.n)
    steps = _at_most("steps", fields.get("steps", steps), limits.steps)
    seed = check_integer("seed", fields.get("seed", random.randrange(2**31)), at_least=0)
    check(seed < 2**63, "seed", "be below 2**63", seed)
    return [Row(seed + k, fields.get("condition"), steps) for k in range(n)]


def _at_most(name: str, value: Any, highest: int) -> int:
    value = check_integer(name, value)
    check(value <= highest, name, f"be at most {highest}", value)
    return value


def as_png(images: np.ndarray) -> bytes:
    """Encodes images in [-1, 1], side by side."""
    pixels = image_grid(images, columns=len(images), padding=0)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def service(drawing: Drawing, steps: int, limits: Limits) -> Starlette:
    """Returns the application.

    Args:
        drawing: draws the images.
        steps: int. Number of steps of a request that gives none.
        limits: the `Limits`.
    """
    batches = Batches(drawing, limits)

    async def sample(request: Request) -> Response:
        try:
            rows = rows_of(await read(request), steps, limits)
            drawing.check(rows[0])
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 422)
        try:
            images = await batches.images(rows)
        except FullQueueError:
            error = {"error": f"{limits.queue} images wait already: ask again later"}
            return JSONResponse(error, 503, {"Retry-After": "1"})
        except Exception:
            LOG.exception("the model could not draw %s", rows)
            return JSONResponse({"error": "the model could not draw this"}, 500)
        return answer(request, rows, np.stack(images))

    async def healthz(request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": len(batches.waiting)})

    @contextlib.asynccontextmanager
    async def working(app: Starlette) -> AsyncIterator[None]:
        worker = asyncio.create_task(batches.work())
        yield
        worker.cancel()  # all accepted requests are answered by now

    routes = [Route("/sample", sample, methods=["POST"]), Route("/healthz", healthz)]
    return Starlette(routes=routes, lifespan=working)


async def read(request: Request) -> bytes:
    """Reads the body of a request up to a limit."""
    body = b""
    async for part in request.stream():
        body += part
        check(len(body) <= MAX_BODY, "body", f"have at most {MAX_BODY} bytes", "more")
    return body


def answer(request: Request, rows: Sequence[Row], images: np.ndarray) -> Response:
    """Returns the images in the form that the request accepts."""
    seeds = [row.seed for row in rows]
    if "application/json" in request.headers.get("accept", ""):
        pictures = [base64.b64encode(as_png(image[None])).decode() for image in images]
        return JSONResponse({"seeds": seeds, "images": pictures})
    return Response(as_png(images), media_type="image/png", headers={"X-Seeds": ",".join(map(str, seeds))})


def warm_up(drawing: Drawing, steps: int) -> None:
    """Draws one batch before the first request comes: compiles, or on PyTorch traces, which the main thread does."""
    network = getattr(drawing.model, "diffusion", drawing.model).network
    taken = network.inputs[2].shape[1:] if len(getattr(network, "inputs", None) or []) == 3 else None
    condition = None if taken is None else np.zeros([size or 1 for size in taken], "float32" if taken else "int32")
    drawing([Row(0, condition, steps)])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=pathlib.Path, help="the .keras file of a trained diffusion model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=as_count, default=8000)
    parser.add_argument("--steps", type=as_count, default=20, help="of a request that gives none")
    parser.add_argument("--max-steps", type=as_count, default=Limits.steps)
    parser.add_argument("--max-n", type=as_count, default=Limits.n, help="images of one request")
    parser.add_argument("--batch", type=as_count, default=Limits.batch, help="images that are sampled together")
    parser.add_argument("--queue", type=as_count, default=Limits.queue, help="images that may wait")
    parser.add_argument("--guidance", type=float, help="scale of classifier-free guidance, for conditional models")
    arguments = parser.parse_args()
    if arguments.model is None:
        parser.error("`model` must be given: the .keras file of a diffusion model, as `examples/ddpm.py` writes one")
    if arguments.steps > arguments.max_steps:
        parser.error(f"`--steps` must be at most --max-steps, {arguments.max_steps}. Received: {arguments.steps}")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    limits = Limits(arguments.batch, arguments.max_n, arguments.queue, arguments.max_steps)
    guidance = None if arguments.guidance is None else ClassifierFreeGuidance(arguments.guidance)
    drawing = Drawing(load_model(arguments.model), limits.batch, guidance)
    warm_up(drawing, arguments.steps)
    uvicorn.run(service(drawing, arguments.steps, limits), host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
