import contextlib
import inspect

import keras
import pytest
from laws import (
    BIJECTORS,
    CONFIGURED,
    DIFFUSION_SAMPLERS,
    DISCRETE,
    LAYERS,
    MODELS,
    OF_DIFFUSION,
    PREDICTIONS,
    SAMPLING,
    SCHEDULES,
    TIME_SAMPLERS,
)

from keras_gen.core.calculus.gradient import double_precision
from keras_gen.export import exported
from keras_gen.testing import (
    check_bijector,
    check_config,
    check_layer,
    check_model,
    check_prediction,
    check_sampler,
    check_schedule,
    check_time_sampler,
)


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    make, arrays = LAYERS[name]
    check_layer(make, *arrays, random=name in SAMPLING)


@pytest.mark.parametrize("name", BIJECTORS)
def test_bijector(name):
    make, *arrays = BIJECTORS[name]
    check_bijector(make, *arrays, jacobian=name not in DISCRETE)


@pytest.mark.parametrize("name", BIJECTORS)
def test_bijector_in_double_precision(name):
    make, *arrays = BIJECTORS[name]
    # A solver's error is what its steps make it, in any precision.
    tolerance = 1e-5 if name.startswith("continuous_flow") else 1e-12
    arrays = [array.astype("float64") for array in arrays]
    with double_precision():
        check_bijector(lambda: make(dtype="float64"), *arrays, tolerance=tolerance, jacobian=name not in DISCRETE)


@contextlib.contextmanager
def default_dtype(dtype):
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy("float32")


def trace(layer, arrays, **options):
    inputs = keras.tree.map_structure(
        lambda array: keras.Input(batch_shape=array.shape, dtype=array.dtype.name), list(arrays)
    )
    if "training" in inspect.signature(layer.call).parameters:
        options["training"] = True
    return layer(inputs if len(inputs) > 1 else inputs[0], **options)


def trace_both_directions(bijector, x, condition=None):
    options = {} if condition is None else {"condition": keras.Input(batch_shape=condition.shape)}
    y, _ = trace(bijector, [x], **options)
    bijector(y, inverse=True, **options)


def test_layers_where_float64_is_the_default():
    """TensorFlow computes nothing of an array that a layer makes in the default dtype and one of another dtype."""
    cases = {name: (trace, *parts) for name, parts in LAYERS.items()}
    cases |= {name: (trace_both_directions, *parts) for name, parts in BIJECTORS.items()}
    offenders = []
    with double_precision(), default_dtype("float64"):
        for name, (run, make, *arrays) in cases.items():
            try:
                run(make(), *arrays)
            except (TypeError, ValueError, RuntimeError) as error:
                offenders.append(f"{name}: {error}")
    assert not offenders, "\n".join(offenders)


@pytest.mark.one_backend
def test_repr_makes_an_equal_object():
    """Of what is its configuration alone; a bijector has weights, too, and equals by its own arguments."""
    names = {symbol.__name__: symbol for symbol in exported().values()}
    offenders = []
    for name, make in OF_DIFFUSION.items():
        if eval(repr(make()), names) != make():
            offenders.append(f"{name}: {make()!r}")
    for name, (make, *_) in BIJECTORS.items():
        text = repr(make())
        if "<" not in text and repr(eval(text, names)) != text:  # a layer of Keras has no such repr
            offenders.append(f"{name}: {text}")
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("name", CONFIGURED)
def test_configuration(name):
    check_config(CONFIGURED[name])


@pytest.mark.parametrize("name", PREDICTIONS)
def test_prediction(name):
    check_prediction(PREDICTIONS[name])


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule(name):
    check_schedule(SCHEDULES[name])


@pytest.mark.parametrize("name", TIME_SAMPLERS)
def test_time_sampler(name):
    check_time_sampler(TIME_SAMPLERS[name])


@pytest.mark.parametrize("name", DIFFUSION_SAMPLERS)
def test_diffusion_sampler(name):
    make, order = DIFFUSION_SAMPLERS[name]
    check_sampler(make, order)


# Exported classes that are in no table, and why.
IN_NO_TABLE = {
    **dict.fromkeys(("Base", "Bijector", "ContinuousSchedule", "DiffusionSampler"), "a base class"),
    **dict.fromkeys(("Guidance", "Prediction", "TimeSampler"), "a base class"),
    "CodebookDiffusion": "has no configuration: a codec around a trained model",
    "FIDInception": "has 22 million weights, of a file: its laws are in tests/networks/test_fid_inception.py",
    **dict.fromkeys(("CLIPTokenizer", "T5Tokenizer"), "maps texts, not tensors"),
    "TextToImage": "draws from texts: its laws are in tests/diffusion/test_text_to_image.py",
    **dict.fromkeys(("Batches", "PackedSequences"), "has no configuration: data"),
    **dict.fromkeys(("Backup", "EvaluateSamples", "SampleGrid", "StopOnNaN"), "has no configuration: a callback"),
}


@pytest.mark.one_backend
def test_tables_hold_every_class():
    """A class in no table obeys no law."""
    makers = [make for make, *_ in (*LAYERS.values(), *BIJECTORS.values(), *MODELS.values())]
    makers += [*CONFIGURED.values(), *OF_DIFFUSION.values()]
    held = {type(make()) for make in makers}
    classes = {path: symbol for path, symbol in exported(also=False).items() if isinstance(symbol, type)}
    missing = {path for path, symbol in classes.items() if symbol not in held and symbol.__name__ not in IN_NO_TABLE}
    assert not missing, f"add a line to a table in tests/laws for {', '.join(sorted(missing))}"
    outside = {symbol.__name__ for symbol in set(classes.values()) - held}
    assert not IN_NO_TABLE.keys() - outside, f"strike off IN_NO_TABLE: {IN_NO_TABLE.keys() - outside}"


@pytest.mark.parametrize("name", MODELS)
def test_model(name, digits):
    make, takes_labels, *prepare = MODELS[name]
    images, labels = digits
    check_model(make, prepare[0](images[:128]) if prepare else images[:128], labels[:128] if takes_labels else None)
