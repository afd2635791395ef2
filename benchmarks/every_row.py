"""All rows on all backends, each in a process of its own; what is done is kept, so that a killed run can go on."""

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from benchmarks import environment, table
from benchmarks.contest import OURS
from benchmarks.rows import ROWS

LONGEST = 1800  # seconds for one row on one backend


class CommandError(Exception):
    """A process ended without a result."""


def run(arguments: argparse.Namespace) -> None:
    """Runs the rows, prints the table, and writes it unless `--quick`. Ends with an error if a row did."""
    backends = [arguments.backend] if arguments.backend else list(environment.BACKENDS)
    tasks = [(name, backend) for name in ROWS for backend in backends]
    results = _results(arguments, "full", tasks, table.text)
    _show(arguments, "timings", _conditions(arguments, f"medians of {arguments.repeats} turns"), table.times(results))
    failed = [f"{result['name']} on {result['backend']}" for result in results if not result.get("agree")]
    if failed:
        sys.exit(f"failed, or outputs differ: {', '.join(failed)}")


def run_memory(arguments: argparse.Namespace) -> None:
    """Measures memory and first runs: ours on every backend, the peers beside Keras on PyTorch alone."""
    tasks = []
    for name in (name for name, row in ROWS.items() if row.beyond is None):
        tasks += [(name, backend, OURS) for backend in environment.BACKENDS]
        tasks += [(name, table.BESIDE, peer) for peer in ROWS[name].peers]
    results = _results(arguments, "memory", tasks, table.memory_text)
    _show(arguments, "memory", _conditions(arguments, "each in a process of its own"), table.memory(results))
    failed = [f"{result['contender']} of {result['name']}" for result in results if "error" in result]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def command(name: str, backend: str, arguments: argparse.Namespace, *more: str) -> list[str]:
    """Returns the command that runs one row as this run would."""
    options = ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats), "--json", *more]
    options += ["--quick"] if arguments.quick else []
    return [sys.executable, "-m", "benchmarks", name, "--backend", backend, *options]


def last_line(command: list[str]) -> dict[str, Any]:
    """Runs a command and returns the JSON of its last line; raises `CommandError` with what it said instead."""
    try:
        done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, timeout=LONGEST)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        raise CommandError(f"not done after {LONGEST} s") from None
    except (IndexError, json.JSONDecodeError):
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise CommandError(f"exit code {done.returncode}\n{said}") from None


def measured(arguments: argparse.Namespace, name: str, backend: str, contender: str | None) -> dict[str, Any]:
    """Returns the times of a row, or what one contender of it needs."""
    only = [] if contender is None else ["--memory", "--only", contender]
    return last_line(command(name, backend, arguments, *only))


def _results(
    arguments: argparse.Namespace,
    kind: str,
    tasks: list[tuple[str, ...]],
    text: Callable[[dict[str, Any]], str],
) -> list[dict[str, Any]]:
    """Returns the results of tasks, of name, backend and perhaps contender; what is kept is not measured again."""
    folder = environment.RUNS / f"{kind}{'_quick' if arguments.quick else ''}"
    if not arguments.resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for number, task in enumerate(tasks, 1):
        print(f"[{number}/{len(tasks)}] {' '.join(task)} ...", end=" ", flush=True)
        path = folder / f"{'_'.join(task).replace(' ', '_')}_{arguments.threads}_{arguments.repeats}.json"
        if path.exists():
            results.append(json.loads(path.read_text()))
            print("kept", flush=True)
            continue
        results.append(_result(arguments, *task))
        if "error" in results[-1]:
            print(f"FAILED\n{results[-1]['error']}", flush=True)
        else:
            environment.write_whole(path, json.dumps(results[-1]))
            print(f"done\n{text(results[-1])}", flush=True)
    return results


def _result(arguments: argparse.Namespace, name: str, backend: str, contender: str | None = None) -> dict[str, Any]:
    try:
        return measured(arguments, name, backend, contender)
    except CommandError as error:
        return {"name": name, "backend": backend, "contender": contender, "error": str(error)}


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
