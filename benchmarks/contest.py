"""Contenders that run the same workload in alternating turns, in one process."""

import dataclasses
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.devices import Device, as_array, product_rate

OURS = "ours"
WARM_RUNS, WARM_SECONDS = 12, 2.0  # before the first turn: PyTorch networks are traced in these runs
PAUSE = 0.1  # seconds between contenders: idle threads spin for a while, and would slow down the next one


@dataclasses.dataclass
class Contender:
    """A timed workload: `run` performs `units` units of work (steps, images); the clock waits for its output.

    With `own_clock`, `run` measures and returns the seconds itself.
    """

    run: Callable[[], Any]
    units: int = 1
    own_clock: bool = False


@dataclasses.dataclass
class Contest:
    """Contenders by name, ours first.

    `same` names the contenders that compute the same function as ours: the `difference` of outputs must not exceed
    `tolerance` in any warm-up run of both. `turns` and `warm` limit the turns and the warm-up runs of long work. Where
    there are none of the latter, no outputs are compared, and the median is robust to the turn in which ours compiles.
    A unit of work is `operations` in `dtype`, for all contenders.
    """

    case: str
    contenders: dict[str, Contender]
    same: tuple[str, ...] = ()
    tolerance: float = 1e-3
    turns: int | None = None
    warm: int = WARM_RUNS
    operations: float | None = None
    dtype: str = "float32"
    difference: Callable[[Any, Any], float] = dataclasses.field(default_factory=lambda: largest_difference)


def largest_difference(ours: Any, theirs: Any) -> float:
    """Returns the largest difference of two arrays, relative to their size where that is above 1."""
    ours, theirs = np.asarray(ours, "float64"), np.asarray(theirs, "float64")
    return float(np.abs(ours - theirs).max() / max(1.0, np.abs(theirs).max()))


def share_unequal(ours: Any, theirs: Any) -> float:
    """Returns the fraction of differing entries: rounding decides between codes at equal distances."""
    return float(np.mean(np.asarray(ours) != np.asarray(theirs)))


def hold(contest: Contest, repeats: int, shortest: float, device: Device) -> dict[str, Any]:
    """Times every contender in turns.

    Args:
        contest: the contenders.
        repeats: turns of each contender.
        shortest: minimum seconds per turn, for which the work is repeated.
        device: where they run.

    Returns:
        dict with `times`, seconds per unit by contender and turn, `longer`, additional seconds of each one's first run,
        `differences` of outputs, `operations` per unit, and `product_rate`, operations per second of a large product,
        where they are counted.
    """
    first, calls, differences = {}, dict.fromkeys(contest.contenders, 1), {}
    if contest.warm:
        first, calls, differences = _warm_up(contest, shortest, device)
    turns = min(repeats, contest.turns or repeats)
    times: dict[str, list[float]] = {name: [] for name in contest.contenders}
    for turn in range(turns):
        _progress(f"turn {turn + 1} of {turns}")
        for name, contender in contest.contenders.items():
            time.sleep(PAUSE)
            times[name].append(timed(contender, calls[name], device)[0] / calls[name] / contender.units)
    _progress("")
    return {
        "case": contest.case,
        "times": times,
        "longer": {
            name: _longer(values, first.get(name), contest.contenders[name].units) for name, values in times.items()
        },
        "differences": differences,
        "agree": all(difference <= contest.tolerance for difference in differences.values()),
        "operations": contest.operations,
        "product_rate": contest.operations and product_rate(device, contest.dtype),
    }


def _longer(times: list[float], first: float | None, units: int) -> float:
    """Returns the seconds that a first run took beyond the others; without warm-up runs, the first turn has it."""
    return max(0.0, (times[0] * units if first is None else first) - statistics.median(times) * units)


def _warm_up(
    contest: Contest, shortest: float, device: Device
) -> tuple[dict[str, float], dict[str, int], dict[str, float]]:
    """Returns by contender the seconds of its first run, the number of runs per turn, and its difference from ours."""
    first, outputs, calls, differences = {}, {}, {}, {}
    for name, contender in contest.contenders.items():
        _progress(f"first run of {name}")
        seconds, outputs[name] = zip(*_first_runs(contender, device, contest.warm), strict=True)
        first[name], calls[name] = seconds[0], max(1, math.ceil(shortest / seconds[-1]))
    for name in contest.same:
        runs = zip(outputs[OURS], outputs[name], strict=False)  # when training, after equal numbers of steps
        differences[name] = float(np.max([contest.difference(ours, theirs) for ours, theirs in runs]))  # NaN stays
    return first, calls, differences


def _first_runs(contender: Contender, device: Device, most: int = WARM_RUNS) -> list[tuple[float, Any]]:
    """Returns seconds and outputs of warm-up runs, as arrays: two if they may be, as the first one compiles."""
    done: list[tuple[float, Any]] = []
    while len(done) < most and (len(done) < 2 or sum(seconds for seconds, _ in done[1:]) < WARM_SECONDS):
        seconds, output = timed(contender, 1, device)
        done.append((seconds, as_array(output)))
    return done


def measure_memory(contender: Contender, device: Device) -> dict[str, float]:
    """Measures the memory and the first run of a contender, in a separate process.

    Args:
        contender: the contender to run, the only one that is left.
        device: where it runs.

    Returns:
        dict with `peak`, the largest memory of the runs in GiB, `above`, the part of it that the runs added, and
        `first` and `later`, the seconds of the first and of the shortest run.
    """
    gc.collect()  # the others' weights
    before = device.forget_peak()
    seconds = [seconds for seconds, _ in _first_runs(contender, device)]
    largest = device.peak()
    return {"peak": largest, "above": largest - before, "first": seconds[0], "later": min(seconds)}


def timed(contender: Contender, calls: int, device: Device) -> tuple[float, Any]:
    """Returns the seconds of `calls` runs, each of which the device has finished, and the output of the last one."""
    start = time.perf_counter()
    for _ in range(calls):
        output = contender.run()
        device.wait(output)
    return output if contender.own_clock else time.perf_counter() - start, output


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\r", file=sys.stderr, flush=True)
