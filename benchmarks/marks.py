"""Marks on a GPU: what is measured of a result, and its limit on each backend. Those on the CPU are ratios of rows."""

import dataclasses
import statistics
from typing import Any

from benchmarks.contest import OURS


def median(result: dict[str, Any], contender: str = OURS) -> float:
    """Returns the seconds per unit of work."""
    return statistics.median(result["times"][contender])


def ratio(result: dict[str, Any], peer: str) -> float:
    """Returns our time relative to a peer's, of medians."""
    return median(result) / median(result, peer)


def utilization(result: dict[str, Any], contender: str = OURS) -> float | None:
    """Returns the operations per second relative to those of a large product; `None` where they are not counted."""
    return result["operations"] and result["operations"] / median(result, contender) / result["product_rate"]


@dataclasses.dataclass(frozen=True)
class Mark:
    """What is asked of a row: a limit on each backend that has one."""

    peer: str  # whose line in the table has the mark
    limits: dict[str, float]

    def text(self, backend: str) -> str:
        """Returns the mark as the table has it."""
        raise NotImplementedError

    def met(self, result: dict[str, Any]) -> bool:
        """Returns whether a result is within the limit."""
        raise NotImplementedError


class Ratio(Mark):
    """Our time is at most a multiple of a peer's."""

    def text(self, backend: str) -> str:
        return f"{self.limits[backend]:g} of {self.peer}"

    def met(self, result: dict[str, Any]) -> bool:
        return ratio(result, self.peer) <= self.limits[result["backend"]]


class Rate(Mark):
    """We do at least so many units of work in a second."""

    def text(self, backend: str) -> str:
        return f"{self.limits[backend]:,} a second"

    def met(self, result: dict[str, Any]) -> bool:
        return median(result) * self.limits[result["backend"]] <= 1


class Utilization(Mark):
    """We use at least a part of the rate of a large product."""

    def text(self, backend: str) -> str:
        return f"MFU {self.limits[backend]:.0%}"

    def met(self, result: dict[str, Any]) -> bool:
        return (utilization(result) or 0.0) >= self.limits[result["backend"]]
