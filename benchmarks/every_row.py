"""All rows on all backends, each in a process of its own; what is done is kept, so that a killed run can go on."""

import argparse
import datetime
import json
import shutil
import subprocess
import sys
import textwrap
from typing import Any

from benchmarks import environment, table
from benchmarks.rows import ROWS

LONGEST = 1800  # seconds for one row on one backend


def run(arguments: argparse.Namespace) -> None:
    """Runs the rows, prints the table, and writes it unless `--quick`. Ends with an error if a row did."""
    folder = environment.RUNS / ("quick" if arguments.quick else "full")
    if not arguments.resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    backends = [arguments.backend] if arguments.backend else list(environment.BACKENDS)
    tasks = [(name, backend) for name in ROWS for backend in backends]
    results = []
    for number, (name, backend) in enumerate(tasks, 1):
        print(f"[{number}/{len(tasks)}] {name} on {backend} ...", end=" ", flush=True)
        path = folder / f"{name}_{backend}_{arguments.threads}_{arguments.repeats}.json"
        if path.exists():
            results.append(json.loads(path.read_text()))
            print("kept")
            continue
        results.append(_result(name, backend, arguments))
        if "error" in results[-1]:
            print(f"FAILED\n{results[-1]['error']}", flush=True)
        else:
            environment.write_whole(path, json.dumps(results[-1]))
            print(f"done\n{table.text(results[-1])}", flush=True)
    text = "\n\n".join([_conditions(arguments), table.markdown(results)])
    print(f"\n{text}")
    if not arguments.quick and not arguments.backend:
        table.write_section("timings", text)
    failed = [f"{result['name']} on {result['backend']}" for result in results if not result.get("agree")]
    if failed:
        sys.exit(f"failed, or outputs differ: {', '.join(failed)}")


def command(name: str, backend: str, arguments: argparse.Namespace, *more: str) -> list[str]:
    """Returns the command that runs one row as this run would."""
    options = ["--threads", str(arguments.threads), "--repeats", str(arguments.repeats), "--json", *more]
    options += ["--quick"] if arguments.quick else []
    return [sys.executable, "-m", "benchmarks", name, "--backend", backend, *options]


def last_line(command: list[str]) -> dict[str, Any]:
    """Runs a command and returns the JSON of its last line; raises `RuntimeError` with what it said instead."""
    done = subprocess.run(command, cwd=environment.ROOT, capture_output=True, text=True, timeout=LONGEST)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise RuntimeError(f"exit code {done.returncode}\n{said}") from None


def _result(name: str, backend: str, arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        return last_line(command(name, backend, arguments))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return {"name": name, "backend": backend, "error": str(error)}


def _conditions(arguments: argparse.Namespace) -> str:
    found = environment.machine()
    size = ", small cases" if arguments.quick else ""
    turns = f"{arguments.threads} threads, medians of {arguments.repeats} turns{size}"
    lines = [f"{found['machine']}; {turns}, {datetime.date.today()}.", f"{found['versions']}."]
    return "\n".join(textwrap.fill(line, 118) for line in lines)
