import keras
import numpy as np
import pytest
from keras import ops
from laws import LAYERS
from laws.networks import NETWORKS
from programs import one_program

from keras_gen.core.fixtures import as_inputs, flat_numpy, functional, randomize_weights, to_numpy
from keras_gen.layers import (
    CrossAttention2D,
    GroupNorm,
    LightBlock,
    ResidualBlock,
    SelfAttention2D,
    SinusoidalEmbedding,
)
from keras_gen.models import DDPM, LightUNet, UNet, UNetConventions
from keras_gen.ops import gradient
from keras_gen.schedules import CosineSchedule

X = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype("float32")
EMBEDDING = np.random.default_rng(1).normal(size=(2, 6)).astype("float32")
T = np.array([0, 999], "int32")


def outputs(network, *arrays):
    """Compiled as a whole, which on JAX is sooner done than one operation after the other."""
    return to_numpy(one_program(network, network)([ops.convert_to_tensor(array) for array in arrays]))


@pytest.mark.parametrize(("groups", "shape"), [(1, (2, 5, 5, 4)), (2, (3, 7, 8)), (4, (2, 3, 4, 5, 4))])
def test_group_norm_is_that_of_keras(groups, shape):
    x = np.random.default_rng(0).normal(3.0, 2.0, shape).astype("float32")
    ours, theirs = GroupNorm(groups, epsilon=1e-3), keras.layers.GroupNormalization(groups)
    ours(x), theirs(x)
    randomize_weights(ours)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(to_numpy(ours(x)), to_numpy(theirs(x)), rtol=1e-4, atol=1e-4)


def test_group_norm_learns_what_that_of_keras_does():
    """On data, which need no gradient, and on what does, by each way that there is on a backend."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 5, 8)).astype("float32")
    weights = []
    for make in (lambda: GroupNorm(4, epsilon=1e-3), lambda: keras.layers.GroupNormalization(4)):
        model = keras.Sequential([keras.Input((5, 5, 8)), make(), keras.layers.Conv2D(8, 1), make()])
        randomize_weights(model)
        model.compile(keras.optimizers.SGD(0.1), loss="mse")
        model.fit(x, np.sin(x), epochs=3, verbose=0)
        weights.append([to_numpy(weight) for weight in model.weights])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_group_norm_of_one_pixel_and_with_an_infinite_shift():
    layer = GroupNorm(2)
    layer.build((1, 1, 1, 2))
    np.testing.assert_allclose(to_numpy(layer(np.ones((1, 1, 1, 2), "float32"))), 0, atol=1e-5)
    layer.beta.assign([np.inf, 0.0])
    y = to_numpy(layer(np.ones((2, 3, 3, 2), "float32")))
    assert np.isinf(y[..., 0]).all()
    np.testing.assert_allclose(y[..., 1], 0, atol=1e-5)


@pytest.mark.parametrize("of", ["gamma", "beta"])
def test_gradient_of_one_weight_alone(of):
    layer = GroupNorm(2)
    layer.build((2, 5, 5, 8))
    h = keras.layers.Conv2D(8, 1)(np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 5, 8)).astype("float32"))
    weight = getattr(layer, of)

    def output(value):
        with keras.StatelessScope(state_mapping=[(weight, value)]):
            return ops.square(layer(h))

    assert np.abs(to_numpy(gradient(output, ops.convert_to_tensor(weight)))).max() > 1e-3


def test_group_norm_is_differentiated_forward():
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 5, 8)).astype("float32"))
    v = ops.roll(x, 1, axis=-1)
    layer = GroupNorm(2)
    randomize_weights(layer.build(x.shape) or layer)
    _, slope = ops.jvp(layer, (x,), (v,))
    h = 1e-2
    difference = (to_numpy(layer(x + h * v)) - to_numpy(layer(x - h * v))) / (2 * h)
    np.testing.assert_allclose(to_numpy(slope), difference, rtol=1e-2, atol=1e-3)


def test_sinusoidal_embedding_formula():
    frequencies = 10000.0 ** (-np.arange(3) / 3)
    expected = np.concatenate([np.sin(T[:, None] * frequencies), np.cos(T[:, None] * frequencies)], axis=-1)
    np.testing.assert_allclose(to_numpy(SinusoidalEmbedding(6)(T)), expected, atol=1e-4)


def test_half_precision_tells_times_apart():
    embedded = to_numpy(SinusoidalEmbedding(64, dtype="mixed_bfloat16")(np.array([998, 999], "int32")))
    assert np.abs(embedded[0] - embedded[1]).max() > 0.5


def test_real_times():
    embedded = to_numpy(SinusoidalEmbedding(6)(np.array([0.25, 999.5], "float32")))
    frequencies = 10000.0 ** (-np.arange(3) / 3)
    angles = np.array([[0.25], [999.5]]) * frequencies
    np.testing.assert_allclose(embedded, np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), atol=1e-4)


def test_half_precision_tells_real_times_apart():
    t = np.array([998.5, 999.0, 999.5, 1000.0], "float32")
    exact = to_numpy(SinusoidalEmbedding(64)(t))
    np.testing.assert_allclose(to_numpy(SinusoidalEmbedding(64, dtype="mixed_bfloat16")(t)), exact, atol=1e-2)


@pytest.mark.parametrize("outer", [False, True])
def test_unet_in_half_precision_tells_real_times_apart(outer):
    unet = UNet((4, 4, 1), (8,), 1, dtype="mixed_bfloat16")
    randomize_weights(unet, scale=3.0)
    network = unet
    if outer:  # as part of another model, which is in half precision too
        inputs = [keras.Input((4, 4, 1)), keras.Input((), dtype="float32")]
        network = keras.Model(inputs, unet(inputs))
        network.dtype_policy = keras.dtype_policies.get("mixed_bfloat16")
    x = X[:1, :4, :4, :1].repeat(3, axis=0)
    real = to_numpy(network([x, np.array([998.5, 999.0, 999.5], "float32")]))
    assert min(np.abs(real[0] - real[1]).max(), np.abs(real[1] - real[2]).max()) > 0
    np.testing.assert_array_equal(to_numpy(network([x, np.array([999, 999, 999], "int32")]))[1], real[1])


def test_self_attention_formula():
    layer = SelfAttention2D(num_heads=2, groups=2)
    layer(X)
    randomize_weights(layer, scale=1.0)
    tokens = to_numpy(layer.norm(X)).reshape(2, 64, 4)
    qkv = tokens @ to_numpy(layer.qkv.kernel) + to_numpy(layer.qkv.bias)
    heads = []
    for head in range(2):
        q, k, v = (qkv[:, :, part * 4 + head * 2 : part * 4 + head * 2 + 2] for part in range(3))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(2)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v)
    attended = np.concatenate(heads, -1) @ to_numpy(layer.output_dense.kernel) + to_numpy(layer.output_dense.bias)
    np.testing.assert_allclose(to_numpy(layer(X)), X + attended.reshape(X.shape), rtol=1e-4, atol=1e-4)


def test_blocks_start_as_the_identity():
    np.testing.assert_allclose(to_numpy(ResidualBlock(4, 2)([X, EMBEDDING])), X, atol=1e-6)
    np.testing.assert_allclose(to_numpy(SelfAttention2D(groups=2)(X)), X, atol=1e-6)
    unet = UNet((8, 8, 1), (8, 16), 1)
    assert np.abs(outputs(unet, X[..., :1], T)).max() == 0


def test_dropout_acts_in_training_only():
    unet = UNet((8, 8, 4), (8,), 1, dropout=0.5)
    randomize_weights(unet)
    still = [to_numpy(unet([X, T], training=False)) for _ in range(2)]
    moving = [to_numpy(unet([X, T], training=True)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert np.abs(moving[0] - moving[1]).max() > 1e-3


@pytest.mark.parametrize("make", [lambda s: UNet(s, (8, 8, 8), 1, (2,)), lambda s: LightUNet(s, (8, 8, 8), 1)])
def test_any_size_that_the_depth_divides(make):
    network = make((None, None, 4))
    run = one_program(network, network)
    for height, width in ((4, 8), (12, 4)):
        x = ops.zeros((2, height, width, 4))
        assert tuple(run([x, ops.convert_to_tensor(T)]).shape) == (2, height, width, 4)
    with pytest.raises(ValueError, match="`x_t` must have height and width that are multiples of 4, with 3 levels"):
        network([np.zeros((2, 6, 8, 4), "float32"), T])


def test_time_and_label_reach_the_output():
    unet = UNet((8, 8, 4), (8, 16), 1, (1,), num_classes=3)
    randomize_weights(unet)
    x = np.repeat(X[:1], 2, axis=0)
    by_time = outputs(unet, x, T, np.array([1, 1]))
    by_label = outputs(unet, x, T[:1].repeat(2), np.array([0, 2]))
    assert np.abs(by_time[0] - by_time[1]).max() > 1e-3
    assert np.abs(by_label[0] - by_label[1]).max() > 1e-3
    light = LightUNet((8, 8, 4), (8, 16), 1)
    randomize_weights(light, scale=3.0)
    by_time = outputs(light, x, T)
    assert np.abs(by_time[0] - by_time[1]).max() > 1e-3


def test_null_conditions():
    unet = UNet((8, 8, 4), (8,), 1, num_classes=3)
    randomize_weights(unet)
    assert unet.get_layer("label_embedding").embeddings.shape == (4, 32)
    x, t = X[:1].repeat(4, axis=0), T[:1].repeat(4)
    by_label = to_numpy(unet([x, t, np.arange(4)]))
    assert min(np.abs(a - b).max() for i, a in enumerate(by_label) for b in by_label[:i]) > 1e-3

    steered, plain = UNet((8, 8, 4), (8,), 1, condition_dim=3), UNet((8, 8, 4), (8,), 1)
    randomize_weights(steered)
    named = {weight.path: weight for weight in steered.weights}
    for weight in plain.weights:
        weight.assign(named[weight.path])
    x, t = X, T
    zero = np.zeros((2, 3), "float32")
    np.testing.assert_allclose(to_numpy(steered([x, t, zero])), to_numpy(plain([x, t])), rtol=1e-5, atol=1e-5)
    assert np.abs(to_numpy(steered([x, t, zero + 1])) - to_numpy(steered([x, t, zero]))).max() > 1e-3


def test_scale_shift_formula():
    block = ResidualBlock(4, 2, epsilon=1e-3, scale_shift=True)
    block([X, EMBEDDING])
    randomize_weights(block, scale=1.0)
    scale, shift = np.split(EMBEDDING @ to_numpy(block.dense.kernel) + to_numpy(block.dense.bias), 2, axis=-1)
    h = to_numpy(block.norm_2(block.conv_1(ops.silu(block.norm_1(X)))))
    h = h * (1 + scale[:, None, None]) + shift[:, None, None]
    expected = X + to_numpy(block.conv_2(ops.silu(ops.convert_to_tensor(h))))
    np.testing.assert_allclose(to_numpy(block([X, EMBEDDING])), expected, rtol=1e-4, atol=1e-4)
    assert block.norm_1.epsilon == block.norm_2.epsilon == 1e-3


def test_conventions():
    unet = UNet((8, 8, 1), (8, 16), 1, (1,), conventions=UNetConventions(groups=2, epsilon=1e-3, head_dim=4))
    attention, block = unet.get_layer("middle_attention_0"), unet.get_layer("up_0_block_0")
    assert (attention.num_heads, attention.groups, attention.norm.epsilon) == (4, 2, 1e-3)
    assert (block.groups, block.norm_2.epsilon, block.scale_shift) == (2, 1e-3, False)
    kinds = {
        "auto": ["middle_block_0", "middle_attention_0", "middle_block_1"],
        "plain": ["middle_block_0", "middle_block_1"],
        "none": [],
    }
    for middle, expected in kinds.items():
        unet = UNet((8, 8, 1), (8, 16), 1, (1,), conventions=UNetConventions(middle=middle))
        assert [layer.name for layer in unet.layers if layer.name.startswith("middle")] == expected
    unet = UNet((8, 8, 1), (8, 16), 1, (0,), conventions=UNetConventions(middle="attention"))
    assert unet.get_layer("middle_attention_0").num_heads == 1
    padded = UNet((8, 8, 1), (8, 16), 1, conventions=UNetConventions(symmetric_padding=True))
    assert outputs(padded, X[..., :1], T).shape == (2, 8, 8, 1)


def test_summary_counts_all_weights():
    unet = UNet((8, 8, 1), (8, 16), 1)
    assert unet.count_params() == sum(int(np.prod(weight.shape)) for weight in unet.weights) > 1000


def test_frozen_weights_stay_frozen_in_a_file(tmp_path):
    """All of them, or all but those of some layers, as for fine-tuning; on their own and in a model."""
    offenders = []
    for name in ("dit", "light_unet"):
        model = DDPM(NETWORKS[name][0](), CosineSchedule(10))
        dense = [layer for layer in model.network._flatten_layers() if isinstance(layer, keras.layers.Dense)]
        for thawed in ([], dense[1:3]):
            model.network.trainable = False
            for layer in thawed:
                layer.trainable = True
            model.save(tmp_path / "model.keras")
            loaded = keras.models.load_model(tmp_path / "model.keras")
            before, after = ([weight.trainable for weight in m.weights] for m in (model, loaded))
            if before != after or any(after) != bool(thawed):
                offenders.append(f"{name}: {sum(before)} trainable weights became {sum(after)}")
    assert not offenders, "\n".join(offenders)


def test_channels_first_changes_no_number():
    offenders = []
    for name in (*NETWORKS, "gated_pixel_block"):
        make, arrays = LAYERS[name]
        made = []
        for data_format in ("channels_first", "channels_last"):
            keras.config.set_image_data_format(data_format)
            try:
                made.append(functional(make(), *arrays))
            finally:
                keras.config.set_image_data_format("channels_last")
            randomize_weights(made[-1])
        first, last = (flat_numpy(one_program(model, model)(as_inputs(arrays))) for model in made)
        if not all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(first, last, strict=True)):
            offenders.append(name)
    assert not offenders, offenders


def test_networks_of_one_dtype_policy():
    unet = UNet((8, 8, 4), (8,), 1, dtype="mixed_bfloat16")
    output = unet([X, T])
    assert keras.backend.standardize_dtype(output.dtype) == "bfloat16"
    assert {weight.dtype for weight in unet.weights} == {"float32"}
    assert ops.isfinite(ops.sum(ops.cast(output, "float32")))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: UNet((8, 8), (8,)), "`image_shape` must be images of shape"),
        (lambda: UNet((6, 8, 1), (8, 8, 8)), "`image_shape` must have height and width that are multiples of 4"),
        (lambda: UNet((8, 8, 1), ()), "`widths` must be a non-empty sequence"),
        (lambda: UNet((8, 8, 1), (8, 0)), "`widths` must be a non-empty sequence"),
        (lambda: UNet((8, 8, 1), (8, 8), 0), "`blocks_per_level` must be an integer >= 1"),
        (
            lambda: UNet((8, 8, 1), (8, 8), attention_levels=(2,)),
            "`attention_levels` must be a sequence of",
        ),
        (lambda: UNet((8, 8, 1), (8,), num_classes=0), "`num_classes` must be an integer >= 1"),
        (lambda: UNet((8, 8, 1), (8,), out_channels=0), "`out_channels` must be an integer >= 1"),
        (lambda: UNet((8, 8, 1), (8,), dropout=1.0), r"`dropout` must be in \[0, 1\)"),
        (lambda: UNet((8, 8, 1), (8,), condition_dim=0), "`condition_dim` must be an integer >= 1"),
        (lambda: UNet((8, 8, 1), (8,), num_classes=2, condition_dim=2), "`condition_dim` must be None where num_cl"),
        (lambda: UNet((8, 8, 1), (8,), conventions={}), "`conventions` must be a UNetConventions"),
        (
            lambda: UNet((8, 8, 1), (8,), 1, (0,), conventions=UNetConventions(head_dim=3)),
            "`head_dim` must divide 8 channels",
        ),
        (lambda: UNetConventions(groups=0), "`groups` must be an integer >= 1"),
        (lambda: UNetConventions(epsilon=0), "`epsilon` must be > 0"),
        (lambda: UNetConventions(head_dim=0), "`head_dim` must be an integer >= 1"),
        (lambda: UNetConventions(max_period=1), "`max_period` must be > 1"),
        (lambda: UNetConventions(middle="both"), "`middle` must be one of 'auto', 'attention', 'plain', 'none'"),
        (lambda: LightUNet((6, 8, 1), (8, 8, 8)), "`image_shape` must have height and width"),
        (lambda: LightUNet((8, 8, 1), (8,), num_steps=0), "`num_steps` must be an integer >= 1"),
        (lambda: LightUNet((8, 8, 1), (8,), blocks_per_level=0), "`blocks_per_level` must be an integer >= 1"),
        (lambda: LightBlock(0), "`width` must be an integer >= 1"),
        (lambda: ResidualBlock(0), "`width` must be an integer >= 1"),
        (lambda: ResidualBlock(4, groups=3)([X, EMBEDDING]), "`groups` must divide 4 channels"),
        (lambda: GroupNorm(0), "`groups` must be an integer >= 1"),
        (lambda: GroupNorm(2, epsilon=0), "`epsilon` must be > 0"),
        (lambda: GroupNorm(3)(X), "`groups` must divide 4 channels. Received: groups=3"),
        (lambda: GroupNorm(1)(X[0, 0]), "`x` must have shape"),
        (lambda: SelfAttention2D(num_heads=0), "`num_heads` must be an integer >= 1"),
        (lambda: SelfAttention2D(num_heads=3, groups=2)(X), "`num_heads` must divide 4 channels"),
        (lambda: SelfAttention2D(groups=2)(X[0]), "`x` must have shape"),
        (lambda: SinusoidalEmbedding(5), "`dim` must be even"),
        (lambda: SinusoidalEmbedding(4, max_period=1.0), "`max_period` must be > 1"),
    ],
)
def test_bad_input(make, match):
    with pytest.raises(ValueError, match=match):
        make()


TOKENS = np.random.default_rng(2).normal(size=(2, 5, 3)).astype("float32")


def test_cross_attention_formula():
    layer = CrossAttention2D(num_heads=2, groups=2)
    layer([X, TOKENS])
    randomize_weights(layer, scale=1.0)
    q = to_numpy(layer.norm(X)).reshape(2, 64, 4) @ to_numpy(layer.query.kernel) + to_numpy(layer.query.bias)
    k, v = np.split(TOKENS @ to_numpy(layer.key_value.kernel), 2, axis=-1)
    heads = []
    for head in (slice(0, 2), slice(2, 4)):
        scores = q[..., head] @ k[..., head].transpose(0, 2, 1) / np.sqrt(2)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[..., head])
    attended = np.concatenate(heads, -1) @ to_numpy(layer.output_dense.kernel)
    np.testing.assert_allclose(to_numpy(layer([X, TOKENS])), X + attended.reshape(X.shape), rtol=1e-4, atol=1e-4)


def test_cross_attention_starts_as_the_identity_and_is_it_for_the_null_condition():
    layer = CrossAttention2D(groups=2)
    np.testing.assert_allclose(to_numpy(layer([X, TOKENS])), X, atol=1e-6)
    randomize_weights(layer, scale=1.0)
    assert np.abs(to_numpy(layer([X, TOKENS])) - X).max() > 1e-2
    np.testing.assert_allclose(to_numpy(layer([X, 0 * TOKENS])), X, atol=1e-6)


def test_cross_attention_reads_a_set_of_tokens():
    layer = CrossAttention2D(groups=2)
    layer([X, TOKENS])
    randomize_weights(layer, scale=1.0)
    expected = to_numpy(layer([X, TOKENS]))
    for same in (TOKENS[:, ::-1].copy(), np.repeat(TOKENS, 2, axis=1)):
        np.testing.assert_allclose(to_numpy(layer([X, same])), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("conventions", [None, UNetConventions(head_dim=4, middle="attention")])
def test_unet_attends_to_tokens(conventions):
    levels = () if conventions else (1,)
    unet = UNet((8, 8, 4), (8, 16), 1, levels, condition_dim=(None, 3), conventions=conventions)
    plain = UNet((8, 8, 4), (8, 16), 1, levels, conventions=conventions)
    names = [layer.name for layer in unet.layers]
    attention = [name for name in names if "attention" in name and "cross" not in name]
    expected = (
        ["middle_attention_0"]
        if conventions
        else ["down_1_attention_0", "middle_attention_0", "up_1_attention_0", "up_1_attention_1"]
    )
    assert attention == expected
    crossed = [name.replace("attention", "cross_attention") for name in expected]
    assert [name for name in names if "cross" in name] == crossed
    assert "condition_dense" not in names
    heads = unet.get_layer("middle_cross_attention_0").num_heads
    assert heads == unet.get_layer("middle_attention_0").num_heads == (4 if conventions else 1)
    randomize_weights(unet, scale=1.0)
    named = {weight.path: weight for weight in unet.weights}
    for weight in plain.weights:
        weight.assign(named[weight.path])
    expected, run = outputs(plain, X, T), one_program(unet, unet)
    for tokens in (2, 5):  # any number
        x, t, given = (ops.convert_to_tensor(array) for array in (X, T, TOKENS[:, :tokens]))
        np.testing.assert_allclose(to_numpy(run([x, t, 0 * given])), expected, rtol=1e-4, atol=1e-4)
        assert np.abs(to_numpy(run([x, t, given])) - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: CrossAttention2D(num_heads=0), "`num_heads` must be an integer >= 1"),
        (lambda: CrossAttention2D(num_heads=3, groups=2)([X, TOKENS]), "`num_heads` must divide 4 channels"),
        (lambda: CrossAttention2D(groups=3)([X, TOKENS]), "`groups` must divide 4 channels"),
        (lambda: CrossAttention2D(groups=2)([X[0], TOKENS]), "`x` must have shape"),
        (lambda: CrossAttention2D(groups=2)([X, TOKENS[:, 0]]), "`condition` must have shape"),
        (lambda: UNet((8, 8, 1), (8,), 1, condition_dim=(4, 3)), "`attention_levels` must contain a level: tokens"),
        *(
            (
                lambda pair=pair: UNet((8, 8, 1), (8,), 1, (0,), condition_dim=pair),
                r"`condition_dim` must be an integer >= 1, or \(tokens, dim\)",
            )
            for pair in [(4,), (4, None), (0, 3), (4, 3, 2)]
        ),
        (
            lambda: UNet((8, 8, 1), (8,), 1, (0,), 2, condition_dim=(4, 3)),
            "`condition_dim` must be None where num_classes is given",
        ),
    ],
)
def test_bad_tokens(make, match):
    with pytest.raises(ValueError, match=match):
        make()
