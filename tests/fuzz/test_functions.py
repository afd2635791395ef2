"""Every exported function and constructor with one argument replaced by a bad value, the others valid.

What may happen: a `ValueError` in the form of the project, or a right result. An exception of the backend, a value
that can never be valid but passes, and NaN or infinity that comes out finite are offenders.
"""

import functools
import inspect
import zlib

import keras
import numpy as np
import pytest
from keras import ops
from laws import BIJECTORS, CONFIGURED, LAYERS, MODELS, OF_DIFFUSION
from offenders import not_refused

from keras_gen import models, samplers
from keras_gen.core.checks import MOST_LAYERS, check_verbose, is_array
from keras_gen.core.random import keras_seed
from keras_gen.export import exported

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype("float32")


def squares(b):
    return ops.sum(b[..., 1:] ** 2, axis=-1)


def trained_flow(seed):
    model = models.RealNVP(2, [4], seed=seed)
    model.build((None, 4))
    return model


VECTORS, OTHERS, LOGITS, POINTS = normal(4, 3), normal(4, 3), normal(4, 3), normal(12, 4)
LOG_Y = LOGITS - np.log(np.exp(LOGITS).sum(axis=-1, keepdims=True))
DISTANCES = np.sqrt(((POINTS[:, None] - POINTS) ** 2).sum(axis=-1)).astype("float64")
SEGMENTS = np.array([[1, 1, 2, 2, 0], [3, 3, 3, 3, 3]], "int32")
COUNTS = np.array([1, 5, 0, 2], "int32")
HEADS = normal(2, 3, 1, 2)
ESTIMATED = {"f": squares, "logits": LOGITS, "seed": 0}

# function -> valid arguments
FUNCTIONS = {
    "data.denormalize_images": {"images": np.tanh(normal(3, 4, 4, 1))},
    "data.normalize_images": {"images": np.arange(48, dtype="uint8").reshape(3, 4, 4, 1)},
    "data.train_test_split": {"x": POINTS, "y": np.arange(12), "fraction": 0.2, "seed": 0},
    "estimators.gumbel_rao": {**ESTIMATED, "temperature": 0.5, "num_samples": 2},
    "estimators.rebar": {**ESTIMATED, "temperature": 0.5, "eta": 0.5},
    "estimators.reinforce": {**ESTIMATED, "baseline": "none", "num_samples": 2},
    "estimators.relax": {**ESTIMATED, "critic": squares},
    "estimators.straight_through_gumbel": {**ESTIMATED, "temperature": 0.5},
    "losses.categorical_kl": {"logits_q": LOGITS, "logits_p": OTHERS},
    "losses.concrete_kl": {
        "log_y": LOG_Y,
        "logits_q": LOGITS,
        "temperature_q": 0.5,
        "logits_p": OTHERS,
        "temperature_p": 0.7,
    },
    "losses.discretized_gaussian_nll": {
        "x": np.tanh(VECTORS),
        "mean": OTHERS,
        "log_var": LOGITS,
        "levels": 256,
    },
    "losses.feature_distance": {"features_a": normal(2, 3, 3, 4), "features_b": normal(2, 3, 3, 4)},
    "losses.gaussian_kl": {"mean_difference": VECTORS, "log_var_q": OTHERS, "log_var_p": LOGITS},
    "losses.multilabel_crossentropy": {"y": np.array([[1, 0, 0.9], [0, 1, 0.5]], "float32"), "s": normal(2, 3)},
    "losses.sparse_multilabel_crossentropy": {"y": np.array([[0, 2], [1, -1]], "int32"), "s": normal(2, 3)},
    "metrics.compare": {
        **{"models": {"flow": trained_flow}, "x": POINTS, "x_test": normal(12, 4), "seeds": (0,), "n": 10},
        **{"feature_model": None, "fit": {}, "sample": {}},
    },
    "metrics.cluster_accuracy": {
        "clusters": np.array([0, 1, 1]),
        "labels": np.array([0, 1, 0]),
        "reference": (np.array([0, 1]), np.array([0, 1])),
    },
    "metrics.frechet_distance": {"x": POINTS, "y": 2 * POINTS},
    "ops.antihub_rate": {"counts": COUNTS},
    "ops.array_module": {"x": 1.0},
    "ops.concrete_log_prob": {"log_y": LOG_Y, "logits": LOGITS, "temperature": 0.5},
    "ops.convert_prediction": {
        "value": VECTORS,
        "source": "velocity",
        "target": "edm",
        "x_t": OTHERS,
        "alpha": 0.6,
        "sigma": 0.8,
        "derivatives": (-1.0, 1.0),
        "sigma_data": 0.5,
    },
    "ops.csls": {"similarities": -DISTANCES, "k": 3},
    "ops.dis_sim_local": {"x": POINTS, "k": 3},
    "ops.gini_index": {"counts": COUNTS},
    "ops.gradient": {"function": ops.square, "x": VECTORS},
    "ops.gumbel_softmax": {
        "logits": LOGITS,
        "temperature": 0.5,
        "hard": False,
        "axis": -1,
        "noise": OTHERS,
        "seed": 0,
    },
    "ops.hub_occurrence": {"counts": COUNTS, "k": 2, "hub_size": 2.0},
    "ops.hubness_skewness": {"counts": COUNTS},
    "ops.image_grid": {"images": np.tanh(normal(3, 4, 4, 1)), "columns": 2, "scale": 1, "padding": 1},
    "ops.k_occurrence": {
        "x": POINTS,
        "k": 3,
        "include_self": False,
        "block_size": 1024,
        "metric": "euclidean",
        "verbose": 0,
    },
    "ops.local_scaling": {"distances": DISTANCES, "k": 3},
    "ops.mutual_proximity": {"distances": DISTANCES},
    "ops.nearest_code": {"x": VECTORS, "codebook": normal(5, 3), "chunk_size": 2},
    "ops.nearest_neighbors": {
        "queries": POINTS,
        "points": normal(12, 4),
        "k": 3,
        "block_size": 1024,
        "metric": "euclidean",
        "verbose": 0,
    },
    "ops.next_code_mask": {"segments": SEGMENTS},
    "ops.nicdm": {"distances": DISTANCES, "k": 3},
    "ops.optimal_pairing": {"cost": normal(4, 4)},
    "ops.pack_sequences": {"sequences": [[5, 6, 7], [8], [9, 9]], "length": 4},
    "ops.pairwise_distances": {"x": POINTS, "metric": "euclidean"},
    "ops.pixel_shuffle": {"x": normal(2, 3, 2, 4), "factor": 2, "order": "crd"},
    "ops.pixel_unshuffle": {"x": normal(2, 4, 2, 3), "factor": 2, "order": "dcr"},
    "ops.rational_quadratic_spline": {"x": VECTORS, "parameters": normal(4, 3, 11), "bound": 5.0, "inverse": False},
    "ops.robin_hood_index": {"counts": COUNTS},
    "ops.rotation_trick": {"code": VECTORS, "x": OTHERS},
    "ops.segment_mask": {"segments": SEGMENTS, "causal": True},
    "ops.segment_positions": {"segments": SEGMENTS},
    "ops.slerp": {"a": VECTORS, "b": OTHERS, "w": 0.3},
    "ops.straight_through": {"hard": VECTORS, "soft": OTHERS},
    "ops.tiled_attention": {
        "query": HEADS,
        "key": HEADS[:, ::-1],
        "value": HEADS,
        "mask": np.ones((3, 3), "bool"),
        "is_causal": False,
        "scale": 0.5,
        "tile": 4,
    },
    "ops.unpack_sequences": {"values": SEGMENTS, "segments": SEGMENTS},
}


COMPILED = ("losses.discretized_gaussian_nll", "ops.nearest_code", "ops.optimal_pairing")


def bad_scalars():
    """Returns kind -> value; of a kind with an exclamation mark nothing is valid, for any argument."""
    return {
        "True": True,
        "-1": -1,
        "0": 0,
        "2.5": 2.5,
        "nan!": float("nan"),
        "inf!": float("inf"),
        "-inf!": -float("inf"),
        "1e300": 1e300,
        "complex!": 1j,
        "str!": "No",
        "None": None,
        "empty list": [],
        "list": [1, 2],
        "dict!": {},
        "object!": object(),
        "class!": int,
        "generator!": (i for i in range(3)),
    }


def bad_arrays(x):
    x = np.asarray(x)
    with_nan, with_inf = (np.array(x, "float32") for _ in range(2))
    with_nan.flat[:1], with_inf.flat[-1:] = np.nan, np.inf
    return {
        "nan array!": with_nan,
        "inf array!": with_inf,
        "x 1e30": x.astype("float32") * np.float32(1e30),
        "negated": -x.astype("float32"),
        "zeros": np.zeros_like(x),
        "float64": x.astype("float64"),
        "float16": x.astype("float16"),
        "int": x.astype("int64"),
        "uint8": np.abs(x).astype("uint8"),
        "bool": x.astype("bool"),
        "complex array!": x.astype("complex64"),
        "object array!": x.astype("object"),
        "str array!": x.astype("str"),
        "empty": x[:0],
        "extra rank": x[None],
        "less rank": x[0],
        "other batch": np.concatenate([x, x[:1]]),
        "other features": np.concatenate([x, x], axis=-1),
        "view": np.ascontiguousarray(x[::-1])[::-1],
        "list": x.tolist(),
        "ragged!": [[1.0], [1.0, 2.0]],
        "dict of arrays!": {"x": x},
    }


def tries(arguments):
    """Yields (argument, kind, the arguments with this one replaced)."""
    for name, value in arguments.items():
        if name in ("name", "dtype"):
            continue
        bad = bad_scalars()
        if isinstance(value, np.ndarray):
            arrays = bad_arrays(value)
            bad |= arrays
            for kind, array in arrays.items():
                if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
                    bad[f"tensor, {kind}"] = array
        for kind, replaced in bad.items():
            yield name, kind, {**arguments, name: replaced}


# What is right as it is: (address, argument, kind), each "" for any -> reason
KNOWN = {
    **dict.fromkeys(
        [("", name, "class!") for name in ("f", "critic", "baseline", "function", "prior", "scale_map")],
        "a class is a function; what it raises is its own",
    ),
    **dict.fromkeys(
        [("", name, "") for name in ("activation", "kernel_initializer", "initializer")],
        "Keras resolves the name, and refuses in its own words",
    ),
    **dict.fromkeys(
        [("", "num_classes", "None"), ("", "condition_dim", "None")],
        "valid, but the network then takes two inputs, not three",
    ),
    ("", "", "1e300"): "TensorFlow and Python refuse what is beyond their floats in their own words",
    **dict.fromkeys(
        [("metrics.compare", name, "dict!") for name in ("fit", "sample")], "no arguments at all are valid"
    ),
    ("losses.feature_distance", "", "dict of arrays!"): "features may be nested",
    ("data.train_test_split", "y", "dict of arrays!"): "a condition may have parts",
    ("LightUNet", "widths", "list"): "the upsampling layer of the table is built for other widths",
    **dict.fromkeys(
        [(f"losses.{name}multilabel_crossentropy", "y", "tensor, negated") for name in ("", "sparse_")],
        "NaN: the values of a tensor are not checked",
    ),
    ("ops.array_module", "x", ""): "takes anything",
    **dict.fromkeys(
        [(name, "", f"tensor, {kind} array!") for kind in ("nan", "inf") for name in COMPILED],
        "the values of a tensor are not checked: it may be one of a compiled step",
    ),
}


def is_known(address, argument, kind):
    patterns = ((a, b, c) for a in (address, "") for b in (argument, "") for c in (kind, ""))
    return any(pattern in KNOWN for pattern in patterns)


def outcome(call, name, arguments, kind):
    """Returns what is wrong with the outcome, or `None`."""
    if kind.startswith("tensor"):
        arguments = {**arguments, name: ops.convert_to_tensor(arguments[name])}
    try:
        result = call(arguments)
    except ValueError as error:
        return None if "Received" in str(error) else f"ValueError without a `Received`: {str(error)[:90]!r}"
    except Exception as error:  # of any kind: the line names it
        return f"{type(error).__name__}: {str(error)[:90]!r}"
    return fault_of(result, kind)


def fault_of(result, kind):
    leaves = [] if inspect.ismodule(result) else keras.tree.flatten(result)
    leaves = [leaf for leaf in leaves if isinstance(leaf, float) or is_array(leaf)]
    numbers = [np.asarray(ops.convert_to_numpy(leaf), "float64") for leaf in leaves]
    finite = all(np.isfinite(leaf).all() for leaf in numbers)
    if "nan" in kind or "inf" in kind:
        return "passes, and comes out finite" if finite else None
    if "!" in kind:
        return "passes"
    return None if finite or "1e30" in kind else "comes out NaN or infinite"


def recorded_arguments(make):
    """Returns the class of what `make` makes, and the arguments of its constructor by name, with the defaults."""
    cls, calls = type(make()), []
    original = cls.__init__
    if original is object.__init__:
        return cls, {}, {}

    def record(self, *args, **kwargs):
        calls.append((args, kwargs))
        original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "__init__", record)
        made = make()
    if not calls:  # a constant
        return cls, made.get_config(), {}
    args, kwargs = calls[-1]  # those of one inside it, as of a chain in a chain, come before
    bound = inspect.signature(original).bind(None, *args, **kwargs)
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    own = {name: value for name, value in list(arguments.items())[1:] if name not in ("args", "kwargs", "options")}
    return cls, own, arguments.get("kwargs", {})


@functools.cache
def constructors():
    """Returns the class, the valid arguments of its constructor, and what makes and uses an object, for each class."""
    found = []
    used = {name: (make, inputs) for name, (make, inputs) in LAYERS.items()}
    used |= {name: (make, tuple(inputs)) for name, (make, *inputs) in BIJECTORS.items()}
    made = {name: (make, ()) for name, make in (CONFIGURED | OF_DIFFUSION).items()}
    made |= {name: (make, ()) for name, (make, *_) in MODELS.items()}
    for name, (make, inputs) in (used | made).items():
        cls, arguments, others = recorded_arguments(make)
        if cls in [other for other, *_ in found] or cls not in exported(also=False).values():
            continue
        listed = len(inputs) > 1 and name not in BIJECTORS

        def use(arguments, made=None, cls=cls, others=others, inputs=inputs, listed=listed):
            thing = cls(**arguments, **others)
            if made is not None:
                made.append(thing)
            tensors = [keras.tree.map_structure(ops.convert_to_tensor, x) for x in inputs]  # a condition has parts
            return thing(tensors) if listed else thing(*tensors) if tensors else None

        found.append((cls, arguments, use))
    return found


def offenders(config, address, arguments, call, share, most=1.0):
    """Yields a line for each of the tries, a share of them or with `--all-cases` the share `most`, that ends badly."""
    share = most if config.option.all_cases else share
    rng = np.random.default_rng([config.option.turn or 0, zlib.crc32(address.encode())])
    for name, kind, replaced in tries(arguments):
        if rng.random() < share:
            fault = outcome(call, name, replaced, kind)
            if fault and not is_known(address, name, kind):
                yield f"{address}({name}: {kind}): {fault}"


NAMESPACES = ("ops", "losses", "metrics", "estimators", "data.normalize", "data.denormalize", "data.train_test")


def exported_functions():
    paths = {path.removeprefix("keras_gen."): symbol for path, symbol in exported(also=False).items()}
    return {
        path: symbol for path, symbol in paths.items() if path.startswith(NAMESPACES) and not isinstance(symbol, type)
    }


def test_table_holds_every_function():
    assert exported_functions().keys() == FUNCTIONS.keys()


def test_table_holds_every_argument():
    lines = []
    for path, function in exported_functions().items():
        missing = inspect.signature(function).parameters.keys() - FUNCTIONS[path].keys()
        lines += [f"{path}: {name}" for name in missing]
    assert not lines, "\n".join(lines)


def test_functions(request):
    lines = []
    for path, function in exported_functions().items():
        arguments = FUNCTIONS[path]
        assert fault_of(function(**arguments), "valid") is None, path

        def call(arguments, function=function):
            return function(**arguments)

        lines += offenders(request.config, path, arguments, call, 0.1)
    assert not lines, "\n".join(lines)


def test_constructors(request):
    lines = []
    for cls, arguments, use in constructors():
        lines += offenders(request.config, cls.__name__, arguments, use, 0.05)
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("seed", [2**31, 2**64])
def test_a_seed_of_any_size_draws(seed):
    """PyTorch's generators hold 31 bits, JAX's 32."""
    lines = []
    for cls, arguments, use in constructors():
        if "seed" in arguments:
            lines += [f"{cls.__name__}: {fault}" for fault in [draw_of(use, {**arguments, "seed": seed})] if fault]
    for path, function in exported_functions().items():
        if "seed" in FUNCTIONS[path]:
            fault = outcome(lambda given, f=function: f(**given), "seed", {**FUNCTIONS[path], "seed": seed}, "seed")
            lines += [f"{path}: {fault}"] if fault else []
    assert not lines, "\n".join(lines)


def draw_of(use, arguments):
    def build_and_draw(arguments):
        made = []
        result = use(arguments, made=made)
        generator = getattr(made[0], "seed_generator", None)
        return [result, None if generator is None else keras.random.uniform((2,), seed=generator)]

    return outcome(build_and_draw, "seed", arguments, "seed")


@pytest.mark.parametrize("seed", [-1, True, 2.5, "a"], ids=repr)
def test_bad_seeds(seed):
    cases = []
    for cls, arguments, use in constructors():
        if "seed" in arguments:
            cases.append(
                (cls.__name__, lambda use=use, given={**arguments, "seed": seed}: use(given), "`seed` must be")
            )
    for path, function in exported_functions().items():
        if "seed" in FUNCTIONS[path]:
            given = {**FUNCTIONS[path], "seed": seed}
            cases.append((path, lambda f=function, given=given: f(**given), "`seed` must be an integer >= 0"))
    ddpm = MODELS["ddpm"][0]()
    invert = lambda: ddpm.invert(np.zeros((2, 8, 8, 1), "float32"), samplers.DDIMSampler(2), seed=seed)  # noqa: E731
    cases.append(("DDPM.invert", invert, "`seed` must be an integer >= 0"))
    assert len(cases) > 30
    lines = not_refused(cases)
    assert not lines, "\n".join(lines)


def test_large_seeds_are_as_good_as_small_ones():
    assert keras_seed(None) is None
    assert [keras_seed(seed) for seed in (0, 7, 2**31 - 1)] == [0, 7, 2**31 - 1]
    folded = [keras_seed(seed) for seed in (2**31, 2**31 + 1, 2**32, 2**64, 2**64 + 1)]
    assert len(set(folded)) == 5
    assert all(0 <= seed < 2**31 for seed in folded)


@pytest.mark.parametrize("value", ["False", 1, None], ids=repr)
def test_flags_are_bools(value):
    """The string "False" is true."""
    cases = []
    for cls, arguments, use in constructors():
        for name in flags(cls.__init__):
            call = lambda use=use, given={**arguments, name: value}: use(given)  # noqa: E731
            cases.append((f"{cls.__name__}({name})", call, f"`{name}` must be True or False. Received"))
    for path, function in exported_functions().items():
        for name in flags(function):
            call = lambda f=function, given={**FUNCTIONS[path], name: value}: f(**given)  # noqa: E731
            cases.append((f"{path}({name})", call, f"`{name}` must be True or False. Received"))
    for name, (make, *inputs) in BIJECTORS.items():
        call = lambda make=make, inputs=inputs: make()(*map(ops.convert_to_tensor, inputs), inverse=value)  # noqa: E731
        cases.append((name, call, "`inverse` must be True or False"))
    for sampler in (samplers.HubnessSampler(3, threshold=1), samplers.NormSampler(3), samplers.TruncationSampler(3)):
        for name in flags(sampler.sample):
            call = lambda sampler=sampler, given={name: value}: sampler.sample(2, **given)  # noqa: E731
            cases.append((f"{type(sampler).__name__}.sample({name})", call, f"`{name}` must be True or False"))
    vqvae = MODELS["vqvae"][0]()
    cases.append(("reconstruct", lambda: vqvae.reconstruct(np.zeros((2, 8, 8, 1)), value), "`quantize` must be True"))
    assert len(cases) > 40
    lines = not_refused(cases)
    assert not lines, "\n".join(lines)


def flags(function):
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if isinstance(parameter.default, bool)]


@pytest.mark.one_backend
def test_verbose():
    for value in ("auto", 0, 1, 2, True, False, np.int64(1)):
        check_verbose(value)
    values = (None, 2.5, "3", [1], -1, 3, "1", {}, object(), np.array([0, 1]))
    lines = not_refused((repr(v), lambda v=v: check_verbose(v), "`verbose` must be 'auto', 0, 1 or 2") for v in values)
    assert not lines, "\n".join(lines)


@pytest.mark.one_backend
def test_no_endless_number_of_layers_is_built():
    cases = {
        "blocks_per_level": [
            lambda n: models.UNet((8, 8, 1), (8,), n),
            lambda n: models.LightUNet((8, 8, 1), (8,), n),
        ],
        "depth": [
            lambda n: models.DiT((8, 8, 1), 2, 16, n),
            lambda n: models.PixelTransformer((8, 8, 1), 2, 16, n),
            lambda n: models.CodeTransformer(4, 4, 8, n),
        ],
        "blocks": [lambda n: models.PixelCNN(4, 4, n)],
        "num_masks": [lambda n: models.MADE([8], n, "random")],
        "scales": [lambda n: models.Glow(n), lambda n: models.RealNVP(2, scales=n)],
        "steps": [lambda n: models.Glow(1, n)],
        "num_couplings": [models.NICE, models.RealNVP],
    }
    lines = not_refused(
        (f"{name} {i} {n}", lambda make=make, n=n: make(n), f"`{name}` must be at most {MOST_LAYERS:,}, .*{n}")
        for name, makers in cases.items()
        for i, make in enumerate(makers)
        for n in (MOST_LAYERS + 1, 10**12)
    )
    assert not lines, "\n".join(lines)
