"""Stable Diffusion 1, its parts and a whole image: random weights of its sizes, against diffusers and transformers."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL as PeerAutoencoder
from diffusers import DDIMScheduler, UNet2DConditionModel
from keras import ops
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.devices import operations
from benchmarks.settings import Setting, channels_last
from keras_gen.core.compiled import compiled
from keras_gen.models import DDPM, AutoencoderKL, CLIPTextEncoder, TextToImage, UNet2DCondition
from keras_gen.samplers import from_diffusers as sampler_of
from keras_gen.schedules import from_diffusers as schedule_of

STEPS, PROMPTS, LENGTH, VOCABULARY = 4, 8, 77, 49408
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def text_model(quick: bool) -> CLIPTextModel:
    torch.manual_seed(0)
    width, depth, heads = (64, 2, 4) if quick else (768, 12, 12)
    sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    return CLIPTextModel(
        CLIPTextConfig(vocab_size=VOCABULARY, intermediate_size=4 * width, eos_token_id=2, **sizes)
    ).eval()


def autoencoder(quick: bool) -> PeerAutoencoder:
    torch.manual_seed(1)
    widths = (32, 32, 32, 32) if quick else (128, 256, 512, 512)
    blocks = {
        f"{way}_block_types": (f"{name}Block2D",) * 4 for way, name in (("down", "DownEncoder"), ("up", "UpDecoder"))
    }
    return PeerAutoencoder(block_out_channels=widths, layers_per_block=2, latent_channels=4, **blocks).eval()


def unet(quick: bool) -> UNet2DConditionModel:
    torch.manual_seed(2)
    widths, tokens = ((32, 32, 32, 32), 64) if quick else ((320, 640, 1280, 1280), 768)
    return UNet2DConditionModel(block_out_channels=widths, cross_attention_dim=tokens).eval()


def token_ids(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (n, LENGTH)).astype("int32")


def noise(quick: bool) -> np.ndarray:
    size = 16 if quick else 64
    return np.random.default_rng(1).standard_normal((1, size, size, 4), "float32")


def text_encoder(quick: bool, setting: Setting) -> Contest:
    peer, ids = text_model(quick), token_ids(PROMPTS)
    network = setting.ours(CLIPTextEncoder.from_diffusers(peer))
    step = compiled(network, lambda ids: network(ids, training=False)["tokens"])
    inputs, peer_inputs = ops.convert_to_tensor(ids), setting.tensor(ids)
    peer = setting.evaluated(peer)
    call = setting.compiled(peer)

    @torch.inference_mode()
    def theirs(call: Callable = call) -> torch.Tensor:
        return call(peer_inputs).last_hidden_state

    contenders = {OURS: Contender(lambda: step(inputs)), "transformers": Contender(theirs)}
    counted = setting.counted(operations(lambda: theirs(peer)))
    case = f"{PROMPTS} prompts of {LENGTH} tokens"
    return Contest(case, contenders, ("transformers",), setting.tolerance, **counted)


def image_decoder(quick: bool, setting: Setting) -> Contest:
    peer, z = autoencoder(quick), noise(quick)
    model = setting.ours(AutoencoderKL.from_diffusers(peer))
    decode = setting.compiled(setting.evaluated(peer).decode)

    @torch.inference_mode()
    def theirs(decode: Callable = decode) -> torch.Tensor:
        return channels_last(decode(setting.images(z)).sample).cpu()  # as ours

    contenders = {OURS: Contender(lambda: model.decode(z)), "diffusers": Contender(theirs)}
    counted = setting.counted(operations(lambda: theirs(peer.decode)))
    case = f"{' x '.join(map(str, z.shape[1:]))} latents"
    return Contest(case, contenders, ("diffusers",), setting.tolerance, turns=3, **counted)


def text_to_image(quick: bool, setting: Setting) -> Contest:
    """Text, steps and decoding; ids in place of words, as no vocabulary comes with the library."""
    peers = text_model(quick), unet(quick), autoencoder(quick)
    x, ids = noise(quick), token_ids(1)
    diffusion = DDPM(UNet2DCondition.from_diffusers(peers[1]), schedule_of(SCHEDULER))
    encoder, decoder = CLIPTextEncoder.from_diffusers(peers[0]), AutoencoderKL.from_diffusers(peers[2])
    model = setting.ours(TextToImage(diffusion, encoder, lambda prompts: ids, decoder))
    options: dict[str, Any] = {"noise": x, "seed": 0, "verbose": 0}
    ours = functools.partial(model.sample, "", sampler_of(SCHEDULER, STEPS), **options)
    text, network, last = (setting.evaluated(peer) for peer in peers)
    parts = text, network, last.decode
    scheduler, scale = DDIMScheduler.from_config(SCHEDULER), last.config.scaling_factor

    @torch.inference_mode()
    def theirs(text: Callable, network: Callable, decode: Callable) -> torch.Tensor:
        tokens, z = text(setting.tensor(ids)).last_hidden_state, setting.images(x)
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            z = scheduler.step(network(z, t, tokens).sample, t, z).prev_sample
        return channels_last(decode(z / scale).sample.clip(-1, 1)).cpu()  # as ours

    z, tokens = setting.images(x), setting.rounded(np.zeros((1, LENGTH, network.config.cross_attention_dim), "float32"))
    encoding, step = operations(lambda: text(setting.tensor(ids))), operations(lambda: network(z, 0, tokens))
    counted = setting.counted(encoding + STEPS * step + operations(lambda: last.decode(z)))
    contenders = {
        OURS: Contender(ours),
        "diffusers": Contender(functools.partial(theirs, *map(setting.compiled, parts))),
    }
    case = f"{x.shape[1]} x {x.shape[2]} latents, {STEPS} DDIM steps, one prompt"
    return Contest(case, contenders, ("diffusers",), setting.tolerance, turns=1, warm=1, **counted)
