import keras
import numpy as np
import pytest

from keras_gen.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Bijector,
    Chain,
    Conditioner,
    ContinuousFlow,
    Dequantize,
    Invert,
    Invertible1x1Conv,
    LogitTransform,
    MaskedAutoregressive,
    MaskedDense,
    MultiScale,
    Permutation,
    Reshape,
    Scale,
    SplineCoupling,
    Squeeze,
)

Dense = keras.layers.Dense


NAN = float("nan")
INFINITY = float("inf")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: AffineCoupling(units=[4], scale_map="cubic"), "`scale_map` must be a function or one of 'tanh'"),
        (lambda: AffineCoupling(units=[4], scale_map=None), "`scale_map` must be a function or one of"),
        (lambda: AffineCoupling(units=[4], scale_map=["tanh"]), "`scale_map` must be a function or one of"),
        (lambda: MaskedAutoregressive([4], scale_map="cubic"), "`scale_map` must be a function or one of"),
        (lambda: MaskedAutoregressive([]), "`units` must hold at least one size"),
        (lambda: MaskedAutoregressive([0]), "`units` must be an integer >= 1"),
        (lambda: MaskedAutoregressive(4), "`units` must be a list"),
        (lambda: MaskedDense([], [1]), "`input_degrees` must be a list of integers"),
        (lambda: MaskedDense([1], [1.5]), "`output_degrees` must be a list of integers"),
        (lambda: SplineCoupling(units=[4], num_bins=1), "`num_bins` must be an integer >= 2"),
        (lambda: SplineCoupling(units=[4], num_bins=501), "`num_bins` must be <= 500. Received: num_bins=501"),
        (lambda: SplineCoupling(units=[4], bound=0), "`bound` must be > 0"),
        (lambda: SplineCoupling(units=[4], bound=-1.0), "`bound` must be > 0"),
        (lambda: SplineCoupling(units=[4], bound=NAN), "`bound` must be"),
        (lambda: SplineCoupling(units=[4], bound=INFINITY), "`bound` must be"),
        (lambda: SplineCoupling(units=[4], bound="5"), "`bound` must be > 0"),
        (lambda: Squeeze(1), "`factor` must be an integer >= 2"),
        (lambda: Squeeze(2.0), "`factor` must be an integer >= 2"),
        (lambda: Scale(0), "`rate` must be > 0"),
        (lambda: Scale(NAN), "`rate` must be"),
        (lambda: Scale(INFINITY), "`rate` must be"),
        (lambda: Invertible1x1Conv(np.ones((2, 3))), r"`matrix` must be square. Received: matrix=shape \(2, 3\)"),
        (lambda: Invertible1x1Conv([1.0, 2.0]), "`matrix` must be square"),
        (lambda: Invertible1x1Conv(np.ones((3, 3))), "`matrix` must be invertible, with a condition number below 1e6"),
        (lambda: Invertible1x1Conv(np.zeros((2, 2))), "`matrix` must be invertible"),
        (lambda: Invertible1x1Conv(np.diag([1.0, 1e-9])), "`matrix` must be invertible"),
        (lambda: Invertible1x1Conv(np.diag([1.0, NAN])), "`matrix` must be finite"),
        (lambda: Invertible1x1Conv(np.diag([1.0, INFINITY])), "`matrix` must be finite"),
        (lambda: Invertible1x1Conv(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Permutation("sorted"), "`order` must be 'random', 'reverse' or a permutation"),
        (lambda: Permutation([0, 0, 1]), "`order` must contain each of 0 .. features - 1 once"),
        (lambda: Permutation([1, 2, 3]), "`order` must contain each of 0 .. features - 1 once"),
        (lambda: Permutation([0.5, 1.5]), "`order` must"),
        (lambda: Permutation(3), "`order` must"),
        (lambda: Permutation(seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Reshape(()), "`target_shape` must be positive integers, except for at most one -1"),
        (lambda: Reshape((-1, -1)), "`target_shape` must be positive integers, except for at most one -1"),
        (lambda: Reshape((0, 4)), "`target_shape` must be positive integers"),
        (lambda: Reshape(6), "`target_shape` must be positive integers"),
        (lambda: LogitTransform(0.5), r"`alpha` must be in \[0, 0.5\). Received: alpha=0.5"),
        (lambda: LogitTransform(-0.1), r"`alpha` must be in \[0, 0.5\)"),
        (lambda: LogitTransform(NAN), r"`alpha` must be in \[0, 0.5\)"),
        (lambda: LogitTransform("0.1"), r"`alpha` must be in \[0, 0.5\)"),
        (lambda: Dequantize(1), "`levels` must be an integer >= 2"),
        (lambda: Dequantize(256.0), "`levels` must be an integer >= 2"),
        (lambda: Dequantize(2**24), "`levels` must be at most 1048576 in float32. Received: levels=16777216"),
        (lambda: Dequantize(256, Dense(3)), "`bijector` must be a bijector"),
        (lambda: Dequantize(256, seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Chain([]), "`bijectors` must be a list of bijectors"),
        (lambda: Chain(Scale()), "`bijectors` must be a list of bijectors"),
        (lambda: Chain([Scale(), Dense(3)]), "`bijectors` must contain only bijectors"),
        (lambda: MultiScale([]), "`levels` must be a list of bijectors"),
        (lambda: MultiScale([Dense(3)]), "`levels` must contain only bijectors"),
        (lambda: Invert(Dense(3)), "`bijector` must be a bijector"),
        (lambda: ContinuousFlow(), "`network` must be given if and only if `units` is not"),
        (lambda: ContinuousFlow(Dense(3), [4]), "`network` must be given if and only if `units` is not"),
        (lambda: ContinuousFlow(lambda x: x), "`network` must be a keras.Layer"),
        (lambda: ContinuousFlow(units=4), "`units` must be a list"),
        (lambda: ContinuousFlow(units=[4], steps=0), "`steps` must be an integer >= 1"),
        (lambda: ContinuousFlow(units=[4], tolerance=0), "`tolerance` must be > 0 or None. Received: tolerance=0"),
        (lambda: ContinuousFlow(units=[4], tolerance="1e-5"), "`tolerance` must be > 0 or None"),
        (lambda: ContinuousFlow(units=[4], trace="diagonal"), "`trace` must be one of 'exact', 'hutchinson'"),
        (lambda: ContinuousFlow(units=[4], seed=-1), "`seed` must be an integer >= 0"),
        (lambda: Conditioner(0, [4]), "`outputs` must be an integer >= 1"),
        (lambda: Conditioner(2, "44"), "`units` must be a list"),
        (lambda: Conditioner(2, [4], dropout=1.0), r"`dropout` must be in \[0, 1\)"),
    ],
)
def test_bad_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    ("make", "shape", "match"),
    [
        (Squeeze, (2, 3, 4, 1), r"`x` must have height and width divisible by 2. Received: x=shape \(2, 3, 4, 1\)"),
        (lambda: Squeeze(3), (2, 4, 6, 1), "`x` must have height and width divisible by 3"),
        (Squeeze, (2, 4), "`x` must be images"),
        (lambda: Invertible1x1Conv(np.eye(3)), (2, 4), "`matrix` must be 4 x 4, as x has 4 features"),
        (lambda: Permutation([1, 0, 2]), (2, 4), "`order` must have one entry per feature of x, 4"),
        (lambda: Reshape((4,)), (2, 6), "`target_shape` must hold the 6 values of a sample"),
        (lambda: Reshape((-1, 4)), (2, 6), "`target_shape` must hold the 6 values of a sample"),
        (lambda: Invert(Squeeze()), (2, 4, 4, 1), "`bijector` must keep the shape of its input"),
        (lambda: Dequantize(17, Squeeze()), (2, 4, 4, 1), "`bijector` must"),
        (lambda: MultiScale([ActNorm(), ActNorm()]), (2, 4, 4, 1), "`x` must have at least 2 channels"),
        (lambda: ContinuousFlow(Conditioner(2, [4])), (2, 3), "`network` must give outputs of shape"),
        (lambda: MaskedAutoregressive([4]), (2, 4, 4, 1), r"`x` must be vectors \(batch, features\)"),
        (lambda: MaskedAutoregressive([4]), (2, 0), "`x` must have at least 1 feature"),
        (lambda: MaskedDense([1, 2], [1]), (2, 3), "`x` must have 2 features"),
        (lambda: Conditioner(2, [4]), (2, 3, 3), "`inputs` must be vectors"),
    ],
)
def test_bad_input(make, shape, match):
    with pytest.raises(ValueError, match=match):
        make()(np.zeros(shape, "float32"))


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (ActNorm, (None, 4, 2)),
        (Scale, (None,)),
        (Invertible1x1Conv, (None, 4, 2)),
        (Reshape, (None, 4)),
        (lambda: AdditiveCoupling(units=[4]), (None,)),
        (lambda: MaskedAutoregressive([4]), (None,)),
        (lambda: ContinuousFlow(units=[4]), (None,)),
        (lambda: MultiScale([Scale()]), (None, 4, 2)),
    ],
)
def test_unknown_sizes_are_refused(make, shape):
    with pytest.raises(ValueError, match="`x` must"):
        make()(keras.Input(shape))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the others have 64-bit numbers always")
@pytest.mark.parametrize("make", [ActNorm, Reshape, lambda dtype: AdditiveCoupling(units=[4], dtype=dtype)])
def test_float64_needs_64_bit_numbers(make):
    with pytest.raises(ValueError, match="`dtype` must be float32 unless JAX_ENABLE_X64=1 is set"):
        make(dtype="float64")


class Doubles(Bijector):
    """y = 2 x, with one log-determinant for each dimension instead of their sum."""

    def forward_and_log_det(self, x, condition=None, training=False):
        return 2 * x, keras.ops.log(2 * keras.ops.ones_like(x))

    def inverse_and_log_det(self, y, condition=None, training=False):
        return y / 2, -keras.ops.log(2 * keras.ops.ones_like(y))


@pytest.mark.parametrize("bijector", [Doubles(), Chain([Doubles(), Scale()])])
def test_a_log_determinant_of_each_dimension_is_refused(bijector):
    """With as many samples as dimensions it would be broadcast."""
    message = r"`bijector` must return one log-determinant for each sample.*=Doubles, whose log_det has shape \(2, 2\)"
    for inverse in (False, True):
        with pytest.raises(ValueError, match=message):
            bijector(np.zeros((2, 2), "float32"), inverse=inverse)
