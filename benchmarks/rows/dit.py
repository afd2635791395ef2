"""DiT-B/2 against diffusers': the transformer of 130 million weights, on latents of 32 x 32 x 4."""

import numpy as np
import torch
from diffusers import DiTTransformer2DModel
from keras import ops

from benchmarks.contest import Contest
from benchmarks.rows.unet import evaluation, training
from benchmarks.settings import Setting
from keras_gen.models import DDPM, DiT

CLASSES, SHAPE = 1000, (32, 32, 4)


def dit_step(quick: bool, setting: Setting) -> Contest:
    peer, batch = _peer(quick), 2 if quick else 64
    x, classes = _data(batch)
    t = np.arange(batch) * 1000 // batch
    inputs = ops.convert_to_tensor(x), *(ops.convert_to_tensor(part, "int32") for part in (t, classes))
    peer_inputs = setting.images(x), setting.tensor(t), setting.tensor(classes)
    return evaluation(DiT.from_diffusers(peer), peer, inputs, peer_inputs, _case(batch), setting)


def dit_train(quick: bool, setting: Setting) -> Contest:
    peer, (batch, steps) = _peer(quick), (2, 2) if quick else (64, 8)
    model = DDPM(DiT.from_diffusers(peer), seed=0)
    return training(model, peer, _data(batch * steps), batch, _case(batch), setting)


def _peer(quick: bool) -> DiTTransformer2DModel:
    torch.manual_seed(0)
    heads, depth = (2, 2) if quick else (12, 12)
    peer = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=64,
        in_channels=4,
        out_channels=4,
        num_layers=depth,
        sample_size=SHAPE[0],
        patch_size=2,
        num_embeds_ada_norm=CLASSES,
    )
    for block in peer.transformer_blocks[1:]:  # each embeds time and class by itself, of which ours has one
        block.norm1.emb.load_state_dict(peer.transformer_blocks[0].norm1.emb.state_dict())
    return peer


def _data(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(0).uniform(-1, 1, (n, *SHAPE)).astype("float32"), np.arange(n) % CLASSES


def _case(batch: int) -> str:
    return f"batch {batch}, {' x '.join(map(str, SHAPE))}, {CLASSES:,} classes"
