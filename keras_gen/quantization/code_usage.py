from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export
from keras_gen.quantization.code_counts import CodeCounts


@keras_gen_export("keras_gen.metrics.CodeUsage")
class CodeUsage(CodeCounts):
    """The share of codes that are used at least once: `mean_k [count_k > 0]`, in [0, 1].

    Counts everything seen since the last `reset_state`, such as an epoch. With several codebooks, the mean over them.

    Args:
        num_codes: int >= 1, or a tuple with one number for each entry along the last axis of the indices.
        name: str or `None`. Defaults to `None`.

    Raises:
        ValueError: if a number of codes is less than 1.

    Reference: van den Oord et al. 2017, arXiv:1711.00937.
    """

    def result(self) -> Any:
        return usage(self.counts_by_codebook())


def usage(counts: list[Any]) -> Any:
    """Returns the mean over codebooks of the share of their codes that are used."""
    return sum(ops.mean(ops.cast(part > 0, "float32")) for part in counts) / len(counts)
