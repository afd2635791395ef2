import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gen.core.checks import (
    check,
    check_flag,
    check_integer,
    check_real,
    is_number,
    real_tensor,
    same_shape,
)
from keras_gen.core.compiled import sequential_loop
from keras_gen.export import keras_gen_export
from keras_gen.networks.blocks.recomputing import recomputed

MASKED = -1e30  # not -inf, whose differences are NaN


@keras_gen_export("keras_gen.ops.tiled_attention")
def tiled_attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    tile: int = 256,
) -> Any:
    """Computes softmax attention tile by tile, without the full matrix of scores, by the online softmax.

        m' = max(m, max_j s_j),   z' = z e^(m - m') + sum_j e^(s_j - m'),   o' = o e^(m - m') + sum_j e^(s_j - m') v_j
        attention = o / z after the last tile

    Memory beyond inputs and output is that of one tile of queries by one of keys, for any length. Use it for long
    sequences on backends without a fused kernel; with one, `keras.ops.dot_product_attention` is faster. The backward
    pass computes the scores again, for one tile of queries after the other, so that the memory of training grows as the
    number of tokens, too. TensorFlow therefore has no second derivative of it, nor one in forward mode. Sums are in
    float32. The output is zero for a query whose keys are all masked.

    Args:
        query: `(batch, tokens, heads, dim)`.
        key: `(batch, key tokens, heads, dim)`.
        value: `(batch, key tokens, heads, dim)`.
        mask: bool that broadcasts to `(batch, heads, tokens, key tokens)`, `True` where a query attends to a key,
            or `None`. Defaults to `None`.
        is_causal: bool. Whether query i attends to keys 0 .. i only. Defaults to `False`.
        scale: float, factor of the scores, or `None`, 1 / sqrt(dim). Defaults to `None`.
        tile: int >= 1. Number of queries, and of keys, per tile. Defaults to `256`.

    Returns:
        A tensor `(batch, tokens, heads, dim)` of the query's dtype.

    Raises:
        ValueError: if shapes are incompatible, `mask` is floating-point, an argument is not of real numbers, or `tile`
            is not a positive integer.

    Example:

    >>> y = keras_gen.ops.tiled_attention(q, k, v, is_causal=True)

    Reference: Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135.
    """
    query, key, value = (real_tensor(name, x) for name, x in (("query", query), ("key", key), ("value", value)))
    check_flag("is_causal", is_causal)
    check(scale is None or is_number(scale), "scale", "be a finite number or None", repr(scale))
    check_integer("tile", tile)
    _check_shapes(query, key, value)
    tokens, dim, keys = query.shape[1], query.shape[3], key.shape[1]
    scale = 1 / math.sqrt(dim) if scale is None else scale
    # (batch, heads, tokens, dim), padded to whole tiles.
    q, k, v = (_whole_tiles(ops.cast(ops.transpose(x, (0, 2, 1, 3)), "float32"), 2, tile) for x in (query, key, value))
    q = q * scale
    if mask is not None:
        mask = _whole_tiles(_whole_tiles(_as_matrix(mask, tokens, keys), 2, tile), 3, tile)

    def seen(i: Any, j: Any) -> Any:
        rows, columns = (start * tile + ops.arange(tile, dtype="int32") for start in (i, j))
        result = ops.broadcast_to(columns < keys, (1, 1, tile, tile))
        if is_causal:
            result = ops.logical_and(result, rows[:, None] >= columns)
        return result if mask is None else ops.logical_and(result, _tile_of(_tile_of(mask, i, 2, tile), j, 3, tile))

    def attend(i: Any) -> Any:
        def attention(q_tile: Any, k: Any, v: Any) -> Any:
            def add_tile(j: Any, state: Any) -> Any:
                return _add_tile(state, q_tile, _tile_of(k, j, 2, tile), _tile_of(v, j, 2, tile), seen(i, j))

            def add_past_tile(j: Any, state: Any) -> Any:
                return ops.cond(j <= i, lambda: add_tile(j, state), lambda: state)

            nothing = ops.zeros_like(q_tile[..., :1])
            start = (nothing + MASKED, nothing, ops.zeros_like(q_tile))
            stop, step = k.shape[2] // tile, add_tile
            if is_causal and isinstance(i, int):
                stop = min(i + 1, stop)
            elif is_causal:  # JAX has no derivative of a loop whose end is a tensor
                step = add_past_tile
            _, z, o = sequential_loop(0, stop, step, start)
            return o / ops.maximum(z, 1e-30)

        return recomputed(attention)(_tile_of(q, i, 2, tile), k, v)

    tiles = _one_after_the_other(attend, q.shape[2] // tile)
    output = ops.reshape(ops.moveaxis(tiles, 0, 2), (-1, *q.shape[1:]))
    return ops.cast(ops.transpose(output[:, :, :tokens], (0, 2, 1, 3)), query.dtype)


def _check_shapes(query: Any, key: Any, value: Any) -> None:
    is_compatible = len(query.shape) == len(key.shape) == 4 and tuple(query.shape[2:]) == tuple(key.shape[2:])
    shapes = f"shape {tuple(key.shape)}, query {tuple(query.shape)}"
    check(is_compatible, "key", "have the query's heads and dim", shapes)
    check(tuple(key.shape) == tuple(value.shape), "value", "have the key's shape", f"shape {tuple(value.shape)}")
    check(same_shape(query.shape[:1], key.shape[:1]), "key", "have the query's batch size", f"shape {tuple(key.shape)}")


def _one_after_the_other(function: Callable[[Any], Any], n: int) -> Any:
    """Stacks the results for 0 .. n - 1, computed by a compiled loop: in parallel, all scores would be in memory."""
    if keras.backend.backend() == "torch":  # where nothing is compiled, and Python's integers cost less than tensors
        return ops.stack([function(i) for i in range(n)])
    return ops.map(function, ops.arange(n, dtype="int32"))


def _add_tile(state: Any, q: Any, k: Any, v: Any, seen: Any) -> Any:
    """Takes one more tile of keys and values into the maximum, the sum and the weighted values of a tile of queries."""
    m, z, o = state
    s = ops.where(seen, ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))), MASKED)
    # The maximum only prevents overflow: the result does not depend on it.
    m_new = ops.maximum(m, ops.stop_gradient(ops.max(s, axis=-1, keepdims=True)))
    p = ops.where(seen, ops.exp(s - m_new), 0.0)
    shrink = ops.exp(m - m_new)
    return m_new, z * shrink + ops.sum(p, axis=-1, keepdims=True), o * shrink + ops.matmul(p, v)


def _tile_of(x: Any, i: Any, axis: int, tile: int) -> Any:
    start, shape = [0] * 4, list(ops.shape(x))
    start[axis], shape[axis] = i * tile, tile
    return ops.slice(x, start, shape)


def _whole_tiles(x: Any, axis: int, tile: int) -> Any:
    """Pads `x` with zeros to a multiple of `tile`."""
    padding = [(0, 0)] * len(x.shape)
    padding[axis] = (0, -x.shape[axis] % tile)
    return ops.pad(x, padding)


def _as_matrix(mask: Any, tokens: int, keys: int) -> Any:
    """Expands a mask to four axes and broadcasts the last two; the first two may be 1."""
    check_real("mask", mask)
    mask = ops.convert_to_tensor(mask)
    dtype = keras.backend.standardize_dtype(mask.dtype)
    # Of floats, 0 may mean "attend", in a mask that is added to the scores, or "do not".
    check("float" not in dtype, "mask", "be bool", f"dtype {dtype}")
    mask = ops.cast(mask, "bool")
    is_broadcastable = len(mask.shape) <= 4 and all(
        a in (1, None, b) for a, b in zip(mask.shape[::-1], (keys, tokens), strict=False)
    )
    check(is_broadcastable, "mask", f"broadcast to (batch, heads, {tokens}, {keys})", f"shape {tuple(mask.shape)}")
    while len(mask.shape) < 4:
        mask = ops.expand_dims(mask, 0)
    return ops.logical_and(mask, ops.ones((tokens, keys), "bool"))
