"""The benchmarked workloads, by name.

A row is a function `name(quick, setting)` in the module given here, which returns a `Contest` of "ours" and the peers.
The modules import Keras and the peers, so they are imported only after the backend is set.
"""

import dataclasses
import importlib

from benchmarks.contest import OURS, Contest
from benchmarks.devices import Device
from benchmarks.marks import Mark, Rate, Ratio, Utilization

# How networks compute: the name of each way, its dtype, and whether ours and peers are compiled.
MODES = {
    "float32": ("float32", False),
    "float32-compiled": ("float32", True),
    "bfloat16": ("bfloat16", False),
    "bfloat16-compiled": ("bfloat16", True),
}
PLAIN = "float32"


@dataclasses.dataclass
class Row:
    """The module of a row's function, its title and peers in the table, and its marks.

    `marks` are ratios, ours to a peer's, on the CPU: of the best backend (or `None`), and of every backend. `beyond`
    instead is a limit in milliseconds on our time, measured after the peer's work. `gpu_marks` are those on a GPU, by
    mode. `modes` has the row on a GPU; on a CPU it has the first one, and the others if they are asked for. `tables`
    names the devices whose table has the row: its size is made for them.
    """

    module: str
    title: str
    peers: tuple[str, ...]
    marks: dict[str, tuple[float | None, float]] = dataclasses.field(default_factory=dict)
    beyond: float | None = None
    modes: tuple[str, ...] = (PLAIN,)
    tables: tuple[str, ...] = ("cpu",)
    gpu_marks: dict[str, tuple[Mark, ...]] = dataclasses.field(default_factory=dict)

    def modes_on(self, device: str, asked: str | None = None) -> tuple[str, ...]:
        """Returns the modes of a run: the one that is asked for, if the row has it, or those of the device."""
        if asked is not None:
            return (asked,) if asked in self.modes else ()
        return self.modes if device == "gpu" else self.modes[:1]


PRODUCT = "bare product"
ARGMAX = "product and argmax"
TOPK = "products and topk"
VQ = "vector-quantize-pytorch"
DIFFUSERS = ("diffusers",)
NETWORK = tuple(MODES)
GPU = ("gpu",)

ROWS = {
    "unet_step": Row("unet", "U-Net, one evaluation", DIFFUSERS, {"diffusers": (1.1, 2.0)}, modes=NETWORK),
    "unet_train": Row("unet", "U-Net, one step of training", DIFFUSERS, {"diffusers": (1.1, 2.2)}, modes=NETWORK),
    "unet_cifar_step": Row(
        "unet",
        "U-Net of DDPM for CIFAR-10, one evaluation",
        DIFFUSERS,
        modes=NETWORK,
        tables=GPU,
        gpu_marks={"bfloat16-compiled": (Ratio("diffusers", {"torch": 1.1, "jax": 0.85}),)},
    ),
    "unet_cifar_train": Row(
        "unet",
        "U-Net of DDPM for CIFAR-10, one step of training",
        DIFFUSERS,
        modes=NETWORK,
        tables=GPU,
        gpu_marks={"bfloat16": (Ratio("diffusers", {"torch": 0.6, "jax": 0.4}),)},
    ),
    "unet_text_step": Row(
        "unet",
        "U-Net of Stable Diffusion 1, one evaluation",
        DIFFUSERS,
        {"diffusers": (1.1, 2.0)},
        modes=NETWORK,
    ),
    "dit_step": Row(
        "dit",
        "DiT-B/2, one evaluation",
        DIFFUSERS,
        modes=NETWORK,
        tables=GPU,
        gpu_marks={"bfloat16-compiled": (Ratio("diffusers", {"torch": 1.1, "jax": 1.0}),)},
    ),
    "dit_train": Row(
        "dit",
        "DiT-B/2, one step of training",
        DIFFUSERS,
        modes=NETWORK,
        tables=GPU,
        gpu_marks={
            "bfloat16-compiled": (
                Ratio("diffusers", {"torch": 1.1, "jax": 0.9}),
                Utilization("diffusers", {"jax": 0.44}),
            ),
        },
    ),
    "text_encoder": Row("pipelines", "text encoder of Stable Diffusion 1", ("transformers",), modes=NETWORK),
    "image_decoder": Row("pipelines", "decoder of Stable Diffusion 1", DIFFUSERS, modes=NETWORK),
    "text_to_image": Row("pipelines", "Stable Diffusion 1, an image", DIFFUSERS, modes=NETWORK),
    "sampling_ddpm": Row("sampling", "DDPM, an image", DIFFUSERS, modes=NETWORK),
    "sampling_ddim": Row(
        "sampling",
        "DDIM, an image",
        DIFFUSERS,
        {"diffusers": (1.0, 2.0)},
        modes=NETWORK,
        tables=("cpu", "gpu"),
        gpu_marks=dict.fromkeys(("float32", "bfloat16"), (Ratio("diffusers", {"torch": 0.25, "jax": 0.2}),)),
    ),
    "sampling_ddim_256": Row("sampling", "DDIM, an image of 256", DIFFUSERS, modes=NETWORK, tables=GPU),
    "sampling_dpm_solver": Row("sampling", "DPM-Solver++(2M), an image", DIFFUSERS, modes=NETWORK),
    "sampling_loop": Row("sampling", "DDIM, the loop", ("single steps",), {"single steps": (1.05, 1.15)}),
    "vq_lookup": Row("quantization", "nearest codes", (VQ, PRODUCT), {VQ: (0.12, 0.25)}),
    "vq_lookup_large": Row(
        "quantization",
        "nearest codes, many",
        (VQ, ARGMAX),
        tables=GPU,
        gpu_marks={PLAIN: (Ratio(ARGMAX, {"torch": 1.2, "jax": 1.2}),)},
    ),
    "vq_layer": Row("quantization", "vector quantizer, evaluation", (VQ,)),
    "fsq": Row("quantization", "finite scalar quantizer", (VQ,)),
    "k_occurrence": Row(
        "hubness",
        "k-occurrence",
        ("scikit-learn", "faiss", PRODUCT),
        {"scikit-learn": (0.35, 0.5), "faiss": (0.35, 0.5), PRODUCT: (None, 1.5)},
    ),
    "k_occurrence_large": Row(
        "hubness",
        "k-occurrence, many points",
        (TOPK,),
        tables=GPU,
        gpu_marks={PLAIN: (Ratio(TOPK, {"torch": 0.9, "jax": 0.9}),)},
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
    "code_samples": Row(
        "decoding",
        "transformer's samples, a code",
        ("transformers",),
        modes=NETWORK,
        tables=GPU,
        gpu_marks={"bfloat16-compiled": (Rate("transformers", {"torch": 60_000, "jax": 120_000}),)},
    ),
    "import_time": Row("imports", "import keras_gen", ("import keras",), beyond=60.0),
}


def contest(name: str, quick: bool, device: Device, mode: str) -> Contest:
    """Returns the contest of a row, on the backend of this process."""
    from benchmarks.settings import Setting

    setting = Setting(device, *MODES[mode])
    setting.begin()
    module = importlib.import_module(f"benchmarks.rows.{ROWS[name].module}")
    found = getattr(module, name)(quick, setting)
    assert list(found.contenders) == [OURS, *ROWS[name].peers], f"{name}: contenders {list(found.contenders)}"
    return found
