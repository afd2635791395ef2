"""Contenders that take turns at the same work in one process."""

import dataclasses
import math
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

OURS = "ours"
WARM_RUNS, WARM_SECONDS = 12, 2.0  # before the first turn: PyTorch's networks are recorded in these runs
PAUSE = 0.1  # seconds between two contenders: idle threads of the one spin for a while, and would slow the other


@dataclasses.dataclass
class Contender:
    """What is timed: `run` does `units` units of work (steps, images) and waits for the result.

    With `own_clock` it returns the seconds itself.
    """

    run: Callable[[], Any]
    units: int = 1
    own_clock: bool = False


@dataclasses.dataclass
class Contest:
    """Contenders by name, ours first.

    `same` names those that compute the same function as we do: `difference` of their outputs from ours must not be
    above `tolerance`, in any of the runs before the first turn that both made. A contest of long runs has at most
    `turns`. One that is not `warm` has no run before them: then nothing is compared, and the median leaves out the turn
    in which ours compiles.
    """

    case: str
    contenders: dict[str, Contender]
    same: tuple[str, ...] = ()
    tolerance: float = 1e-3
    turns: int | None = None
    warm: bool = True
    difference: Callable[[Any, Any], float] = dataclasses.field(default_factory=lambda: largest_difference)


def largest_difference(ours: Any, theirs: Any) -> float:
    """Returns the largest difference of two arrays, relative to their size where that is above 1."""
    ours, theirs = np.asarray(ours, "float64"), np.asarray(theirs, "float64")
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def share_unequal(ours: Any, theirs: Any) -> float:
    """Returns how many of the entries differ: rounding decides between codes that are equally near."""
    return float(np.mean(np.asarray(ours) != np.asarray(theirs)))


def hold(contest: Contest, repeats: int, shortest: float) -> dict[str, Any]:
    """Times every contender in turns.

    Args:
        contest: who takes part.
        repeats: turns of each contender.
        shortest: seconds; in a turn the work is done again and again for about as long.

    Returns:
        dict with `times`, seconds for one unit by contender and turn, `compile`, seconds that our first run took beyond
        the later ones, and `differences` of outputs.
    """
    first, calls, differences = {}, dict.fromkeys(contest.contenders, 1), {}
    if contest.warm:
        first, calls, differences = _warm_up(contest, shortest)
    turns = min(repeats, contest.turns or repeats)
    times: dict[str, list[float]] = {name: [] for name in contest.contenders}
    for turn in range(turns):
        _progress(f"turn {turn + 1} of {turns}")
        for name, contender in contest.contenders.items():
            time.sleep(PAUSE)
            times[name].append(timed(contender, calls[name])[0] / calls[name] / contender.units)
    _progress("")
    units = contest.contenders[OURS].units
    return {
        "case": contest.case,
        "times": times,
        "compile": max(0.0, first.get(OURS, times[OURS][0] * units) - statistics.median(times[OURS]) * units),
        "differences": differences,
        "agree": all(difference <= contest.tolerance for difference in differences.values()),
    }


def _warm_up(contest: Contest, shortest: float) -> tuple[dict[str, float], dict[str, int], dict[str, float]]:
    """Returns by contender the seconds of its first run, how many runs make a turn, and its difference from ours."""
    first, outputs, calls, differences = {}, {}, {}, {}
    for name, contender in contest.contenders.items():
        _progress(f"first run of {name}")
        seconds, outputs[name] = zip(*_first_runs(contender), strict=True)
        first[name], calls[name] = seconds[0], max(1, math.ceil(shortest / seconds[-1]))
    for name in contest.same:
        runs = zip(outputs[OURS], outputs[name], strict=False)  # of two that learn, those after as many steps
        differences[name] = float(np.max([contest.difference(ours, theirs) for ours, theirs in runs]))  # NaN stays
    return first, calls, differences


def _first_runs(contender: Contender) -> list[tuple[float, Any]]:
    """Returns seconds and output of some runs: of two at least, as the first one compiles."""
    done = [timed(contender, 1), timed(contender, 1)]
    while len(done) < WARM_RUNS and sum(seconds for seconds, _ in done[1:]) < WARM_SECONDS:
        done.append(timed(contender, 1))
    return done


def measure_memory(contender: Contender) -> dict[str, float]:
    """Measures what a contender needs, in a process of its own.

    Args:
        contender: who runs.

    Returns:
        dict with `peak`, the largest memory of the process in GiB, `above`, how much of it the runs needed, and
        `first` and `later`, the seconds of the first and of the shortest run.
    """
    at_first = _peak()
    _forget_peak()
    before = _peak()
    seconds = [seconds for seconds, _ in _first_runs(contender)]
    largest = _peak()
    return {
        "peak": max(at_first, largest),
        "above": largest - before,
        "first": seconds[0],
        "later": min(seconds),
    }


def _peak() -> float:
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _forget_peak() -> None:
    """Lowers the largest memory to the present one: weights take more while they are made. Linux alone can."""
    if sys.platform == "linux":
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def timed(contender: Contender, calls: int) -> tuple[float, Any]:
    """Returns the seconds of some runs, and what the last one gave."""
    start = time.perf_counter()
    for _ in range(calls):
        output = contender.run()
    return output if contender.own_clock else time.perf_counter() - start, output


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\r", file=sys.stderr, flush=True)
