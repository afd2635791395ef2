import os

# Three workers share the machine: one thread each. Set before any backend is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")
# Tests compile much and run little.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import collections

import keras
import numpy as np
import pytest


def pytest_addoption(parser):
    parser.addoption("--update-api", action="store_true", help="rewrite tests/public_api.txt")
    parser.addoption("--update-references", action="store_true", help="rewrite tests/data/*.npz (one backend alone)")


def pytest_report_header():
    return f"keras {keras.__version__}, backend {keras.backend.backend()}"


def pytest_terminal_summary(terminalreporter):
    """Says, behind pytest's own summary, which backend failed."""
    failed = collections.defaultdict(list)
    for report in terminalreporter.stats.get("failed", []) + terminalreporter.stats.get("error", []):
        node = getattr(report, "node", None)
        failed[node.gateway.id if node else keras.backend.backend()].append(report.nodeid)
    for backend, tests in sorted(failed.items()):
        terminalreporter.write_sep("-", f"{len(tests)} failed on {backend}", red=True)
        terminalreporter.write_line("\n".join(tests))


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def digits():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32"), labels.astype("int32")


@pytest.fixture
def rng():
    return np.random.default_rng(0)
