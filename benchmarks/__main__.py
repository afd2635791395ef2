"""Benchmarks against other libraries, in alternating turns, with the same weights and inputs.

    python -m benchmarks --list
    python -m benchmarks unet_step --backend jax
    python -m benchmarks fsq vq_layer --backend torch
    python -m benchmarks unet_step --backend jax --memory
    python -m benchmarks dit_step --device gpu --mode bfloat16-compiled
    python -m benchmarks --all
    python -m benchmarks --all --memory
    python -m benchmarks growth

Run from the root of the repository. Without `--backend`: all three, one after the other. Without `--device`: on the GPU
if PyTorch sees one. Networks run in float32, on a GPU also in bfloat16, each with and without compilation; `--mode`
names one of the four. `--all` runs every row of the device's table on every backend and writes that table of
`benchmarks/README.md`, with `--memory` that of memory and first runs; with `--quick` (fewer turns, smaller cases) it
runs every row, prints the table and writes nothing. `growth` plots time and memory against size. Other libraries:
`pip install '.[bench]'`.
"""

import argparse
import json
import os
import subprocess
import sys

from benchmarks import contest, devices, environment, every_row, growth, table
from benchmarks.rows import MODES, ROWS


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a row, or several, or growth")
    parser.add_argument("--list", action="store_true", help="show the names")
    parser.add_argument("--backend", choices=environment.BACKENDS, help="default: all three")
    parser.add_argument("--device", choices=devices.DEVICES, help="default: gpu, if PyTorch sees one")
    parser.add_argument("--mode", choices=MODES, help="of networks; default: float32 on the CPU, all on a GPU")
    parser.add_argument("--threads", type=positive, default=os.cpu_count(), help="default: number of cores")
    parser.add_argument("--repeats", type=positive, help="turns of each contender; default: 7, or 3 with --quick")
    parser.add_argument("--quick", action="store_true", help="small cases; with --all the README stays as it is")
    parser.add_argument("--memory", action="store_true", help="largest memory of each contender, in its own process")
    parser.add_argument(
        "--all", action="store_true", help="every row on every backend; with --backend or --quick printed only"
    )
    parser.add_argument("--resume", action="store_true", help="with --all or growth: keep what a killed run measured")
    parser.add_argument("--json", action="store_true", help="with NAMEs of rows: each result as one line")
    parser.add_argument("--only", metavar="CONTENDER", help="with --memory: this one, in this process")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)  # a case of growth
    parser.add_argument("--subject", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.repeats = arguments.repeats or (3 if arguments.quick else 7)
    refuse(parser, arguments)
    if not arguments.list:
        arguments.device = arguments.device or devices.default()
    return arguments


def refuse(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exits with an error for incompatible arguments."""
    if not (arguments.list or arguments.all or arguments.names):
        parser.error(f"give a NAME, --list or --all; NAME is one of {', '.join([*ROWS, 'growth'])}")
    if arguments.all and arguments.names:
        parser.error("--all goes with no NAME")
    growing = arguments.names == ["growth"]
    unknown = [] if growing else [name for name in arguments.names if name not in ROWS]
    if unknown:
        parser.error(f"{unknown[0]} is not a row; NAME is one or more of {', '.join(ROWS)}, or growth alone")
    if arguments.memory and not arguments.all and (growing or len(arguments.names) != 1):
        parser.error("--memory needs the NAME of one row, or --all")
    asked = arguments.names if arguments.mode and not growing else []
    without = [name for name in asked if arguments.mode not in ROWS[name].modes]
    if without:
        parser.error(f"{without[0]} has no mode but {', '.join(ROWS[without[0]].modes)}")
    if arguments.memory and not arguments.all and ROWS[arguments.names[0]].beyond is not None:
        parser.error(f"{arguments.names[0]} measures other processes: it has no --memory")
    if arguments.resume and not (arguments.all or growing):
        parser.error("--resume goes with --all or growth")
    if arguments.memory and arguments.all and arguments.backend:
        parser.error("--all --memory goes over all backends")
    if arguments.only and not (arguments.backend and arguments.memory and arguments.names):
        parser.error("--only needs --memory, --backend and NAME")
    contenders = [contest.OURS, *ROWS[arguments.names[0]].peers] if arguments.only else []
    if arguments.only and arguments.only not in contenders:
        parser.error(f"--only: {arguments.names[0]} has {', '.join(contenders)}")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be >= 1")
    return number


def run_rows(arguments: argparse.Namespace) -> bool:
    """Runs rows sequentially in this process; returns whether all outputs agree."""
    environment.prepare(arguments.backend, arguments.threads, devices.DEVICES[arguments.device])
    device = devices.chosen(arguments.device)
    pairs = [(name, mode) for name in arguments.names for mode in ROWS[name].modes_on(device.name, arguments.mode)]
    return all([run_row(arguments, name, mode, device) for name, mode in pairs])


def run_row(arguments: argparse.Namespace, name: str, mode: str, device: devices.Device) -> bool:
    try:
        from benchmarks.rows import contest as row_contest

        held = row_contest(name, arguments.quick, device, mode)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{name} needs the package {error.name}: pip install '.[bench]'") from error
    environment.limit_torch(arguments.threads)
    task = {"name": name, "mode": mode, "backend": arguments.backend, "contender": arguments.only}
    if arguments.only:
        contender = held.contenders[arguments.only]
        del held  # the weights of the others
        result, text = task | contest.measure_memory(contender, device), table.memory_text
    else:
        shortest = 0.1 if arguments.quick else 0.25
        result, text = task | contest.hold(held, arguments.repeats, shortest, device), table.text
    print(json.dumps(result) if arguments.json else text(result), flush=True)
    return result.get("agree", True)


def show_memory(arguments: argparse.Namespace) -> None:
    for task in every_row.memory_tasks(arguments, arguments.names[0], [arguments.backend], arguments.backend):
        (result,) = every_row.measured(arguments, task)
        print(table.memory_text(result), flush=True)


def main() -> None:
    arguments = parse()
    try:
        run(arguments)
    except every_row.CommandError as error:
        sys.exit(str(error))


def run(arguments: argparse.Namespace) -> None:
    if arguments.list:
        print("\n".join(f"{name:20} {row.title}; peers: {', '.join(row.peers)}" for name, row in ROWS.items()))
    elif arguments.all:
        (every_row.run_memory if arguments.memory else every_row.run)(arguments)
    elif arguments.names == ["growth"]:
        growth.run(arguments)
    elif arguments.backend is None:
        commands = [[sys.executable, "-m", "benchmarks", *sys.argv[1:], "--backend", b] for b in environment.BACKENDS]
        sys.exit(any([subprocess.run(command, cwd=environment.ROOT).returncode for command in commands]))
    elif arguments.memory and not arguments.only:
        show_memory(arguments)
    else:
        sys.exit(not run_rows(arguments))


if __name__ == "__main__":
    main()
