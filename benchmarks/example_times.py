"""Seconds of processor that the default run of every example takes, on one thread, from its first epochs.

    python -m benchmarks.example_times                       # every example on every backend; writes examples.md
    python -m benchmarks.example_times ddpm gan --jobs 2     # some of them, two side by side; writes their cells
    python -m benchmarks.example_times ddpm --backend jax --whole

Each example runs in a process and a folder of its own, as a user starts it, except that each `fit` ends once it has
trained for three epochs, and for two seconds beyond the first one, which compiles. Its time is that of the process and
of those it started, and for every epoch left out the mean of those after the first, without the pictures that callbacks
would draw in it. `--whole` leaves nothing out. Processor time is nearly what one thread takes on an idle machine; other
work beside it makes it up to a third longer.
"""

import argparse
import concurrent.futures
import functools
import inspect
import json
import os
import pathlib
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import environment, table
from benchmarks.devices import DEVICES

EXAMPLES = environment.ROOT / "examples"
PAGE = pathlib.Path(__file__).parent / "examples.md"
LIMIT = 300  # seconds
EPOCHS, SECONDS = 3, 2.0


def names() -> list[str]:
    """Returns the names of the scripts, without the service, which never ends."""
    scripts = sorted(path for path in EXAMPLES.glob("*.py") if "\nif __name__" in path.read_text(encoding="utf-8"))
    return [path.stem for path in scripts if path.stem != "serve"]


def measure(name: str, backend: str, whole: bool) -> None:
    """Runs an example in this process and prints its time as JSON in the last line."""
    environment.prepare(backend, 1, DEVICES["cpu"])
    environment.limit_torch(1)
    left_out: list[float] = []
    if not whole:
        _shorten_fits(left_out)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = [str(EXAMPLES / f"{name}.py")]
        sys.path.insert(0, str(EXAMPLES))
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:  # of one that started processes
            if end.code:
                raise
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in used)
    result = {"name": name, "backend": backend, "measured": seconds, "left_out": sum(left_out), "whole": whole}
    print(json.dumps(result | {"wall": time.monotonic() - began}))


def _shorten_fits(left_out: list[float]) -> None:
    """Lets every `fit` end early, and appends the time of the epochs that it leaves out to `left_out`.

    Those of equally many epochs end after equally many: an example may lay their histories side by side.
    """
    import keras

    lengths: dict[int, int] = {}

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            self.ends = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.ends.append(time.process_time())
            length = lengths.get(self.params["epochs"])
            is_enough = len(self.ends) >= EPOCHS and self.ends[-1] - self.ends[0] >= SECONDS
            if is_enough if length is None else len(self.ends) >= length:
                self.model.stop_training = True

        def on_train_end(self, logs: Any = None) -> None:
            missing = self.params["epochs"] - len(self.ends)
            if missing:
                lengths[self.params["epochs"]] = len(self.ends)
                left_out.append(missing * (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1))

    def shortened(fit: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fit)
        def short_fit(*args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(fit).bind(*args, **kwargs)
            bound.arguments["callbacks"] = [*(bound.arguments.get("callbacks") or []), Clock()]
            return fit(*bound.args, **bound.kwargs)

        return short_fit

    keras.Model.fit = shortened(keras.Model.fit)


def run(arguments: argparse.Namespace) -> None:
    """Measures in processes of their own, and writes each result into the table."""
    known = read_table()
    backends = [arguments.backend] if arguments.backend else list(environment.BACKENDS)
    tasks = [(name, backend) for name in arguments.names or names() for backend in backends]
    tasks = [task for task in tasks if not (arguments.resume and known.get(task))]
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        runs = {pool.submit(_apart, *task, arguments.whole): task for task in tasks}
        for done in concurrent.futures.as_completed(runs):
            name, backend = runs[done]
            result, error = done.result()
            if error:
                print(f"{name} on {backend}: FAILED\n{error}", flush=True)
                continue
            print("{name} on {backend}: {measured:.0f} s, and {left_out:.0f} s left out".format_map(result), flush=True)
            write_table(read_table() | {(name, backend): cell(result)})


def _apart(name: str, backend: str, whole: bool) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "benchmarks.example_times", name, "--backend", backend, "--here"]
    done = subprocess.run(command + ["--whole"] * whole, cwd=environment.ROOT, capture_output=True, text=True)
    if done.returncode:
        return {}, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1]), ""


def cell(result: dict[str, Any]) -> str:
    """Returns the seconds of a run as the table has them."""
    seconds = result["measured"] + result["left_out"]
    text = f"{seconds:.0f}" + " *" * result["whole"]
    return f"**{text}**" if seconds > LIMIT else text


def read_table() -> dict[tuple[str, str], str]:
    """Returns the cells of the table by example and backend."""
    cells = {}
    for name, *texts in re.findall(r"^\| `(\w+)\.py` \|(.*?)\|(.*?)\|(.*?)\|$", PAGE.read_text(encoding="utf-8"), re.M):
        cells |= {(name, backend): text.strip() for backend, text in zip(environment.BACKENDS, texts, strict=True)}
    return cells


def write_table(cells: dict[tuple[str, str], str]) -> None:
    """Writes the table of all examples."""
    lines = [f"| example | {' | '.join(environment.BACKENDS.values())} |", "| --- | --- | --- | --- |"]
    for name in names():
        lines.append(
            f"| `{name}.py` | {' | '.join(cells.get((name, backend), '') for backend in environment.BACKENDS)} |"
        )
    table.write_section("times", "\n".join(lines), PAGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a script without .py; default: all")
    parser.add_argument("--backend", choices=environment.BACKENDS, help="default: all three")
    parser.add_argument("--jobs", type=int, default=1, help="examples that run side by side; default: 1")
    parser.add_argument("--whole", action="store_true", help="run every epoch")
    parser.add_argument("--resume", action="store_true", help="only what the table has not")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one example, in this process
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(names())
    if unknown:
        parser.error(f"{unknown.pop()} is not an example; NAME is one or more of {', '.join(names())}")
    if arguments.here:
        measure(arguments.names[0], arguments.backend, arguments.whole)
    else:
        run(arguments)


if __name__ == "__main__":
    main()
