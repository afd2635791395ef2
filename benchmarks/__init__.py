"""Times and memory of our work beside that of other libraries: `python -m benchmarks --list`."""
