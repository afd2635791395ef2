"""Results as text and as Markdown."""

import pathlib
from typing import Any

from benchmarks.contest import OURS
from benchmarks.environment import BACKENDS, write_whole
from benchmarks.marks import median, ratio, utilization
from benchmarks.rows import MODES, PLAIN, ROWS, Row

BESIDE = "torch"  # the backend in whose processes the peers' memory is measured
README = pathlib.Path(__file__).parent / "README.md"


def text(result: dict[str, Any]) -> str:
    """Returns the printed lines of one row."""
    if "error" in result:
        return f"{_who(result)}: FAILED\n{result['error']}"
    lines = [f"{_who(result)}: {result['case']}"]
    for contender, values in result["times"].items():
        line = f"  {contender:24} {_milliseconds(median(result, contender)):>10}"
        line += f"  ({_milliseconds(min(values))} .. {_milliseconds(max(values))})"
        if contender != OURS:
            line += f"  {_comparison(result, contender)}"
        line += f"{_utilization(result, contender)}; first run {result['longer'][contender]:.2f} s longer"
        if contender in result["differences"]:
            line += f"; largest difference {result['differences'][contender]:.1e}"
        lines.append(line)
    return "\n".join([*lines, *([] if result["agree"] else ["  OUTPUTS DIFFER"])])


def memory_text(result: dict[str, Any]) -> str:
    """Returns the printed line of one contender's memory and first run."""
    who = f"{_who(result)}, {result['contender']}"
    if "error" in result:
        return f"{who}: FAILED\n{result['error']}"
    above = f"{result['above']:.2f} GiB above libraries, weights and inputs"
    return f"{who}: {above}, {result['peak']:.2f} GiB in all; first run {_longer(result)} s longer"


def times(results: list[dict[str, Any]], device: str) -> str:
    """Returns the table of times, a line for each row, mode and peer."""
    by_key = {(result["name"], result["mode"], result["backend"]): result for result in results}
    lines = [f"| work | peer | {' | '.join(BACKENDS.values())} | mark |", "| --- | --- | --- | --- | --- | --- |"]
    for name, mode in _measured(results):
        row, found = ROWS[name], [by_key.get((name, mode, backend)) for backend in BACKENDS]
        case = next((result["case"] for result in found if result and "case" in result), "")
        work = f"{row.title}: {case}{_named(mode)}<br>`python -m benchmarks {name}`"
        for number, peer in enumerate(row.peers):
            cells = [_cell(result, peer) for result in found]
            held = [result for result in found if result and result.get("agree")]
            mark = _mark(row, peer, held) if device == "cpu" else _gpu_marks(row, mode, peer, held)
            lines.append(f"| {'' if number else work} | {peer} | {' | '.join(cells)} | {mark} |")
    return "\n".join(lines)


def memory(results: list[dict[str, Any]]) -> str:
    """Returns the table of memory and first runs, a line for each row and mode."""
    by_key = {(result["name"], result["mode"], result["backend"], result["contender"]): result for result in results}
    lines = [f"| row | {' | '.join(BACKENDS.values())} | peers |", "| --- | --- | --- | --- | --- |"]
    for name, mode in _measured(results):
        ours = [_memory_cell(by_key.get((name, mode, backend, OURS))) for backend in BACKENDS]
        peers = [f"{peer} {_memory_cell(by_key.get((name, mode, BESIDE, peer)))}" for peer in ROWS[name].peers]
        lines.append(f"| {name}{_named(mode)} | {' | '.join(ours)} | {'<br>'.join(peers)} |")
    return "\n".join(lines)


def _measured(results: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Returns the rows and modes of results, in the order of their tables."""
    found = {(result["name"], result["mode"]) for result in results}
    return [(name, mode) for name in ROWS for mode in MODES if (name, mode) in found]


def _named(mode: str) -> str:
    return "" if mode == PLAIN else f", {mode}"


def _who(result: dict[str, Any]) -> str:
    return f"{BACKENDS[result['backend']]}, {result['name']}{_named(result['mode'])}"


def write_section(name: str, text: str, page: pathlib.Path = README) -> None:
    """Replaces the text between the comments of a section of a Markdown page."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    head, rest = page.read_text(encoding="utf-8").split(begin)
    write_whole(page, f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def _cell(result: dict[str, Any] | None, peer: str) -> str:
    if result is None:
        return ""
    if "error" in result:
        return "failed"
    differs = "" if result["agree"] else ", outputs differ"
    return f"{_milliseconds(median(result))}, {_comparison(result, peer)}{_utilization(result, OURS)}{differs}"


def _utilization(result: dict[str, Any], contender: str) -> str:
    part = utilization(result, contender)
    return "" if part is None else f", MFU {part:.0%}"


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
    return f"**{ratio(result, peer):.2f}** ({min(ratios):.2f} .. {max(ratios):.2f})"


def _gpu_marks(row: Row, mode: str, peer: str, held: list[dict[str, Any]]) -> str:
    """Returns the marks beside a peer in a mode, on the backends that ran, and whether they are met."""
    pairs = [(mark, result) for mark in row.gpu_marks.get(mode, ()) if mark.peer == peer for result in held]
    return "<br>".join(
        _judged(f"{BACKENDS[result['backend']]}: {mark.text(result['backend'])}", mark.met(result), whole=True)
        for mark, result in pairs
        if result["backend"] in mark.limits
    )


def _mark(row: Row, peer: str, held: list[dict[str, Any]]) -> str:
    """Returns the marks on the CPU, and whether they are met if all backends ran."""
    whole = len(held) == len(BACKENDS)
    if row.beyond is not None:
        longest = max((median(result) for result in held), default=0.0)
        return _judged(f"every {row.beyond:g} ms", 1e3 * longest <= row.beyond, whole)
    if peer not in row.marks:
        return ""
    ratios = [ratio(result, peer) for result in held] or [0.0]
    best, every = row.marks[peer]
    first = [] if best is None else [_judged(f"best {best:g}", min(ratios) <= best, whole)]
    return ", ".join([*first, _judged(f"every {every:g}", max(ratios) <= every, whole)])


def _judged(mark: str, met: bool, whole: bool) -> str:
    return f"{mark} {'met' if met else 'missed'}" if whole else mark


def _milliseconds(seconds: float) -> str:
    value = 1e3 * seconds
    return f"{value:.0f} ms" if abs(value) >= 100 else f"{value:.3g} ms"
