import sys
import types
import warnings

import keras
import pytest

from keras_gen import export
from keras_gen.export import exported, keras_gen_export


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What these tests export is forgotten afterwards."""
    for name in ("_symbols", "_also", "_aliases", "_keys"):
        monkeypatch.setattr(export, name, dict(getattr(export, name)))


def new_class(name="Sample", module="somewhere"):
    return type(
        name, (keras.layers.Layer,), {"__module__": module, "get_config": lambda self: keras.Layer.get_config(self)}
    )


@pytest.mark.parametrize(
    "path", ["Sample", "keras.layers.Sample", "keras_gen.Sample", "keras_gen.rooms.Sample", "keras_gen.layers.a.Sample"]
)
def test_malformed_paths_are_refused(path):
    with pytest.raises(ValueError, match="`path` must be keras_gen.<namespace>.<Name>"):
        keras_gen_export(path)(new_class())
    with pytest.raises(ValueError, match="`also` must be keras_gen.<namespace>.<Name>"):
        keras_gen_export("keras_gen.layers.Sample", also=[path])(new_class())
    with pytest.raises(ValueError, match="`aliases` must be keras_gen.<namespace>.<Name>"):
        keras_gen_export("keras_gen.layers.Sample", aliases=[path])(new_class())


def test_name_must_be_the_symbols():
    with pytest.raises(ValueError, match="`path` must end with the symbol's name, Sample"):
        keras_gen_export("keras_gen.layers.Other")(new_class())
    with pytest.raises(ValueError, match="`also` must end with the symbol's name, Sample"):
        keras_gen_export("keras_gen.layers.Sample", also=["keras_gen.bijectors.Other"])(new_class())


def test_a_held_path_names_both_holders():
    keras_gen_export("keras_gen.layers.Sample")(new_class(module="first"))
    with pytest.raises(ValueError, match=r"held by first.Sample and claimed by second.Sample"):
        keras_gen_export("keras_gen.layers.Sample")(new_class(module="second"))


def test_a_held_alias_or_key_is_refused():
    keras_gen_export("keras_gen.layers.Sample", aliases=["keras_gen.layers.Old"])(new_class(module="first"))
    with pytest.raises(ValueError, match="keras_gen.layers.Old, held by first.Sample"):
        keras_gen_export("keras_gen.layers.Old")(new_class("Old", "second"))
    with pytest.raises(ValueError, match="keras_gen>Sample, held by first.Sample"):
        keras_gen_export("keras_gen.models.Sample")(new_class(module="second"))
    with pytest.raises(ValueError, match="held by first.Sample"):
        keras_gen_export("keras_gen.layers.New", aliases=["keras_gen.layers.Old"])(new_class("New", "second"))


def test_a_second_path_is_as_good_as_the_first():
    sample = keras_gen_export("keras_gen.layers.Sample", also=["keras_gen.bijectors.Sample"])(new_class())
    assert exported()["keras_gen.layers.Sample"] is exported()["keras_gen.bijectors.Sample"] is sample
    assert "keras_gen.layers.Sample" in exported(also=False)
    assert "keras_gen.bijectors.Sample" not in exported(also=False)
    assert keras.saving.get_registered_name(sample) == "keras_gen>Sample"


def test_a_held_second_path_names_both_holders():
    keras_gen_export("keras_gen.layers.Sample", also=["keras_gen.bijectors.Sample"])(new_class(module="first"))
    with pytest.raises(ValueError, match="path=keras_gen.bijectors.Sample, held by first.Sample and claimed by second"):
        keras_gen_export("keras_gen.bijectors.Sample")(new_class(module="second"))
    with pytest.raises(ValueError, match="path=keras_gen.layers.Sample, held by first.Sample and claimed by second"):
        keras_gen_export("keras_gen.models.Sample", also=["keras_gen.layers.Sample"])(new_class(module="second"))
    assert "keras_gen.models.Sample" not in exported()


def test_a_notebook_cell_may_run_again():
    export_sample = keras_gen_export("keras_gen.layers.Sample", also=["keras_gen.bijectors.Sample"])
    export_sample(new_class())
    again = new_class()
    assert export_sample(again) is again
    assert exported()["keras_gen.layers.Sample"] is exported()["keras_gen.bijectors.Sample"] is again


def test_keys_hold_no_module_path():
    sample = keras_gen_export("keras_gen.layers.Sample", aliases=["keras_gen.layers.Old"])(new_class())
    assert keras.saving.get_registered_name(sample) == "keras_gen>Sample"
    assert keras.saving.get_registered_object("keras_gen>Old") is sample


def test_an_alias_warns_once(monkeypatch):
    module = types.ModuleType("keras_gen.layers")
    monkeypatch.setitem(sys.modules, "keras_gen.layers", module)
    sample = keras_gen_export("keras_gen.layers.Sample", aliases=["keras_gen.layers.Old"])(new_class())
    export.serve_aliases()
    with pytest.warns(DeprecationWarning, match="keras_gen.layers.Old is deprecated: use keras_gen.layers.Sample"):
        assert module.Old is sample
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert module.Old is sample
    with pytest.raises(AttributeError, match="has no attribute 'Never'"):
        module.Never  # noqa: B018


def test_functions_are_exported_without_a_key():
    def sample():
        pass

    keras_gen_export("keras_gen.ops.sample")(sample)
    assert exported()["keras_gen.ops.sample"] is sample
    assert keras.saving.get_registered_object("keras_gen>sample") is None
