"""Each kind of data that `fit` takes trains as arrays do, on each backend; what it cannot take is refused in words."""

import keras
import numpy as np
import pytest
from batch_list import BatchList
from keras import ops
from laws.models import MODELS
from offenders import not_refused

from keras_gen.core.fixtures import to_numpy
from keras_gen.data import Batches, normalize_images
from keras_gen.models import DDPM
from keras_gen.schedules import CosineSchedule

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(14, 2)).astype("float32")
LABELS = (np.arange(14) % 3).astype("int32")
ROWS = [slice(start, start + 4) for start in range(0, 14, 4)]  # the last batch is smaller


def ddpm(conditional):
    keras.utils.set_random_seed(0)
    x, t, y = keras.Input((2,)), keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    h = keras.layers.Dense(8)(x) + keras.layers.Embedding(20, 8)(t)
    h = h + keras.layers.Embedding(3, 8)(y) if conditional else h
    network = keras.Model([x, t, y] if conditional else [x, t], keras.layers.Dense(2)(ops.tanh(h)))
    model = DDPM(network, CosineSchedule(20), prediction="v", seed=0)
    model.compile(keras.optimizers.SGD(0.1))
    return model


class Stream:
    """Batches that are iterated, in several epochs, without a length."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def pairs():
    return [(POINTS[rows], LABELS[rows]) for rows in ROWS]


def dicts(convert=np.asarray):
    return [{"point": convert(x), "kind": convert(y), "name": ["a"] * len(x)} for x, y in pairs()]


def forever(make):
    while True:
        yield from make()


def loader(rows):
    data = pytest.importorskip("torch").utils.data
    return data.DataLoader(rows, batch_size=4)


def tensors(x):
    return pytest.importorskip("torch").from_numpy(x)


def tf_dicts():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices({"point": POINTS, "kind": LABELS}).batch(4)


def tf_data(*arrays):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0]).batch(4)


# kind -> the data, anew for each `fit`
LABELLED = {
    "PyDataset": lambda: BatchList(pairs()),
    "tf.data": lambda: tf_data(POINTS, LABELS),
    "endless generator": lambda: forever(pairs),
    "DataLoader of tuples": lambda: loader(list(zip(tensors(POINTS), LABELS, strict=True))),
    "list of dicts": lambda: Batches(dicts(), x="point", y="kind"),
    "dicts of lists": lambda: Batches(dicts(np.ndarray.tolist), x="point", y="kind"),
    "DataLoader of dicts": lambda: Batches(
        loader([{"point": x, "kind": y} for x, y in zip(tensors(POINTS), LABELS, strict=True)]), x="point", y="kind"
    ),
    "tf.data of dicts": lambda: Batches(tf_dicts(), x="point", y="kind"),
    "endless generator of dicts": lambda: Batches(forever(dicts), x="point", y="kind"),
    "transformed": lambda: Batches([(2 * x, y) for x, y in pairs()], transform=lambda x: x / 2),
}
BARE = {
    "PyDataset": lambda: BatchList([x for x, _ in pairs()]),
    "tf.data": lambda: tf_data(POINTS),
    "endless generator": lambda: forever(lambda: (x for x, _ in pairs())),
    "DataLoader of tensors": lambda: loader(tensors(POINTS)),
    "DataLoader of tuples": lambda: loader([(x,) for x in tensors(POINTS)]),
    "list of arrays": lambda: Batches([x for x, _ in pairs()]),
    "dicts": lambda: Batches(dicts(), x="point"),
}


def trained(model, data, y=None, **options):
    """Returns the losses of two epochs, of training and of validation, and the weights."""
    logs = model.fit(data, y, epochs=2, verbose=0, **options).history
    return [*logs["loss"], *logs.get("val_loss", [])], [to_numpy(weight) for weight in model.weights]


@pytest.mark.parametrize(("kinds", "labels"), [(LABELLED, LABELS), (BARE, None)], ids=["labelled", "bare"])
def test_every_kind_of_data_trains_as_arrays_do(kinds, labels):
    expected, weights = trained(ddpm(labels is not None), POINTS, labels, batch_size=4, shuffle=False)
    offenders = []
    for name, make in kinds.items():
        if name.startswith("tf.data") and keras.backend.backend() != "tensorflow":
            continue  # which is left out of the other processes; docs/data.md runs it there
        options = {"steps_per_epoch": 4} if "endless" in name else {}
        options |= {"shuffle": False} if name == "PyDataset" else {}  # Batches keep the order of their source
        losses, values = trained(ddpm(labels is not None), make(), **options)
        if not np.allclose(losses, expected, rtol=1e-5):
            offenders.append(f"{name}: losses {losses}, not {expected}")
        if any(np.abs(a - b).max() > 1e-5 for a, b in zip(values, weights, strict=True)):
            offenders.append(f"{name}: other weights")
    assert not offenders, "\n".join(offenders)


@pytest.mark.parametrize("name", ["made", "cvae", "vqvae", "flow_condition", "gan", "edm"])
def test_models_of_every_family_train_on_dicts_as_on_arrays(name, digits):
    make, takes_labels, *prepare = MODELS[name]
    images, labels = (part[:16] for part in digits)
    x = prepare[0](images) if prepare else images
    y = {"flow_condition": np.eye(10, dtype="float32")[labels]}.get(name, labels) if takes_labels else None
    batches = [{"image": x[rows], "label": labels[rows] if y is None else y[rows]} for rows in (slice(8), slice(8, 16))]
    keras.utils.set_random_seed(0)
    expected = make().fit(x, y, batch_size=8, shuffle=False, verbose=0).history["loss"]
    keras.utils.set_random_seed(0)
    losses = make().fit(Batches(batches, "image", None if y is None else "label"), verbose=0).history["loss"]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_evaluation_and_validation():
    expected = ddpm(True).evaluate(POINTS, LABELS, batch_size=4, verbose=0)
    arrays = {"validation_data": (POINTS, LABELS), "validation_batch_size": 4}
    history, _ = trained(ddpm(True), POINTS, LABELS, batch_size=4, shuffle=False, **arrays)
    make = LABELLED["DataLoader of dicts"]
    np.testing.assert_allclose(ddpm(True).evaluate(make(), verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(trained(ddpm(True), make(), validation_data=make())[0], history, rtol=1e-5)


def test_a_stream_is_one_pass():
    expected = ddpm(True).fit(POINTS, LABELS, batch_size=4, shuffle=False, verbose=0).history["loss"]
    batches = Batches(Stream(dicts()), x="point", y="kind")
    assert batches.num_batches is None
    np.testing.assert_allclose(ddpm(True).fit(batches, verbose=0).history["loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(ddpm(True).fit((x for x in pairs()), verbose=0).history["loss"], expected, rtol=1e-5)


def test_batches_come_by_their_numbers_in_any_order():
    batches = Batches(dicts(), x="point", y="kind")
    assert batches.num_batches == 4
    for i in (0, 2, 1, 1, 3, 0):
        x, y = batches[i]
        np.testing.assert_array_equal(x, POINTS[ROWS[i]])
        np.testing.assert_array_equal(y, LABELS[ROWS[i]])
    assert [len(x) for x, _ in batches] == [4, 4, 4, 2]


def test_each_epoch_iterates_the_source_once():
    class Counted(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    source = Counted(pairs())
    ddpm(True).fit(Batches(source), epochs=5, verbose=0)
    assert 5 <= source.passes <= 8  # TensorFlow looks at two batches before, and we at one


def test_several_keys_make_a_dict():
    wide = [{**batch, "point": batch["point"].astype("float64")} for batch in dicts()]
    (_, named), (_, whole) = (
        Batches(wide, "point", ["kind", "point"])[1],
        Batches([(x, {"kind": y, "point": x.astype("float64")}) for x, y in pairs()])[1],
    )
    for y in (named, whole):
        assert list(y) == ["kind", "point"]
        assert y["point"].dtype == "float32"
        np.testing.assert_array_equal(y["point"], POINTS[ROWS[1]])
        np.testing.assert_array_equal(y["kind"], LABELS[ROWS[1]])


def test_of_wide_floats_single_precision_is_left():
    x, y = Batches(dicts(lambda part: part.astype("float64")), "point", "kind")[0]
    assert (x.dtype, y.dtype) == ("float32", "float32")
    np.testing.assert_array_equal(x, POINTS[:4])


def test_pixels_are_scaled_by_the_transform():
    pixels = RNG.integers(0, 256, (6, 8, 8)).astype("uint8")
    x, _ = Batches([{"image": pixels, "label": np.arange(6)}], "image", "label", normalize_images)[0]
    assert (x.dtype, x.shape) == ("float32", (6, 8, 8, 1))
    np.testing.assert_allclose(x[..., 0], pixels / 127.5 - 1, atol=1e-6)


class Short(list):
    def __len__(self):
        return 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Batches(dicts(), "point", ["kind", "text"]), "`y` must be a key of the batches.* Received: y='text'"),
        (lambda: Batches(dicts(), x="image"), r"`x` must be a key.*one of \['point', 'kind', 'name'\].*x='image'"),
        (lambda: Batches(dicts(), x="point", y="label"), r"`y` must be a key.*'kind', 'name'\].*y='label'"),
        (lambda: Batches(dicts()), r"`x` must be a key of the batches, one of \['point'.*Received: x=None"),
        (lambda: Batches(dicts(), x="point", y="name"), "`y` must be real numbers. Received: y=dtype <U1"),
        (lambda: Batches(pairs(), x="point"), "`x` must be None, since the batches are not dicts. Received: x='point'"),
        (lambda: Batches([{"a": [[1.0], [1.0, 2.0]]}], x="a"), "`x` must be a regular array of numbers"),
        (lambda: Batches([(POINTS,) * 4]), r"`source` must yield \(x,\), \(x, y\) or .*source=4 arrays"),
    ],
)
def test_batches_that_cannot_be_trained_on_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()[0]
    with pytest.raises(ValueError, match=message):
        ddpm(True).fit(make(), verbose=0)


def test_batches_of_changing_shape_are_refused():
    batches = Batches([(POINTS, LABELS), (POINTS[:, :1], LABELS)])
    batches[0]
    message = r"`source` must yield batches of one shape.*Received: source=\[\(1,\), \(\)\] after \[\(2,\), \(\)\]"
    with pytest.raises(ValueError, match=message):
        batches[1]
    with pytest.raises(Exception, match="batches of one shape"):  # TensorFlow wraps it
        ddpm(True).fit(Batches(batches.source), verbose=0)


def test_a_source_shorter_than_its_length_is_refused():
    with pytest.raises(ValueError, match="`source` must yield as many batches as its length.*source=4 of 9"):
        Batches(Short(pairs()))[5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": POINTS}, "`source` must be an iterable of batches. Received: source=a ndarray"),
        ({"source": {"x": POINTS}}, "`source` must be an iterable of batches. Received: source=a dict"),
        ({"source": 3}, "`source` must be an iterable of batches. Received: source=a int"),
        ({"source": [], "y": "label"}, "`x` must be given with `y`"),
        ({"source": [], "x": 0}, "`x` must be the key of batches that are dicts, or None. Received: x=0"),
        ({"source": [], "x": "x", "y": []}, r"`y` must be the key of .*, or a list of keys. Received: y=\[\]"),
        ({"source": [], "transform": 2.0}, "`transform` must be a function or None. Received: transform=2.0"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(**arguments)


def test_dicts_in_fit_are_referred_to_batches():
    message = r"`x` must yield \(x,\) or \(x, y\), as `keras_gen.data.Batches.*keys of \['point', 'kind', 'name'\]"
    for data in (BatchList(dicts()), (batch for batch in dicts())):
        with pytest.raises(ValueError, match=message):
            ddpm(True).fit(data, verbose=0)


def test_iterators_and_the_lists_that_they_yield():
    lists = [[x, y] for x, y in pairs()]
    expected = ddpm(True).fit(POINTS, LABELS, batch_size=4, shuffle=False, verbose=0).history["loss"]
    for data in (iter(lists), zip(*zip(*lists, strict=True), strict=True)):
        losses = ddpm(True).fit(data, verbose=0).history["loss"]
        np.testing.assert_allclose(losses, expected, rtol=1e-5, err_msg=type(data).__name__)


def test_loaders_of_a_stream_and_of_nothing():
    data = pytest.importorskip("torch").utils.data

    class Rows(data.IterableDataset):
        def __iter__(self):
            return zip(tensors(POINTS), LABELS, strict=True)

    expected = ddpm(True).fit(POINTS, LABELS, batch_size=4, shuffle=False, verbose=0).history["loss"]
    losses = ddpm(True).fit(data.DataLoader(Rows(), batch_size=4), verbose=0).history["loss"]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="`x` must hold at least one sample. Received: x=a DataLoader of none"):
        ddpm(True).fit(data.DataLoader(data.Subset(POINTS, []), batch_size=4), verbose=0)


class Table:
    """As of pandas: no array, but it can be made one."""

    def __init__(self, values):
        self.values, self.shape = values, values.shape

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_tables_are_checked_as_arrays():
    expected = ddpm(False).fit(POINTS, batch_size=4, shuffle=False, verbose=0).history["loss"]
    losses = ddpm(False).fit(Table(POINTS), batch_size=4, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="`x` must be finite"):
        ddpm(False).fit(Table(np.where(POINTS > 0, np.nan, POINTS)), verbose=0)


def test_bad_weights_of_classes_and_samples_are_refused():
    def fit(**options):
        return lambda: ddpm(True).fit(POINTS, LABELS, verbose=0, **options)

    rule = "`class_weight` must be a dict from labels, which are integers, to finite numbers >= 0. Received"
    bad = [{0: np.nan}, {0: -1.0}, {"a": 1.0}, {0.5: 1.0}, {True: 1.0}, {0: "1"}, [1.0, 2.0], 2.0]
    cases = [(f"class_weight={weights}", fit(class_weight=weights), rule) for weights in bad]
    cases.append(("a list", fit(sample_weight=[1.0] * 14), "`sample_weight` must be an array. Received: .*=a list"))
    offenders = not_refused(cases)
    assert not offenders, "\n".join(offenders)
    weighted = fit(class_weight={0: 2.0, np.int64(1): 0}, batch_size=14)().history["loss"]
    weights = np.choose(LABELS, [2.0, 0.0, 1.0])
    np.testing.assert_allclose(weighted, fit(sample_weight=weights, batch_size=14)().history["loss"], rtol=1e-5)
