from typing import Any

from keras import ops

from keras_gen.export import keras_gen_export
from keras_gen.quantization.code_counts import CodeCounts


@keras_gen_export("keras_gen.metrics.CodePerplexity")
class CodePerplexity(CodeCounts):
    """How many codes are used, each weighted by how often: `exp(-sum_k p_k log p_k)`, between 1 and `num_codes`.

    `p` is the frequency over everything seen since the last `reset_state`, such as an epoch, not the mean over batches
    (which is smaller). With several codebooks, the mean over them.

    Args:
        num_codes: int >= 1, or a tuple with one number for each entry along the last axis of the indices.
        name: str or `None`. Defaults to `None`.

    Raises:
        ValueError: if a number of codes is less than 1.

    Example:

    >>> metric = keras_gen.metrics.CodePerplexity(4)
    >>> metric.update_state([0, 1, 0, 1]); metric.result()      # 2.0

    Reference: van den Oord et al. 2017, arXiv:1711.00937.
    """

    def result(self) -> Any:
        return perplexity(self.counts_by_codebook())


def perplexity(counts: list[Any]) -> Any:
    """Returns the mean over codebooks of the perplexity of their codes."""
    return sum(_perplexity(part) for part in counts) / len(counts)


def _perplexity(counts: Any) -> Any:
    p = counts / ops.maximum(ops.sum(counts), 1.0)
    return ops.exp(-ops.sum(p * ops.log(ops.maximum(p, 1e-30))))
