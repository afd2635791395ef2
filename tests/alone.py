"""JAX and PyTorch alone, from the import of this file on: Keras would load TensorFlow to save a model, and 450 MB."""

import importlib.machinery
import os
import sys


class _Refused:
    """Finds `tensorflow`, and fails to import it, as a broken installation would."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "tensorflow" else None

    def create_module(self, spec):
        raise ModuleNotFoundError("tensorflow is left out for this backend", name="tensorflow")

    def exec_module(self, module):
        raise NotImplementedError


if os.environ.get("KERAS_BACKEND") in ("jax", "torch"):
    sys.meta_path.insert(0, _Refused())
