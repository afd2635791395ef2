"""All rows on all backends, in processes of their own; what is done is kept, so that a killed run can go on."""

import argparse
import dataclasses
import datetime
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import environment, table
from benchmarks.contest import OURS
from benchmarks.rows import ROWS

LONGEST = 1800  # seconds for one row on one backend


class CommandError(Exception):
    """A process ended without a result."""


@dataclasses.dataclass
class Task:
    """What one process measures: times of rows, or what one contender of a row needs."""

    names: tuple[str, ...]
    backend: str
    contender: str | None = None

    def __str__(self) -> str:
        return " ".join([*self.names, self.backend, *([self.contender] if self.contender else [])])

    def result(self, name: str) -> dict[str, Any]:
        """Returns the keys of the result of one row."""
        return {"name": name, "backend": self.backend, "contender": self.contender}


def run(arguments: argparse.Namespace) -> None:
    """Runs the rows, prints the table, and writes it unless `--quick`. Ends with an error if a row did."""
    backends = [arguments.backend] if arguments.backend else list(environment.BACKENDS)
    groups = _modules() if arguments.quick else [(name,) for name in ROWS]
    tasks = [Task(names, backend) for names in groups for backend in backends]
    results = _results(arguments, "full", tasks, table.text)
    _show(arguments, "timings", _conditions(arguments, f"medians of {arguments.repeats} turns"), table.times(results))
    failed = [f"{result['name']} on {result['backend']}" for result in results if not result.get("agree")]
    if failed:
        sys.exit(f"failed, or outputs differ: {', '.join(failed)}")


def _modules() -> list[tuple[str, ...]]:
    """Returns the names by module: in quick runs these share a process, half of whose time are imports."""
    names: dict[str, list[str]] = {}
    for name, row in ROWS.items():
        names.setdefault(row.module, []).append(name)
    return [tuple(group) for group in names.values()]


def run_memory(arguments: argparse.Namespace) -> None:
    """Measures memory and first runs: ours on every backend, the peers beside Keras on PyTorch alone."""
    tasks = []
    for name in (name for name, row in ROWS.items() if row.beyond is None):
        tasks += [Task((name,), backend, OURS) for backend in environment.BACKENDS]
        tasks += [Task((name,), table.BESIDE, peer) for peer in ROWS[name].peers]
    results = _results(arguments, "memory", tasks, table.memory_text)
    _show(arguments, "memory", _conditions(arguments, "each in a process of its own"), table.memory(results))
    failed = [f"{result['contender']} of {result['name']}" for result in results if "error" in result]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def command(names: Sequence[str], backend: str, arguments: argparse.Namespace, *more: str) -> list[str]:
    """Returns the command that runs rows as this run would."""
    options = ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats), "--json", *more]
    options += ["--quick"] if arguments.quick else []
    return [sys.executable, "-m", "benchmarks", *names, "--backend", backend, *options]


def last_lines(command: list[str], count: int) -> list[dict[str, Any]]:
    """Runs a command and returns the JSON of its last lines; raises `CommandError` with what it said instead."""
    try:
        done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, timeout=LONGEST)
        found = [json.loads(line) for line in done.stdout.splitlines()[-count:]]
    except subprocess.TimeoutExpired:
        raise CommandError(f"not done after {LONGEST} s") from None
    except json.JSONDecodeError:
        found = []
    if len(found) < count:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise CommandError(f"exit code {done.returncode}\n{said}")
    return found


def measured(arguments: argparse.Namespace, task: Task) -> list[dict[str, Any]]:
    """Returns the times of a task's rows, or what one contender of a row needs."""
    only = [] if task.contender is None else ["--memory", "--only", task.contender]
    return last_lines(command(task.names, task.backend, arguments, *only), len(task.names))


def _results(
    arguments: argparse.Namespace, kind: str, tasks: list[Task], text: Callable[[dict[str, Any]], str]
) -> list[dict[str, Any]]:
    """Returns the results of tasks; what is kept is not measured again."""
    folder = environment.RUNS / f"{kind}{'_quick' if arguments.quick else ''}"
    if not arguments.resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for number, task in enumerate(tasks, 1):
        print(f"[{number}/{len(tasks)}] {task} ...", end=" ", flush=True)
        path = folder / f"{task}_{arguments.threads}_{arguments.repeats}.json".replace(" ", "_")
        if path.exists():
            results += json.loads(path.read_text())
            print("kept", flush=True)
            continue
        try:
            found = measured(arguments, task)
        except CommandError as error:
            results += [task.result(name) | {"error": str(error)} for name in task.names]
            print(f"FAILED\n{error}", flush=True)
            continue
        environment.write_whole(path, json.dumps(found))
        results += found
        print("done", *map(text, found), sep="\n", flush=True)
    return results


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
