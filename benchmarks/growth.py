"""Measures, plots and fits the growth of time and memory; each size in a separate process."""

import argparse
import json
import pathlib
import sys
from typing import Any

import numpy as np

from benchmarks import contest, environment, every_row, table
from benchmarks.devices import DEVICES, chosen
from benchmarks.growing import SUBJECTS

FIGURE = pathlib.Path(__file__).parent / "growth.png"
ENOUGH = 1.0  # seconds of work for each size, after first runs
FITTED = 3  # the largest sizes: at small ones constant costs are most of the time


def run(arguments: argparse.Namespace) -> None:
    """Runs one case if it is named, else all cases, and plots the results of all measured backends."""
    if arguments.subject:
        environment.prepare(arguments.backend, arguments.threads, DEVICES[arguments.device])
        print(json.dumps(_case(arguments)))
        return
    folder = environment.RUNS / f"{arguments.device}_growth{'_quick' if arguments.quick else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {backend: folder / f"{backend}_{arguments.threads}.json" for backend in environment.BACKENDS}
    for backend in [arguments.backend] if arguments.backend else environment.BACKENDS:
        _measure(backend, paths[backend], arguments)
    found = {backend: json.loads(path.read_text()) for backend, path in paths.items() if path.exists()}
    found = {backend: results for backend, results in found.items() if set(results) == set(SUBJECTS)}
    printed_only = arguments.quick or arguments.backend or arguments.device != "cpu"  # of which the README has none
    draw(found, folder / FIGURE.name if printed_only else FIGURE)
    text = exponents(found)
    print(text)
    if not printed_only:
        picture = f"![Time and memory against size, on logarithmic axes]({FIGURE.name})"
        table.write_section("growth", f"{text}\n\n{picture}")


def _measure(backend: str, path: pathlib.Path, arguments: argparse.Namespace) -> None:
    results = json.loads(path.read_text()) if arguments.resume and path.exists() else {}
    for subject, about in SUBJECTS.items():
        measured = results.setdefault(subject, {})
        for size in about.quick if arguments.quick else about.sizes:
            if str(size) in measured:
                continue
            options = ["--subject", subject, "--size", str(size)]
            case = every_row.command(["growth"], backend, arguments, *options)
            (measured[str(size)],) = every_row.last_lines(case, 1)
            environment.write_whole(path, json.dumps(results, indent=1))
            seconds, memory = measured[str(size)]["seconds"], measured[str(size)]["above"]
            print(f"{backend}, {about.title}, {size:,} {about.label}: {seconds:.3g} s, {memory:.2f} GiB", flush=True)


def _case(arguments: argparse.Namespace) -> dict[str, float]:
    device = chosen(arguments.device)
    from benchmarks.growing import cases

    work = getattr(cases, arguments.subject)(arguments.size)
    environment.limit_torch(arguments.threads)
    contender = contest.Contender(work)
    found = contest.measure_memory(contender, device)
    times = [found["later"]]
    while sum(times) < ENOUGH:
        times.append(contest.timed(contender, 1, device)[0])
    return {"seconds": float(np.median(times)), **found}


def exponent(measured: dict[str, dict[str, float]], quantity: str) -> float:
    """Returns the slope of the largest sizes on logarithmic axes."""
    sizes = sorted(map(int, measured))[-FITTED:]
    values = [measured[str(size)][quantity] for size in sizes]
    if min(values) <= 0:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def exponents(found: dict[str, Any]) -> str:
    """Returns a Markdown table of the exponents, time and memory, by subject and backend."""
    names = [environment.BACKENDS[backend] for backend in found]
    lines = [f"| what grows | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for subject, about in SUBJECTS.items():
        pairs = [[exponent(results[subject], part) for part in ("seconds", "above")] for results in found.values()]
        cells = [f"{time:.2f}, {memory:.2f}" for time, memory in pairs]
        lines.append(f"| {about.label} ({about.title}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: pathlib.Path) -> None:
    """Plots time and memory of every subject, all backends in each panel."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        sys.exit("the figure needs the package matplotlib: pip install '.[bench]'")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    quantities = {"seconds": "seconds", "above": "GiB above the inputs"}
    figure, panels = pyplot.subplots(2, len(SUBJECTS), figsize=(3.1 * len(SUBJECTS), 5.6), layout="constrained")
    for column, (subject, about) in enumerate(SUBJECTS.items()):
        for (quantity, label), panel in zip(quantities.items(), panels[:, column], strict=True):
            for backend, results in found.items():
                sizes = sorted(map(int, results[subject]))
                values = [results[subject][str(size)][quantity] for size in sizes]
                name = f"{environment.BACKENDS[backend]}, {exponent(results[subject], quantity):.2f}"
                panel.plot(sizes, values, "o-", markersize=3, linewidth=1, label=name)
            panel.set(xscale="log", yscale="log", xlabel=about.label)
            low, high = panel.get_ylim()
            panel.set_ylim(low / 3, 3 * high)  # at least a decade: otherwise no tick has a label
            panel.minorticks_off()
            panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
            panel.tick_params(labelsize=7)
            panel.legend(fontsize=7, frameon=False)
            panel.grid(alpha=0.2)
            if column == 0:
                panel.set_ylabel(label)
        panels[0, column].set_title(about.title, fontsize=9)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
