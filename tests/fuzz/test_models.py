"""The methods of every model with one argument replaced by a bad value, the others valid: see `test_functions.py`."""

import functools
import inspect

import keras
import numpy as np
import pytest
from laws import MODELS
from test_functions import offenders

from keras_gen import samplers
from keras_gen.models import DDPM, GAN, Flow

METHODS = (
    *("sample", "log_prob", "elbo", "bits_per_dim", "encode", "decode", "reconstruct", "map_latents"),
    *("denoising_path", "denoise_from", "add_noise", "interpolate", "image_to_image", "inpaint", "invert"),
    *("adapt", "adapt_variance", "straightness", "evaluate", "fit"),  # `fit` last: bad data may spoil the weights
)
UNKNOWN_PIXELS = ".inpaint(x:", "nan array!"  # may be NaN, and the first pixel is one
# What is right as it is: see `KNOWN` in `test_functions.py`.
UNTRIED = {
    "fit": ("epochs", "callbacks"),  # Keras's own arguments, which it checks in its own words
}


@functools.cache
def trained(name, images, labels):
    make, takes_labels, *prepare = MODELS[name]
    keras.utils.set_random_seed(0)
    x = np.array(images).reshape(-1, 8, 8, 1)
    x = prepare[0](x) if prepare else x
    model = make()
    y = np.array(labels) if takes_labels else None
    model.fit(x, y, batch_size=4, verbose=0)
    return model, x, y


def valid(model, x, y):
    """Returns a valid value for each name of an argument."""
    arguments = {
        **{"n": 2, "seed": 0, "batch_size": 4, "verbose": 0, "num_samples": 1, "temperature": 1.0, "levels": 17},
        **{"frames": 2, "points": 2, "strength": 0.5, "iterations": 2, "x": x[:3], "y": y if y is None else y[:3]},
        **{
            "x0": x[:3],
            "x_t": x[:3],
            "x_a": x[:3],
            "x_b": x[1:4],
            "mask": np.arange(64).reshape(8, 8, 1) > 0,
            "condition": None,
        },
        "sampler": samplers.DDIMSampler(3) if isinstance(model, DDPM) else None,
    }
    if y is not None:
        arguments["condition"] = y[:3]
    schedule = getattr(model, "schedule", None)
    if schedule is not None:
        time = schedule.times_at(np.array([0.5]))[0]
        arguments |= {"t": time, "t0": time}
        if not isinstance(model, DDPM):
            arguments["sampler"] = samplers.EulerSampler(3)
    if hasattr(model, "encode") and hasattr(model, "decode"):
        latents = model.encode(x[:3], **({"condition": y[:3]} if isinstance(model, Flow) and y is not None else {}))
        arguments |= {"z": latents, "codes": latents}
    if isinstance(model, GAN):
        arguments["z"] = np.zeros((3, *model.noise_shape), "float32")
    return arguments


def method_calls(name, digits):
    images, labels = digits
    model, x, y = trained(name, tuple(images[:8].ravel().tolist()), tuple(labels[:8].tolist()))
    values = valid(model, x, y)
    for method in METHODS:
        function = getattr(model, method, None)
        if function is None:
            continue
        parameters = inspect.signature(function).parameters
        if "args" in parameters:
            parameters = inspect.signature(getattr(keras.Model, method)).parameters
        arguments = {p: values[p] for p in parameters if p in values and p not in UNTRIED.get(method, ())}
        if method == "interpolate" and "condition" in arguments and y is not None:
            arguments["condition"] = y[0]
        if "n" in arguments and arguments.get("condition") is not None:
            arguments["n"] = len(arguments["condition"])
        yield f"{name}.{method}", arguments, lambda given, f=function: f(**given)


CLASSES = {type(make()).__name__: name for name, (make, *_) in reversed(MODELS.items())}


@pytest.mark.parametrize("name", CLASSES.values())
def test_methods(name, digits, request):
    lines = []
    for address, arguments, call in method_calls(name, digits):
        call(arguments)
        lines += offenders(request.config, address, arguments, call, 0.01, most=0.03)
    lines = [line for line in lines if not all(part in line for part in UNKNOWN_PIXELS)]
    assert not lines, "\n".join(lines)
