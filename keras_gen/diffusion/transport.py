from typing import Any

from keras import ops

from keras_gen.core.checks import check, check_finite, same_shape
from keras_gen.core.compiled import sequential_while
from keras_gen.export import keras_gen_export

TOLERANCE = 0.01
BIDDERS = 16  # maximum number of bids per round: nearly all rounds have fewer, and a round costs BIDDERS x n
FIRST, SHRINK, PHASES = 0.1, 5.0, 7  # initial e, in standard deviations of the costs, and its decrease
ROUNDS = 60  # maximum number, times n: points in the plane, the slowest case, took up to 14
RESOLUTION = 1e-6  # relative to the largest price increase: a smaller e would be lost to rounding


@keras_gen_export("keras_gen.ops.optimal_pairing")
def optimal_pairing(cost: Any) -> Any:
    """Solves the assignment problem by an auction, such as pairing noise with data in minibatch optimal transport.

        minimize sum_i c[i, pairing[i]] over permutations

    Columns have prices p. An unassigned row bids for the column with minimum `c + p`: it raises the price so that its
    second-best column becomes cheaper by e, and the previous owner is displaced. Once all rows are assigned, each is
    within e of its best column. No pairing costs less than `sum_i min_j (c[i, j] + p[j]) - sum_j p[j]`. While the total
    is too far above this bound, e is divided by 5, and rows no longer within e of their best column bid again.

    The total of `c - min(c)` is then at most 1% above the minimum, usually < 0.1% for Gaussian points. The gap can be
    larger if the auction reaches one of its limits: e ends at 6e-6 standard deviations of the costs, which matters if
    the minimum is tiny in comparison; and after 60 n rounds, unassigned rows and columns are paired in order.

    It can run inside a compiled function. It is not differentiable.

    Args:
        cost: float tensor `(n, n)`, finite, of any sign; such as the squared distances between n draws and n samples.

    Returns:
        int32 tensor `(n,)`, always a permutation: `pairing[i]` is the column of row i.

    Raises:
        ValueError: if `cost` is not a square matrix of real numbers, or a NumPy array that is not finite. The values of
            a tensor are not checked, since it may be one of a compiled step: NaN gives an arbitrary permutation.

    Example:

    >>> cost = keras.ops.sum((noise[:, None] - x[None]) ** 2, axis=-1)
    >>> x = keras.ops.take(x, keras_gen.ops.optimal_pairing(cost), axis=0)  # noise[i] is now paired with x[i]

    Reference: Bertsekas 1988, "The auction algorithm: a distributed relaxation method for the assignment problem";
        Tong et al. 2023, arXiv:2302.00482; Pooladian et al. 2023, arXiv:2304.14772.
    """
    check_finite("cost", cost)
    cost = ops.stop_gradient(ops.cast(cost, "float32"))
    shape = tuple(cost.shape)
    is_square = len(shape) == 2 and same_shape(shape, shape[::-1]) and 0 not in shape
    check(is_square, "cost", "be a square matrix (n, n), n >= 1", f"shape {shape}")
    return ops.cast(ops.argsort(_auction(cost)), "int32")


def _auction(cost: Any) -> Any:
    """Returns the row assigned to each column."""
    n = ops.shape(cost)[0]
    excess = cost - ops.min(cost)
    # Row and column means contribute equally to all pairings: they would only enlarge the first bids.
    centered = excess - ops.mean(excess, axis=1, keepdims=True)
    centered = centered - ops.mean(centered, axis=0)
    std = ops.std(centered)
    first = FIRST * ops.where(std > 0, std, 1.0)
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

        row_of = ops.where(slack > epsilon, n, row_of)  # rows not within epsilon of their best column bid again
        rounds, prices, row_of = sequential_while(more_rounds, run_round, (rounds, prices, row_of))
        rows = ops.minimum(row_of, n - 1)
        slack = _assigned_cost(centered, rows) + prices - ops.take(ops.min(centered + prices, axis=1), rows)
        gap = ops.sum(slack)
        lower_bound = ops.sum(_assigned_cost(excess, rows)) - gap
        return phase + 1, rounds, gap > TOLERANCE * lower_bound, slack, prices, row_of

    zeros, unassigned = ops.zeros_like(cost[0]), ops.full_like(cost[0], n, dtype="int32")  # n means no row
    state = ops.zeros((), "int32"), ops.zeros((), "int32"), ops.ones((), "bool"), zeros, zeros, unassigned
    return _fill(sequential_while(more_phases, run_phase, state)[-1])


def _bid(cost: Any, largest: Any, epsilon: Any, prices: Any, row_of: Any) -> tuple[Any, Any]:
    """Runs one round of bids by the first unassigned rows; returns the new prices and owners."""
    n = ops.shape(cost)[0]
    # By index, since `top_k` does not specify the order of equal values.
    bidders = n - ops.top_k(ops.where(_has_column(row_of), 0, n - _indices(row_of)), _minimum(n, BIDDERS))[0]
    values = ops.take(cost, ops.minimum(bidders, n - 1), axis=0) + prices
    is_best = ops.argmin(values, axis=1)[:, None] == _indices(row_of)
    best = ops.min(values, axis=1)
    second = ops.min(ops.where(is_best, best[:, None] + largest, values), axis=1)
    offers = ops.where(is_best & (bidders < n)[:, None], (second - best + epsilon)[:, None], 0.0)
    offer = ops.max(offers, axis=0)
    winner = ops.take(bidders, ops.argmax(offers, axis=0))
    return prices + offer, ops.where(offer > 0, winner, row_of)


def _assigned_cost(cost: Any, rows: Any) -> Any:
    """Returns the cost of each column with its assigned row."""
    return ops.take_along_axis(cost, rows[None], axis=0)[0]


def _fill(row_of: Any) -> Any:
    """Assigns the remaining rows, if any, to the remaining columns in order."""
    n = ops.shape(row_of)[0]
    remaining = ops.sort(ops.where(_has_column(row_of), n, _indices(row_of)))
    rank = ops.cumsum(ops.cast(row_of == n, "int32")) - 1
    return ops.where(row_of == n, ops.take(remaining, ops.maximum(rank, 0)), row_of)


def _has_column(row_of: Any) -> Any:
    """Returns whether each row is assigned."""
    n = ops.shape(row_of)[0]
    return ops.segment_sum(ops.ones_like(row_of), row_of, num_segments=n + 1)[:n] > 0


def _indices(row_of: Any) -> Any:
    return ops.arange(ops.shape(row_of)[0], dtype="int32")


def _minimum(n: Any, limit: int) -> Any:
    return min(n, limit) if isinstance(n, int) else ops.minimum(n, limit)
