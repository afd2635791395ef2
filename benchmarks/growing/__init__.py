"""Growth of time and memory with the size of the workload: `python -m benchmarks growth`."""

import dataclasses


@dataclasses.dataclass
class Subject:
    """A growing quantity, its sizes, and those of `--quick`. `cases.py` defines the workload, by name."""

    title: str
    label: str
    sizes: tuple[int, ...]
    quick: tuple[int, ...]


SUBJECTS = {
    "points": Subject(
        "k-occurrence, 64 dimensions", "points", (5_000, 10_000, 20_000, 50_000, 100_000), (1_000, 5_000)
    ),
    "codes": Subject("nearest codes of 4,096 x 64", "codes", (256, 1_024, 4_096, 16_384, 65_536), (256, 4_096)),
    "steps": Subject("DDIM, 4 images", "steps", (5, 10, 20, 50, 100), (5, 20)),
    "positions": Subject("transformer's samples, 16 sequences", "codes", (32, 64, 128, 256), (8, 16)),
    "batch": Subject("U-Net, 32 x 32", "images", (1, 4, 16, 64), (1, 4)),
    "size": Subject("U-Net, 4 images", "pixels of width", (16, 32, 48, 64), (16, 32)),
}
