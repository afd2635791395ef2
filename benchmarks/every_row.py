"""All rows on all backends, in separate processes; results are kept, so that an interrupted run can resume."""

import argparse
import dataclasses
import datetime
import importlib.util
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import environment, table
from benchmarks.contest import OURS
from benchmarks.devices import DEVICES
from benchmarks.rows import ROWS

LONGEST = 1800  # seconds for one process


class CommandError(Exception):
    """A process ended without a result."""


@dataclasses.dataclass
class Task:
    """The work of one process: times of rows, or memory of one contender of a row; without `mode`, in all modes."""

    names: tuple[str, ...]
    backend: str
    device: str
    mode: str | None = None
    contender: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, [*self.names, self.backend, self.mode, self.contender]))

    def single(self) -> list["Task"]:
        """Returns a task for each row and mode."""
        return [
            dataclasses.replace(self, names=(name,), mode=mode)
            for name in self.names
            for mode in ROWS[name].modes_on(self.device, self.mode)
        ]


def run(arguments: argparse.Namespace) -> None:
    """Runs the rows and prints the table; writes it for full runs. Exits with an error if a row failed."""
    backends = [arguments.backend] if arguments.backend else installed()
    names = _names(arguments)
    groups = _by_module(names) if arguments.quick else [(name,) for name in names]
    tasks = [Task(group, backend, arguments.device, arguments.mode) for group in groups for backend in backends]
    results = _results(arguments, "full", tasks, table.text)
    how = f"medians of {arguments.repeats} turns"
    _show(arguments, "timings", _conditions(arguments, how), table.times(results, arguments.device))
    failed = ["{name}, {mode}, {backend}".format_map(result) for result in results if not result.get("agree")]
    if failed:
        sys.exit(f"failed, or outputs differ: {'; '.join(failed)}")


def installed() -> list[str]:
    """Returns the backends that are installed."""
    return [backend for backend in environment.BACKENDS if importlib.util.find_spec(backend)]


def _names(arguments: argparse.Namespace) -> list[str]:
    """Returns the rows of the device's table, in quick runs all rows, that have the mode which is asked for."""
    of_table = [name for name, row in ROWS.items() if arguments.quick or arguments.device in row.tables]
    return [name for name in of_table if ROWS[name].modes_on(arguments.device, arguments.mode)]


def _by_module(names: list[str]) -> list[tuple[str, ...]]:
    """Returns the names by module: in quick runs these share a process, as imports take half of the time."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(ROWS[name].module, []).append(name)
    return [tuple(group) for group in groups.values()]


def run_memory(arguments: argparse.Namespace) -> None:
    """Measures memory and first runs: ours on every backend, the peers with Keras on PyTorch only."""
    names = [name for name in _names(arguments) if ROWS[name].beyond is None]
    tasks = [task for name in names for task in memory_tasks(arguments, name, installed(), table.BESIDE)]
    results = _results(arguments, "memory", tasks, table.memory_text)
    _show(arguments, "memory", _conditions(arguments, "each in a process of its own"), table.memory(results))
    failed = [result for result in results if "error" in result]
    if failed:
        sys.exit(
            f"failed: {'; '.join('{contender} of {name}, {mode}, {backend}'.format_map(result) for result in failed)}"
        )


def memory_tasks(arguments: argparse.Namespace, name: str, backends: list[str], beside: str) -> list[Task]:
    """Returns the tasks of a row: ours on every backend, the peers beside one, in each mode."""
    contenders = [(backend, OURS) for backend in backends] + [(beside, peer) for peer in ROWS[name].peers]
    return [
        Task((name,), backend, arguments.device, mode, contender)
        for mode in ROWS[name].modes_on(arguments.device, arguments.mode)
        for backend, contender in contenders
    ]


def command(names: Sequence[str], backend: str, arguments: argparse.Namespace, *more: str) -> list[str]:
    """Returns the command that runs rows with the options of this run."""
    options = ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats), "--json", *more]
    options += ["--quick"] if arguments.quick else []
    where = ["--backend", backend, "--device", arguments.device]
    return [sys.executable, "-m", "benchmarks", *names, *where, *options]


def last_lines(command: list[str], count: int) -> list[dict[str, Any]]:
    """Runs a command and returns the JSON of its last lines; raises `CommandError` with its output on failure."""
    try:
        done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, timeout=LONGEST)
        found = [json.loads(line) for line in done.stdout.splitlines()[-count:]]
    except subprocess.TimeoutExpired:
        raise CommandError(f"not done after {LONGEST} s") from None
    except json.JSONDecodeError:
        found = []
    if len(found) < count or done.returncode < 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise CommandError(f"exit code {done.returncode}\n{said}")
    return found


def measured(arguments: argparse.Namespace, task: Task) -> list[dict[str, Any]]:
    """Returns the times of a task's rows, or the memory of one contender of a row."""
    mode = ["--mode", task.mode] if task.mode else []
    only = ["--memory", "--only", task.contender] if task.contender else []
    return last_lines(command(task.names, task.backend, arguments, *mode, *only), len(task.single()))


def _results(
    arguments: argparse.Namespace, kind: str, tasks: list[Task], text: Callable[[dict[str, Any]], str]
) -> list[dict[str, Any]]:
    """Returns the results of tasks; with unchanged libraries, kept results are not measured again."""
    folder = environment.RUNS / f"{arguments.device}_{kind}{'_quick' if arguments.quick else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{task}_{arguments.threads}_{arguments.repeats}.json".replace(" ", "_") for task in tasks]
    if not arguments.resume:
        for path in paths:
            path.unlink(missing_ok=True)
    results, conditions = [], environment.machine(DEVICES[arguments.device])
    for number, (task, path) in enumerate(zip(tasks, paths, strict=True), 1):
        print(f"[{number}/{len(tasks)}] {task} ...", end=" ", flush=True)
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("conditions") == conditions:
            results += kept["results"]
            print("kept", flush=True)
            continue
        found = _measured_apart(arguments, task)
        results += found
        print("measured", *map(text, found), sep="\n", flush=True)
        if all(result.get("agree", "error" not in result) for result in found):
            environment.write_whole(path, json.dumps({"conditions": conditions, "results": found}))
    return results


def _measured_apart(arguments: argparse.Namespace, task: Task) -> list[dict[str, Any]]:
    """Measures a task; if that fails, each of its rows and modes separately."""
    try:
        return measured(arguments, task)
    except CommandError as error:
        alone = task.single()
        if len(alone) == 1:
            return [dataclasses.asdict(alone[0]) | {"name": task.names[0], "error": str(error)}]
        return [result for part in alone for result in _measured_apart(arguments, part)]


def _show(arguments: argparse.Namespace, section: str, conditions: str, rows: str) -> None:
    text = f"{conditions}\n\n{rows}"
    print(f"\n{text}")
    if not (arguments.quick or arguments.backend or arguments.mode):
        table.write_section(f"{arguments.device} {section}", text)


def _conditions(arguments: argparse.Namespace, how: str) -> str:
    found = environment.machine(DEVICES[arguments.device])
    size = ", small cases" if arguments.quick else ""
    lines = [
        f"{found['machine']}; {arguments.threads} threads, {how}{size}, {datetime.date.today()}.",
        f"{found['versions']}.",
    ]
    return "\n".join(textwrap.fill(line, 118) for line in lines)
