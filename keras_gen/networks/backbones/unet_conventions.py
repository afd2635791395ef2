from typing import Any

from keras_gen.core.checks import check, check_choice, check_integer, is_number
from keras_gen.export import keras_gen_export


@keras_gen_export("keras_gen.models.UNetConventions")
class UNetConventions:
    """What U-Nets of the same shape do differently from one another. `UNet.from_diffusers` finds them by itself.

    Args:
        groups: int >= 1 or `None`. Groups of all normalizations. Defaults to `None`: 8, or fewer for few channels.
        epsilon: float > 0. Of all normalizations. Defaults to `1e-5`.
        head_dim: int >= 1 or `None`. Channels of one head of attention. Defaults to `None`: one head has all.
        max_period: float > 1. The longest period of the embedding of the time, over 2 pi. Frequencies that fall to
            exactly `1 / P` in `half` steps, "frequency shift 1", have `max_period = P^(half / (half - 1))`. Defaults
            to `10000.0`.
        symmetric_padding: bool. Whether the strided convolutions pad all four borders, not the right and bottom alone.
            Defaults to `False`.
        middle: `"auto"`, `"attention"`, `"plain"` or `"none"`. Whether two blocks stand between the way down and the
            way up, and attention between them; with `"auto"`, it is there if the coarsest level has it. Defaults to
            `"auto"`.
        scale_shift: bool. Whether the embedding gives each block a scale and a shift after its second normalization,
            instead of a shift before it. Defaults to `False`.

    Raises:
        ValueError: if an argument is outside its range.

    Example:

    >>> conventions = keras_gen.models.UNetConventions(scale_shift=True, head_dim=16)
    >>> network = keras_gen.models.UNet((32, 32, 3), attention_levels=(2,), conventions=conventions)

    Reference: Ho et al. 2020, arXiv:2006.11239; Dhariwal and Nichol 2021, arXiv:2105.05233, for `scale_shift`.
    """

    def __init__(
        self,
        groups: int | None = None,
        epsilon: float = 1e-5,
        head_dim: int | None = None,
        max_period: float = 10000.0,
        symmetric_padding: bool = False,
        middle: str = "auto",
        scale_shift: bool = False,
    ):
        self.groups = None if groups is None else check_integer("groups", groups)
        check(is_number(epsilon) and epsilon > 0, "epsilon", "be > 0", repr(epsilon))
        self.epsilon = float(epsilon)
        self.head_dim = None if head_dim is None else check_integer("head_dim", head_dim)
        check(is_number(max_period) and max_period > 1, "max_period", "be > 1", repr(max_period))
        self.max_period = float(max_period)
        self.symmetric_padding = bool(symmetric_padding)
        check_choice("middle", middle, ("auto", "attention", "plain", "none"))
        self.middle = middle
        self.scale_shift = bool(scale_shift)

    def heads(self, channels: int) -> int:
        """Returns the number of heads of attention on so many channels."""
        head_dim = self.head_dim or channels
        check(channels % head_dim == 0, "head_dim", f"divide {channels} channels", head_dim)
        return channels // head_dim

    def get_config(self) -> dict[str, Any]:
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "UNetConventions":
        return cls(**config)
