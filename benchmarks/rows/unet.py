"""The U-Nets against the same architectures in diffusers."""

import keras
import numpy as np
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from keras import ops

from benchmarks.contest import OURS, Contender, Contest
from keras_gen.core.compiled import compiled
from keras_gen.models import DDPM, UNet, UNet2DCondition
from keras_gen.schedules import LinearSchedule

BATCH, SIZE, RATE, DECAY = 16, 32, 1e-4, 0.004
CASE = f"batch {BATCH}, {SIZE} x {SIZE} x 1"


def networks() -> tuple[UNet, UNet2DModel]:
    """Returns our network and theirs, with the same weights."""
    torch.manual_seed(0)
    theirs = UNet2DModel(
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
    ours = UNet.from_diffusers(theirs)
    return ours, theirs.eval().to(memory_format=torch.channels_last)


def to_torch(images: np.ndarray) -> torch.Tensor:
    """Returns images with the axes of PyTorch, channels first, in unchanged memory layout."""
    return torch.tensor(images).permute(0, 3, 1, 2)


def unet_step(quick: bool) -> Contest:
    network, peer = networks()
    x, t = np.random.default_rng(0).standard_normal((BATCH, SIZE, SIZE, 1), "float32"), 50 * np.arange(BATCH)
    step = compiled(network, lambda x, t: network([x, t], training=False))
    inputs, peer_inputs = (ops.convert_to_tensor(x), ops.convert_to_tensor(t, "int32")), (to_torch(x), torch.tensor(t))

    @torch.inference_mode()
    def theirs() -> np.ndarray:
        return peer(*peer_inputs).sample.permute(0, 2, 3, 1).numpy()

    contenders = {OURS: Contender(lambda: ops.convert_to_numpy(step(*inputs))), "diffusers": Contender(theirs)}
    return Contest(CASE, contenders, same=("diffusers",))


def unet_text_step(quick: bool) -> Contest:
    """Stable Diffusion 1's, with random weights: one evaluation of the latents of a picture of 512 x 512 pixels."""
    torch.manual_seed(0)
    widths, size = ((32, 32, 32, 32), 16) if quick else ((320, 640, 1280, 1280), 64)
    peer = UNet2DConditionModel(sample_size=size, block_out_channels=widths, cross_attention_dim=768).eval()
    network = UNet2DCondition.from_diffusers(peer)
    peer = peer.to(memory_format=torch.channels_last)
    generator = np.random.default_rng(0)
    x, tokens = (generator.standard_normal(shape, "float32") for shape in ((1, size, size, 4), (1, 77, 768)))
    step = compiled(network, lambda x, t, tokens: network([x, t, tokens], training=False))
    inputs = ops.convert_to_tensor(x), ops.convert_to_tensor([500], "int32"), ops.convert_to_tensor(tokens)
    peer_inputs = to_torch(x), torch.tensor([500]), torch.tensor(tokens)

    @torch.inference_mode()
    def theirs() -> np.ndarray:
        return peer(*peer_inputs).sample.permute(0, 2, 3, 1).numpy()

    contenders = {OURS: Contender(lambda: ops.convert_to_numpy(step(*inputs))), "diffusers": Contender(theirs)}
    return Contest(f"batch 1, {size} x {size} x 4, 77 tokens", contenders, same=("diffusers",), turns=3)


def unet_train(quick: bool) -> Contest:
    """Training with AdamW: ours by `fit`, the peer by a typical training loop."""
    steps = 4 if quick else 8
    network, peer = networks()
    images = np.random.default_rng(0).uniform(-1, 1, (steps * BATCH, SIZE, SIZE, 1)).astype("float32")
    model = DDPM(network, seed=0)
    model.compile(keras.optimizers.AdamW(RATE, weight_decay=DECAY))

    def ours() -> float:
        return model.fit(images, batch_size=BATCH, shuffle=False, verbose=0).history["loss"][0]

    peer.train()
    optimizer = torch.optim.AdamW(peer.parameters(), RATE, weight_decay=DECAY, fused=True)
    alphas_cumprod = torch.tensor(LinearSchedule().alphas_cumprod, dtype=torch.float32)
    batches = to_torch(images).split(BATCH)

    def theirs() -> float:
        total = torch.zeros(())
        for x0 in batches:
            t, eps = torch.randint(1000, (BATCH,)), torch.randn_like(x0)
            share = alphas_cumprod[t].view(-1, 1, 1, 1)
            x_t = share.sqrt() * x0 + (1 - share).sqrt() * eps
            loss = torch.nn.functional.mse_loss(peer(x_t, t).sample, eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / steps

    # The first losses differ only by the draw of the noise.
    contenders = {OURS: Contender(ours, steps), "diffusers": Contender(theirs, steps)}
    return Contest(f"{CASE}, `fit` of {steps} steps", contenders, same=("diffusers",), tolerance=0.2)
