"""The U-Nets against the same architectures in diffusers."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from keras import ops

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.devices import operations
from benchmarks.settings import Setting, channels_last
from keras_gen.core.compiled import compiled
from keras_gen.models import DDPM, UNet, UNet2DCondition
from keras_gen.schedules import LinearSchedule

BATCH, CIFAR_BATCH, FEW, SIZE, RATE, DECAY = 16, 128, 2, 32, 1e-4, 0.004


def small_unet() -> UNet2DModel:
    """Returns a U-Net of 1.5 million weights, for gray images."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=2,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        norm_num_groups=8,
        add_attention=False,
    )


def cifar_unet(quick: bool) -> UNet2DModel:
    """Returns DDPM's U-Net for CIFAR-10, of 35.7 million weights."""
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=SIZE,
        layers_per_block=2,
        block_out_channels=(32, 32, 32, 32) if quick else (128, 256, 256, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    )


def unet_step(quick: bool, setting: Setting) -> Contest:
    return _step(small_unet(), BATCH, setting)


def unet_cifar_step(quick: bool, setting: Setting) -> Contest:
    return _step(cifar_unet(quick), FEW if quick else CIFAR_BATCH, setting)


def unet_train(quick: bool, setting: Setting) -> Contest:
    return _train(small_unet(), BATCH, 4 if quick else 8, setting)


def unet_cifar_train(quick: bool, setting: Setting) -> Contest:
    return _train(cifar_unet(quick), FEW if quick else CIFAR_BATCH, 2 if quick else 10, setting)


def unet_text_step(quick: bool, setting: Setting) -> Contest:
    """Stable Diffusion 1's, with random weights: one evaluation of the latents of a picture of 512 x 512 pixels."""
    torch.manual_seed(0)
    widths, size = ((32, 32, 32, 32), 16) if quick else ((320, 640, 1280, 1280), 64)
    peer = UNet2DConditionModel(sample_size=size, block_out_channels=widths, cross_attention_dim=768)
    network = UNet2DCondition.from_diffusers(peer)
    generator = np.random.default_rng(0)
    x, tokens = (generator.standard_normal(shape, "float32") for shape in ((1, size, size, 4), (1, 77, 768)))
    inputs = ops.convert_to_tensor(x), ops.convert_to_tensor([500], "int32"), ops.convert_to_tensor(tokens)
    peer_inputs = setting.images(x), setting.tensor([500]), setting.rounded(tokens)
    contest = evaluation(network, peer, inputs, peer_inputs, f"batch 1, {size} x {size} x 4, 77 tokens", setting)
    contest.turns = 3
    return contest


def evaluation(
    network: keras.Model, peer: torch.nn.Module, inputs: Any, peer_inputs: Any, case: str, setting: Setting
) -> Contest:
    """Returns the contest of one evaluation of a network and of diffusers'."""
    network, peer = setting.ours(network), setting.evaluated(peer)
    step = compiled(network, lambda *inputs: network(list(inputs), training=False))
    call = setting.compiled(peer)

    @torch.inference_mode()
    def theirs(call: Callable = call) -> torch.Tensor:
        return channels_last(call(*peer_inputs).sample)

    contenders = {OURS: Contender(lambda: step(*inputs)), "diffusers": Contender(theirs)}
    counted = setting.counted(operations(lambda: theirs(peer)))
    return Contest(case, contenders, ("diffusers",), setting.tolerance, **counted)


def training(
    model: keras.Model,
    peer: torch.nn.Module,
    data: Sequence[np.ndarray],
    batch: int,
    case: str,
    setting: Setting,
) -> Contest:
    """Returns the contest of training with AdamW on images, perhaps with classes: ours by `fit`, the peer by a loop."""
    steps = len(data[0]) // batch
    model.compile(keras.optimizers.AdamW(RATE, weight_decay=DECAY), jit_compile=setting.jit_compile)

    def ours() -> float:
        return model.fit(*data, batch_size=batch, shuffle=False, verbose=0).history["loss"][0]

    peer = setting.trained(peer)
    call = setting.compiled(peer)
    optimizer = torch.optim.AdamW(peer.parameters(), RATE, weight_decay=DECAY, fused=True)
    alphas_cumprod = setting.tensor(LinearSchedule().alphas_cumprod.astype("float32"))

    def loss(call: Callable, images: torch.Tensor, *classes: torch.Tensor) -> torch.Tensor:
        x0 = images.permute(0, 3, 1, 2)
        t, eps = torch.randint(1000, (batch,), device=x0.device), torch.randn_like(x0)
        share = alphas_cumprod[t].view(-1, 1, 1, 1)
        x_t = share.sqrt() * x0 + (1 - share).sqrt() * eps
        with setting.autocast():
            found = call(x_t, t, *classes).sample
        return torch.nn.functional.mse_loss(found.float(), eps)

    theirs = setting.epoch(optimizer, functools.partial(loss, call), data, batch)
    first = [setting.tensor(part[:batch]) for part in data]
    counted = setting.counted(operations(lambda: torch.autograd.grad(loss(peer, *first), list(peer.parameters()))))
    # The first losses differ only by the draw of the noise.
    contenders = {OURS: Contender(ours, steps), "diffusers": Contender(theirs, steps)}
    return Contest(f"{case}, `fit` of {steps} steps", contenders, ("diffusers",), tolerance=0.2, **counted)


def _step(peer: UNet2DModel, batch: int, setting: Setting) -> Contest:
    x = np.random.default_rng(0).standard_normal((batch, SIZE, SIZE, peer.config.in_channels), "float32")
    t = np.arange(batch) * 1000 // batch
    inputs = ops.convert_to_tensor(x), ops.convert_to_tensor(t, "int32")
    peer_inputs = setting.images(x), setting.tensor(t)
    return evaluation(UNet.from_diffusers(peer), peer, inputs, peer_inputs, case_of(x), setting)


def _train(peer: UNet2DModel, batch: int, steps: int, setting: Setting) -> Contest:
    shape = batch * steps, SIZE, SIZE, peer.config.in_channels
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    model = DDPM(UNet.from_diffusers(peer), seed=0)
    return training(model, peer, [images], batch, case_of(images[:batch]), setting)


def case_of(x: np.ndarray) -> str:
    """Returns the description of a batch of images."""
    return f"batch {len(x)}, {' x '.join(map(str, x.shape[1:]))}"
