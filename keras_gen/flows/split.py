"""Ways to take the numbers of a sample apart into two halves, and to put them together again."""

from typing import Any

from keras import ops

from keras_gen.core.checks import check


class LastAxisSplit:
    """The first and the second half of the last axis: features of vectors, channels of images."""

    rank = None
    axis = -1
    rule = "have an even size on the last axis (and at least 2)"

    def check(self, shape: Any) -> None:
        """Refuses data that cannot be halved."""
        fits = self.rank is None or len(shape) == self.rank
        check(fits and len(shape) > 1, "x", "be images (batch, height, width, channels)", f"shape {tuple(shape)}")
        size = shape[self.axis]
        check(size is not None and size % 2 == 0, "x", self.rule, f"shape {tuple(shape)}")

    def half_shape(self, shape: Any) -> tuple[Any, ...]:
        """Returns the shape of each half."""
        half = list(shape)
        half[self.axis] //= 2
        return tuple(half)

    def seen_shape(self, shape: Any) -> tuple[Any, ...]:
        """Returns the shape of what a conditioner sees."""
        return self.half_shape(shape)

    def parts(self, x: Any) -> tuple[Any, Any]:
        """Returns the two halves."""
        a, b = ops.split(x, 2, axis=-1)
        return a, b

    def join(self, a: Any, b: Any) -> Any:
        """Puts the halves together."""
        return ops.concatenate([a, b], axis=-1)

    def seen(self, a: Any, first: bool) -> Any:
        """Returns what a conditioner sees of the half `a`, the first or the second one."""
        return a

    def half_of_seen(self, output: Any, first: bool) -> Any:
        """Returns what a conditioner's output says about the other half."""
        return output


class ChannelSplit(LastAxisSplit):
    """The first and the second half of the channels of images."""

    rank = 4


class InterleavedSplit(LastAxisSplit):
    """The even and the odd places of the last axis."""

    def parts(self, x: Any) -> tuple[Any, Any]:
        pairs = ops.reshape(x, (*ops.shape(x)[:-1], x.shape[-1] // 2, 2))
        return pairs[..., 0], pairs[..., 1]

    def join(self, a: Any, b: Any) -> Any:
        pairs = ops.stack([a, b], axis=-1)
        return ops.reshape(pairs, (*ops.shape(a)[:-1], 2 * a.shape[-1]))


class CheckerboardSplit(LastAxisSplit):
    """The two colors of a checkerboard laid on images: halves of half the width.

    A conditioner sees the whole image, with zeros on the other color, so that neighbors stay neighbors.
    """

    rank = 4
    axis = 2
    rule = "have an even width"

    def seen_shape(self, shape: Any) -> tuple[Any, ...]:
        return tuple(shape)

    def parts(self, x: Any) -> tuple[Any, Any]:
        shape = ops.shape(x)
        pairs = ops.reshape(x, (shape[0], shape[1], x.shape[2] // 2, 2, x.shape[3]))
        left, right = pairs[:, :, :, 0], pairs[:, :, :, 1]
        even = self._even_rows(x)
        return ops.where(even, left, right), ops.where(even, right, left)

    def join(self, a: Any, b: Any) -> Any:
        even = self._even_rows(a)
        pairs = ops.stack([ops.where(even, a, b), ops.where(even, b, a)], axis=3)
        shape = ops.shape(a)
        return ops.reshape(pairs, (shape[0], shape[1], 2 * a.shape[2], a.shape[3]))

    def seen(self, a: Any, first: bool) -> Any:
        other = ops.zeros_like(a)
        return self.join(a, other) if first else self.join(other, a)

    def half_of_seen(self, output: Any, first: bool) -> Any:
        return self.parts(output)[1 if first else 0]

    def _even_rows(self, x: Any) -> Any:
        return ops.reshape(ops.arange(ops.shape(x)[1]) % 2 == 0, (1, -1, 1, 1))


SPLITS = {
    "half": LastAxisSplit,
    "interleave": InterleavedSplit,
    "checkerboard": CheckerboardSplit,
    "channel": ChannelSplit,
}
