"""The benchmarked workloads, by name.

A row is a function `name(quick)` in the module given here, which returns a `Contest` of "ours" and the peers. The
modules import Keras and the peers, so they are imported only after the backend is set.
"""

import dataclasses
import importlib

from benchmarks.contest import OURS, Contest


@dataclasses.dataclass
class Row:
    """The module of a row's function, its title and peers in the table, and its marks.

    `marks` are ratios, ours to a peer's: of the best backend (or `None`), and of every backend. `beyond` instead is a
    limit in milliseconds on our time, measured after the peer's work.
    """

    module: str
    title: str
    peers: tuple[str, ...]
    marks: dict[str, tuple[float | None, float]] = dataclasses.field(default_factory=dict)
    beyond: float | None = None


PRODUCT = "bare product"
VQ = "vector-quantize-pytorch"

ROWS = {
    "unet_step": Row("unet", "U-Net, one evaluation", ("diffusers",), {"diffusers": (1.1, 2.0)}),
    "unet_text_step": Row(
        "unet", "U-Net of Stable Diffusion 1, one evaluation", ("diffusers",), {"diffusers": (1.1, 2.0)}
    ),
    "text_encoder": Row("pipelines", "text encoder of Stable Diffusion 1", ("transformers",)),
    "image_decoder": Row("pipelines", "decoder of Stable Diffusion 1", ("diffusers",)),
    "text_to_image": Row("pipelines", "Stable Diffusion 1, an image", ("diffusers",)),
    "unet_train": Row("unet", "U-Net, one step of training", ("diffusers",), {"diffusers": (1.1, 2.2)}),
    "sampling_ddpm": Row("sampling", "DDPM, an image", ("diffusers",)),
    "sampling_ddim": Row("sampling", "DDIM, an image", ("diffusers",), {"diffusers": (1.0, 2.0)}),
    "sampling_dpm_solver": Row("sampling", "DPM-Solver++(2M), an image", ("diffusers",)),
    "sampling_loop": Row("sampling", "DDIM, the loop", ("single steps",), {"single steps": (1.05, 1.15)}),
    "vq_lookup": Row("quantization", "nearest codes", (VQ, PRODUCT), {VQ: (0.12, 0.25)}),
    "vq_layer": Row("quantization", "vector quantizer, evaluation", (VQ,)),
    "fsq": Row("quantization", "finite scalar quantizer", (VQ,)),
    "k_occurrence": Row(
        "hubness",
        "k-occurrence",
        ("scikit-learn", "faiss", PRODUCT),
        {"scikit-learn": (0.35, 0.5), "faiss": (0.35, 0.5), PRODUCT: (None, 1.5)},
    ),
    "nice_train": Row(
        "flows", "NICE, one step of training", ("nflows", "zuko"), {"nflows": (0.7, 1.0), "zuko": (0.7, 1.0)}
    ),
    "nice_log_prob": Row("flows", "NICE, log_prob", ("nflows", "zuko"), {"nflows": (0.8, 1.0), "zuko": (0.8, 1.0)}),
    "flow_log_prob": Row("flows", "affine couplings, log_prob", ("zuko", "normflows")),
    "flow_sample": Row("flows", "affine couplings, samples", ("zuko", "normflows")),
    "spline_coupling": Row("flows", "spline coupling, log_prob", ("nflows",)),
    "gumbel_softmax": Row("latent", "Gumbel-softmax", ("torch.nn.functional",)),
    "precision_recall": Row("evaluation", "precision and recall", ("torch.cdist",)),
    "cached_decoding": Row("decoding", "a code with kept keys and values", ("pass over all before",)),
    "import_time": Row("imports", "import keras_gen", ("import keras",), beyond=60.0),
}


def contest(name: str, quick: bool) -> Contest:
    """Returns the contest of a row, on the backend of this process."""
    module = importlib.import_module(f"benchmarks.rows.{ROWS[name].module}")
    found = getattr(module, name)(quick)
    assert list(found.contenders) == [OURS, *ROWS[name].peers], f"{name}: contenders {list(found.contenders)}"
    return found
