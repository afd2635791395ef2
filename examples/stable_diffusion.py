"""Text to image by Stable Diffusion's parts, https://kexue.fm/archives/9119 on latents with conditions by attention.

    KERAS_BACKEND=jax python examples/stable_diffusion.py --folder stable-diffusion-v1-5 --prompt "a photo of a cat"
    KERAS_BACKEND=jax python examples/stable_diffusion.py --prompt "a green seven"        # trains a tiny one: 5 minutes

`--folder` is a pipeline of the library diffusers: Stable Diffusion 1, 2, XL, 3 or 3.5. Without it, the script trains a
pipeline of the same parts, whose text encoder stays random, on digits in four colours with captions such as "a blue
three", and writes it as such a folder to `--output`, from which diffusers can read it, too. The default prompts combine
colours and digits that never occur together in the captions. Needs `pip install 'keras_gen[diffusers,text]'`. Writes
`samples.png`, with a row for each prompt.
"""

import argparse
import json
import pathlib

import keras
import numpy as np
from datasets import load_images
from shared import as_count, full_or_smoke, parser, save_picture

from keras_gen.models import DDPM, AutoencoderKL, CLIPTextEncoder, TextToImage, UNet2DCondition
from keras_gen.samplers import ClassifierFreeGuidance, from_diffusers
from keras_gen.schedules import ScaledLinearSchedule
from keras_gen.tokenizers import CLIPTokenizer

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {"red": (1, 0.2, 0.2), "green": (0.2, 1, 0.2), "blue": (0.3, 0.3, 1), "white": (1, 1, 1)}
PROMPTS = (("red", "three"), ("green", "seven"), ("blue", "zero"), ("white", "five"))  # which training does not see
LENGTH = 12  # tokens of a caption, its start and end among them


def parse_arguments() -> argparse.Namespace:
    arguments = parser(__doc__, "stable_diffusion", epochs=60)
    arguments.add_argument("--folder", type=pathlib.Path, help="a pipeline of diffusers")
    arguments.add_argument("--variant", help="of its files, such as fp16")
    arguments.add_argument("--prompt", nargs="+", default=[f"a {colour} {digit}" for colour, digit in PROMPTS])
    arguments.add_argument("--images", type=as_count, default=6, help="for each prompt")
    arguments.add_argument("--steps", type=as_count, default=full_or_smoke(30, 2))
    arguments.add_argument("--guidance", type=float, default=3.0)
    return arguments.parse_args()


def captioned_digits(dataset: str, seed: int) -> tuple[np.ndarray, list[str]]:
    """Returns digits of random colours, in [-1, 1], and their captions; one in ten is empty, for guidance."""
    images, labels = load_images(dataset)
    generator = np.random.default_rng(seed)
    seen = [[name for name in COLOURS if (name, digit) not in PROMPTS] for digit in DIGITS]
    names = [generator.choice(seen[label]) for label in labels]
    brightness = (images[..., :1] + 1) / 2 * np.array([COLOURS[name] for name in names])[:, None, None]
    captions = [f"a {name} {DIGITS[label]}" for name, label in zip(names, labels, strict=True)]
    dropped = generator.uniform(size=len(captions)) < 0.1
    return (2 * brightness - 1).astype("float32"), [c * (not d) for c, d in zip(captions, dropped, strict=True)]


def tokenizer_of_words(folder: pathlib.Path) -> CLIPTokenizer:
    """Returns a tokenizer that knows letters, and joins them to the words of the captions."""
    letters = [chr(code) for code in range(97, 123)]
    merges = []
    for word in (*COLOURS, *DIGITS):
        parts = [*word[:-1], f"{word[-1]}</w>"]
        merges += [("".join(parts[:i]), parts[i]) for i in range(1, len(parts))]
    merges = list(dict.fromkeys(merges))
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges)]))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": LENGTH}))
    return CLIPTokenizer.from_folder(folder)


def trained_autoencoder(images: np.ndarray, arguments: argparse.Namespace) -> AutoencoderKL:
    model = AutoencoderKL(images.shape[1:], 4, (32,), 1, groups=8, seed=arguments.seed)
    model.compile(keras.optimizers.Adam(2e-3))
    model.fit(images, batch_size=arguments.batch_size, epochs=max(1, arguments.epochs // 10), verbose=2)
    model.scaling_factor = float(1 / model.encode(images).std())
    return model


def train_pipeline(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
    """Trains a tiny pipeline and writes it as diffusers does."""
    keras.utils.set_random_seed(arguments.seed)
    images, captions = captioned_digits(arguments.dataset, arguments.seed)
    tokenizer = tokenizer_of_words(arguments.output / "tokenizer")
    options = {"end_id": tokenizer.end_id, "depth": 2, "num_heads": 4, "hidden_dim": 64}
    encoder = CLIPTextEncoder(tokenizer.vocabulary_size, LENGTH, 32, **options)
    for embedding in (encoder.token_embedding, encoder.position_embedding):  # which are frozen: distinct from the start
        embedding.embeddings.assign(keras.random.normal(embedding.embeddings.shape, seed=arguments.seed))
    shape = (*images.shape[1:3], 4)
    network = UNet2DCondition(shape, 32, (32, 64), (1, 1), num_heads=4, blocks_per_level=1, groups=8)
    diffusion = DDPM(network, ScaledLinearSchedule(), seed=arguments.seed)
    model = TextToImage(diffusion, encoder, tokenizer, trained_autoencoder(images, arguments))
    model.compile(keras.optimizers.Adam(2e-3, use_ema=True, ema_momentum=0.99))
    model.fit(images, captions, arguments.batch_size, arguments.epochs, verbose=2)
    model.to_diffusers(folder)
    print(f"wrote {folder}")


def main() -> None:
    arguments = parse_arguments()
    folder = arguments.folder
    if folder is None:
        folder = arguments.output / "pipeline"
        if not (folder / "model_index.json").exists():
            train_pipeline(folder, arguments)
    model = TextToImage.from_diffusers(folder, arguments.variant)
    sampler = from_diffusers(folder / "scheduler" / "scheduler_config.json", arguments.steps)
    prompts = [prompt for prompt in arguments.prompt for _ in range(arguments.images)]
    images = model.sample(prompts, sampler, ClassifierFreeGuidance(arguments.guidance), seed=arguments.seed)
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_picture(arguments.output / "samples.png", images, arguments.images)


if __name__ == "__main__":
    main()
