import pathlib
import re

from setuptools import find_packages, setup

HERE = pathlib.Path(__file__).parent
VERSION = re.search(r'"(.+)"', (HERE / "keras_gen" / "version.py").read_text()).group(1)

IMAGES, PLOTS = ["pillow>=10.3"], ["matplotlib>=3.8"]
TEXT = ["tokenizers>=0.21", "sentencepiece>=0.2", "protobuf>=5"]
EXAMPLES = ["scikit-learn>=1.3", *IMAGES, *PLOTS]
# What the suite runs on. torch 2.13.0 is pinned exactly: a range may pull a build of several GB.
PINNED = [
    "keras==3.15.1",
    "tensorflow-cpu==2.21.0; sys_platform == 'linux' and platform_machine == 'x86_64'",
    "tensorflow==2.21.0; sys_platform != 'linux' or platform_machine != 'x86_64'",
    "jax==0.10.2",
    "torch==2.13.0",
]

setup(
    name="keras_gen",
    version=VERSION,
    description="Generative-model layers, models and samplers for Keras 3, on TensorFlow, JAX and PyTorch.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The keras_gen authors",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    keywords=[
        *(
            "keras",
            "tensorflow",
            "jax",
            "pytorch",
            "deep learning",
            "generative models",
            "diffusion models",
            "DDPM",
            "DDIM",
        ),
        *(
            "score-based models",
            "rectified flow",
            "flow matching",
            "normalizing flows",
            "variational autoencoder",
            "VQ-VAE",
        ),
        *("GAN", "autoregressive models", "Gumbel-softmax", "hubness"),
    ],
    packages=find_packages(include=["keras_gen", "keras_gen.*"]),
    package_data={"keras_gen": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=["keras>=3.15", "numpy>=1.26", "h5py>=3.10"],
    extras_require={
        "tensorflow": ["tensorflow>=2.18"],
        "jax": ["jax>=0.4.35"],
        "torch": ["torch>=2.6"],
        "diffusers": ["safetensors>=0.8"],
        "text": TEXT,
        "images": IMAGES,
        "plots": [*IMAGES, *PLOTS],
        "tensorboard": ["tensorboard>=2.16", *IMAGES],
        "examples": EXAMPLES,
        "onnx": ["onnx>=1.17", "onnxscript>=0.7.2", "onnxruntime>=1.20", "tf2onnx>=1.16.1"],
        "serve": ["starlette>=0.40", "uvicorn>=0.30", *IMAGES],
        "test": [
            *(
                *PINNED,
                *EXAMPLES,
                "pytest>=8",
                "pytest-xdist>=3.6.1",
                "hypothesis>=6.100",
                "scipy>=1.11.1",
                "ruff>=0.8",
            ),
            *("mypy>=1.15", "pyright>=1.1.390", "tensorboard>=2.16"),
        ],
        "peers": [
            *("diffusers>=0.35", "transformers>=5", *TEXT, "vector-quantize-pytorch>=1.20", "torchmetrics>=1.6"),
            *("zuko>=1.4", "nflows>=0.14", "normflows>=1.7"),
        ],
        "bench": [
            *("torch>=2.6", "diffusers>=0.35", "vector-quantize-pytorch>=1.20", "scikit-learn>=1.3", "faiss-cpu>=1.9"),
            *("zuko>=1.4", "nflows>=0.14", "normflows>=1.7", "matplotlib>=3.8", "transformers>=5"),
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
