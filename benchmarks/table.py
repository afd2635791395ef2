"""Results as text and as Markdown."""

import pathlib
import statistics
from typing import Any

from benchmarks.contest import OURS
from benchmarks.environment import BACKENDS
from benchmarks.rows import ROWS, Row

BESIDE = "torch"  # the backend in whose processes the peers' memory is measured
README = pathlib.Path(__file__).parent / "README.md"


def text(result: dict[str, Any]) -> str:
    """Returns the printed lines of one row."""
    if "error" in result:
        return f"{BACKENDS[result['backend']]}, {result['name']}: FAILED\n{result['error']}"
    name, times = result["name"], result["times"]
    lines = [f"{BACKENDS[result['backend']]}, {name}: {result['case']}; our first run {result['compile']:.2f} s longer"]
    for contender, values in times.items():
        line = f"  {contender:24} {_milliseconds(statistics.median(values)):>10}"
        line += f"  ({_milliseconds(min(values))} .. {_milliseconds(max(values))})"
        if contender != OURS:
            line += f"  {_comparison(result, contender)}"
        if contender in result["differences"]:
            line += f"  largest difference {result['differences'][contender]:.1e}"
        lines.append(line)
    return "\n".join([*lines, *([] if result["agree"] else ["  OUTPUTS DIFFER"])])


def memory_text(result: dict[str, Any]) -> str:
    """Returns the printed line of one contender's memory and first run."""
    who = f"{BACKENDS[result['backend']]}, {result['name']}, {result['contender']}"
    if "error" in result:
        return f"{who}: FAILED\n{result['error']}"
    above = f"{result['above']:.2f} GiB above libraries, weights and inputs"
    return f"{who}: {above}, {result['peak']:.2f} GiB in all; first run {_longer(result)} s longer"


def times(results: list[dict[str, Any]]) -> str:
    """Returns the table of times, a line for each row and peer."""
    by_key = {(result["name"], result["backend"]): result for result in results}
    lines = [f"| work | peer | {' | '.join(BACKENDS.values())} | mark |", "| --- | --- | --- | --- | --- | --- |"]
    for name, row in ROWS.items():
        found = {backend: by_key.get((name, backend)) for backend in BACKENDS}
        case = next((result["case"] for result in found.values() if result and "case" in result), "")
        for number, peer in enumerate(row.peers):
            work = f"{row.title}: {case}<br>`python -m benchmarks {name}`" if number == 0 else ""
            cells = [_cell(result, peer) for result in found.values()]
            lines.append(f"| {work} | {peer} | {' | '.join(cells)} | {_mark(row, peer, list(found.values()))} |")
    return "\n".join(lines)


def memory(results: list[dict[str, Any]]) -> str:
    """Returns the table of memory and first runs, a line for each row."""
    by_key = {(result["name"], result["backend"], result["contender"]): result for result in results}
    lines = [f"| row | {' | '.join(BACKENDS.values())} | peers |", "| --- | --- | --- | --- | --- |"]
    for name, row in ROWS.items():
        ours = [by_key.get((name, backend, OURS)) for backend in BACKENDS]
        if any(ours):
            peers = [f"{peer} {_memory_cell(by_key[name, BESIDE, peer])}" for peer in row.peers]
            lines.append(f"| {name} | {' | '.join(map(_memory_cell, ours))} | {'<br>'.join(peers)} |")
    return "\n".join(lines)


def write_section(name: str, text: str) -> None:
    """Replaces the text between the README's comments of a section."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, rest = README.read_text(encoding="utf-8").split(begin)
    tail = rest.split(end)[1]
    README.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def _cell(result: dict[str, Any] | None, peer: str) -> str:
    if result is None:
        return ""
    if "error" in result:
        return "failed"
    ours = _milliseconds(statistics.median(result["times"][OURS]))
    differs = "" if result["agree"] else ", outputs differ"
    return f"{ours}, {_comparison(result, peer)}{differs}"


def _memory_cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    if "error" in result:
        return "failed"
    return f"{result['above']:.2f} of {result['peak']:.2f} GiB, {_longer(result)} s"


def _longer(result: dict[str, Any]) -> str:
    return f"{max(0.0, result['first'] - result['later']):.1f}"


def _comparison(result: dict[str, Any], peer: str) -> str:
    """Returns the ratio of medians, with the range of the turns' ratios; none where a mark is in milliseconds."""
    ours, theirs = result["times"][OURS], result["times"][peer]
    if ROWS[result["name"]].beyond is not None:
        return "after it"
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return f"**{_ratio(result, peer):.2f}** ({min(ratios):.2f} .. {max(ratios):.2f})"


def _mark(row: Row, peer: str, results: list[dict[str, Any] | None]) -> str:
    """Returns the marks, and whether they are met if all backends ran."""
    held = [result for result in results if result and result.get("agree")]
    whole = len(held) == len(BACKENDS)
    if row.beyond is not None:
        longest = max((statistics.median(result["times"][OURS]) for result in held), default=0.0)
        return _judged(f"every {row.beyond:g} ms", 1e3 * longest <= row.beyond, whole)
    if peer not in row.marks:
        return ""
    ratios = [_ratio(result, peer) for result in held] or [0.0]
    best, every = row.marks[peer]
    first = [] if best is None else [_judged(f"best {best:g}", min(ratios) <= best, whole)]
    return ", ".join([*first, _judged(f"every {every:g}", max(ratios) <= every, whole)])


def _judged(mark: str, met: bool, whole: bool) -> str:
    return f"{mark} {'met' if met else 'missed'}" if whole else mark


def _ratio(result: dict[str, Any], peer: str) -> float:
    return statistics.median(result["times"][OURS]) / statistics.median(result["times"][peer])


def _milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f} ms" if abs(value) >= 100 else f"{value:.3g} ms"
