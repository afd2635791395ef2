"""All rows on all backends, in separate processes; results are kept, so that an interrupted run can resume."""

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import environment, table
from benchmarks.contest import OURS
from benchmarks.rows import ROWS

LONGEST = 1800  # seconds for one process


class CommandError(Exception):
    """A process ended without a result."""


@dataclasses.dataclass
class Task:
    """The work of one process: times of rows, or memory of one contender of a row."""

    names: tuple[str, ...]
    backend: str
    contender: str | None = None

    def __str__(self) -> str:
        return " ".join([*self.names, self.backend, *([self.contender] if self.contender else [])])


def run(arguments: argparse.Namespace) -> None:
    """Runs the rows and prints the table; writes it for full runs. Exits with an error if a row failed."""
    backends = [arguments.backend] if arguments.backend else list(environment.BACKENDS)
    groups = _modules() if arguments.quick else [(name,) for name in ROWS]
    tasks = [Task(names, backend) for names in groups for backend in backends]
    results = _results(arguments, "full", tasks, table.text)
    _show(arguments, "timings", _conditions(arguments, f"medians of {arguments.repeats} turns"), table.times(results))
    failed = [f"{result['name']} on {result['backend']}" for result in results if not result.get("agree")]
    if failed:
        sys.exit(f"failed, or outputs differ: {', '.join(failed)}")


def _modules() -> list[tuple[str, ...]]:
    """Returns the names by module: in quick runs these share a process, as imports take half of the time."""
    names: dict[str, list[str]] = {}
    for name, row in ROWS.items():
        names.setdefault(row.module, []).append(name)
    return [tuple(group) for group in names.values()]


def run_memory(arguments: argparse.Namespace) -> None:
    """Measures memory and first runs: ours on every backend, the peers with Keras on PyTorch only."""
    tasks = []
    for name in (name for name, row in ROWS.items() if row.beyond is None):
        tasks += [Task((name,), backend, OURS) for backend in environment.BACKENDS]
        tasks += [Task((name,), table.BESIDE, peer) for peer in ROWS[name].peers]
    results = _results(arguments, "memory", tasks, table.memory_text)
    _show(arguments, "memory", _conditions(arguments, "each in a process of its own"), table.memory(results))
    failed = [result for result in results if "error" in result]
    if failed:
        sys.exit(f"failed: {', '.join('{contender} of {name} on {backend}'.format_map(result) for result in failed)}")


def command(names: Sequence[str], backend: str, arguments: argparse.Namespace, *more: str) -> list[str]:
    """Returns the command that runs rows with the options of this run."""
    options = ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats), "--json", *more]
    options += ["--quick"] if arguments.quick else []
    return [sys.executable, "-m", "benchmarks", *names, "--backend", backend, *options]


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
    only = [] if task.contender is None else ["--memory", "--only", task.contender]
    return last_lines(command(task.names, task.backend, arguments, *only), len(task.names))


def _results(
    arguments: argparse.Namespace, kind: str, tasks: list[Task], text: Callable[[dict[str, Any]], str]
) -> list[dict[str, Any]]:
    """Returns the results of tasks; with unchanged libraries, kept results are not measured again."""
    folder = environment.RUNS / f"{kind}{'_quick' if arguments.quick else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{task}_{arguments.threads}_{arguments.repeats}.json".replace(" ", "_") for task in tasks]
    if not arguments.resume:
        for path in paths:
            path.unlink(missing_ok=True)
    results, conditions = [], environment.machine()
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
    """Measures a task; if that fails, each of its rows separately."""
    try:
        return measured(arguments, task)
    except CommandError as error:
        if len(task.names) == 1:
            return [dataclasses.asdict(task) | {"name": task.names[0], "error": str(error)}]
        alone = [dataclasses.replace(task, names=(name,)) for name in task.names]
        return [result for part in alone for result in _measured_apart(arguments, part)]


def _show(arguments: argparse.Namespace, section: str, conditions: str, rows: str) -> None:
    text = f"{conditions}\n\n{rows}"
    print(f"\n{text}")
    if not arguments.quick and not arguments.backend:
        table.write_section(section, text)


def _conditions(arguments: argparse.Namespace, how: str) -> str:
    found = environment.machine()
    size = ", small cases" if arguments.quick else ""
    lines = [
        f"{found['machine']}; {arguments.threads} threads, {how}{size}, {datetime.date.today()}.",
        f"{found['versions']}.",
    ]
    return "\n".join(textwrap.fill(line, 118) for line in lines)
