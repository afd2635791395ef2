from typing import Any

from keras import ops

from keras_gen.core.checks import check, same_shape
from keras_gen.core.compiled import sequential_while
from keras_gen.export import keras_gen_export

TOLERANCE = 0.01
BIDDERS = 16  # most rows that bid in one round: in nearly all rounds fewer wait, and a round costs BIDDERS x n
FIRST, SHRINK, PHASES = 0.1, 5.0, 7  # e, in standard deviations of the costs, and how it falls
ROUNDS = 60  # times n: points in the plane, the slowest, took up to 14
RESOLUTION = 1e-6  # of the largest raise: a smaller e would be lost in the prices


@keras_gen_export("keras_gen.ops.optimal_pairing")
def optimal_pairing(cost: Any) -> Any:
    """Pairs rows with columns at the least total cost, by an auction: such as noise with data in minibatch transport.

        minimize sum_i c[i, pairing[i]] over permutations

    Columns have prices p. A row without a column bids for the one where `c + p` is least: it raises that price until
    the second best is better by e, and whoever had the column loses it. When all have one, each row is within e of its
    best column. No pairing costs less than `sum_i min_j (c[i, j] + p[j]) - sum_j p[j]`. While the total is too far
    above that, e is divided by 5, and the rows that are no longer within e of their best bid again.

    The total of `c - min(c)` is then at most 1% above the least one; for Gaussian points, mostly < 0.1%. It can be more
    if the auction meets one of its bounds: e ends at 6e-6 standard deviations of the costs, which matters where the
    least total is next to nothing beside them; and after 60 n rounds, what is left is paired in order.

    It runs inside a compiled function. No gradient passes.

    Args:
        cost: float tensor `(n, n)`, finite, of any sign; such as the squared distances of n draws and n samples.

    Returns:
        int32 tensor `(n,)`, always a permutation: `pairing[i]` is the column of row i.

    Raises:
        ValueError: if `cost` is not a square matrix.

    Example:

    >>> cost = keras.ops.sum((noise[:, None] - x[None]) ** 2, axis=-1)
    >>> x = keras.ops.take(x, keras_gen.ops.optimal_pairing(cost), axis=0)  # now noise[i] goes to x[i]

    Reference: Bertsekas 1988, "The auction algorithm: a distributed relaxation method for the assignment problem";
        Tong et al. 2023, arXiv:2302.00482; Pooladian et al. 2023, arXiv:2304.14772.
    """
    cost = ops.stop_gradient(ops.cast(cost, "float32"))
    shape = tuple(cost.shape)
    square = len(shape) == 2 and same_shape(shape, shape[::-1]) and 0 not in shape
    check(square, "cost", "be a square matrix (n, n), n >= 1", f"shape {shape}")
    return ops.cast(ops.argsort(_auction(cost)), "int32")


def _auction(cost: Any) -> Any:
    """Returns the row of each column."""
    n = ops.shape(cost)[0]
    excess = cost - ops.min(cost)
    # What a row or a column costs in any pairing says nothing: it would only enlarge the first bids.
    centered = excess - ops.mean(excess, axis=1, keepdims=True)
    centered = centered - ops.mean(centered, axis=0)
    deviation = ops.std(centered)
    first = FIRST * ops.where(deviation > 0, deviation, 1.0)
    largest = 2 * ops.max(ops.abs(centered))

    def more_phases(phase: Any, rounds: Any, is_far: Any, slack: Any, prices: Any, row_of: Any) -> Any:
        return (phase < PHASES) & (rounds < ROUNDS * n) & is_far

    def run_phase(phase: Any, rounds: Any, is_far: Any, slack: Any, prices: Any, row_of: Any) -> tuple[Any, ...]:
        epsilon = first * ops.power(SHRINK, -ops.cast(phase, "float32"))
        epsilon = ops.maximum(epsilon, RESOLUTION * largest)

        def more_rounds(rounds: Any, prices: Any, row_of: Any) -> Any:
            return ops.any(row_of == n) & (rounds < ROUNDS * n)

        def run_round(rounds: Any, prices: Any, row_of: Any) -> tuple[Any, Any, Any]:
            return rounds + 1, *_bid(centered, largest, epsilon, prices, row_of)

        row_of = ops.where(slack > epsilon, n, row_of)  # the discontent bid again
        rounds, prices, row_of = sequential_while(more_rounds, run_round, (rounds, prices, row_of))
        rows = ops.minimum(row_of, n - 1)
        slack = _paid(centered, rows) + prices - ops.take(ops.min(centered + prices, axis=1), rows)
        gap = ops.sum(slack)
        least = ops.sum(_paid(excess, rows)) - gap  # no pairing costs less
        return phase + 1, rounds, gap > TOLERANCE * least, slack, prices, row_of

    nothing, none = ops.zeros_like(cost[0]), ops.full_like(cost[0], n, dtype="int32")  # n stands for no row
    state = ops.zeros((), "int32"), ops.zeros((), "int32"), ops.ones((), "bool"), nothing, nothing, none
    return _fill(sequential_while(more_phases, run_phase, state)[-1])


def _bid(cost: Any, largest: Any, epsilon: Any, prices: Any, row_of: Any) -> tuple[Any, Any]:
    """Lets the first rows without a column bid; returns the new prices and owners."""
    n = ops.shape(cost)[0]
    # By their numbers, as `top_k` leaves the order of equal values open.
    bidders = n - ops.top_k(ops.where(_has_column(row_of), 0, n - _numbers(row_of)), _at_most(n, BIDDERS))[0]
    values = ops.take(cost, ops.minimum(bidders, n - 1), axis=0) + prices
    is_best = ops.argmin(values, axis=1)[:, None] == _numbers(row_of)
    best = ops.min(values, axis=1)
    second = ops.min(ops.where(is_best, best[:, None] + largest, values), axis=1)
    offers = ops.where(is_best & (bidders < n)[:, None], (second - best + epsilon)[:, None], 0.0)
    offer = ops.max(offers, axis=0)
    winner = ops.take(bidders, ops.argmax(offers, axis=0))
    return prices + offer, ops.where(offer > 0, winner, row_of)


def _paid(cost: Any, rows: Any) -> Any:
    """Returns the cost of each column with its row."""
    return ops.take_along_axis(cost, rows[None], axis=0)[0]


def _fill(row_of: Any) -> Any:
    """Gives the columns left over, if any, the rows left over."""
    n = ops.shape(row_of)[0]
    left = ops.sort(ops.where(_has_column(row_of), n, _numbers(row_of)))
    rank = ops.cumsum(ops.cast(row_of == n, "int32")) - 1
    return ops.where(row_of == n, ops.take(left, ops.maximum(rank, 0)), row_of)


def _has_column(row_of: Any) -> Any:
    """Returns a bool for each row."""
    n = ops.shape(row_of)[0]
    return ops.segment_sum(ops.ones_like(row_of), row_of, num_segments=n + 1)[:n] > 0


def _numbers(row_of: Any) -> Any:
    return ops.arange(ops.shape(row_of)[0], dtype="int32")


def _at_most(n: Any, limit: int) -> Any:
    return min(n, limit) if isinstance(n, int) else ops.minimum(n, limit)
