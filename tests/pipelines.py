"""Tiny pipelines of diffusers, each weight jittered: fresh norms and zero biases would hide errors of a mapping."""

import json

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]
CHARACTERS = [*map(chr, BYTES), *(chr(256 + i) for i in range(256 - len(BYTES)))]
MERGES = [("t", "h"), ("th", "e</w>"), ("d", "i"), ("g", "i"), ("di", "gi"), ("digi", "t</w>")]
WORDS = [*CHARACTERS, *(c + "</w>" for c in CHARACTERS), *(a + b for a, b in MERGES)]
VOCABULARY = {word: i for i, word in enumerate([*WORDS, "<|startoftext|>", "<|endoftext|>"])}
SIZE, LENGTH = len(VOCABULARY), 16
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def tokenizer(pad_token="<|endoftext|>"):
    return CLIPTokenizer(vocab=VOCABULARY, merges=MERGES, model_max_length=LENGTH, pad_token=pad_token)


def jittered(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def clip(projection=False, activation="quick_gelu"):
    config = CLIPTextConfig(
        vocab_size=SIZE,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        hidden_act=activation,
        projection_dim=24,
        bos_token_id=SIZE - 2,
        eos_token_id=SIZE - 1,
        pad_token_id=SIZE - 1,
    )
    return jittered((CLIPTextModelWithProjection if projection else CLIPTextModel)(config))


def vae(channels, **options):
    return jittered(
        AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            latent_channels=channels,
            norm_num_groups=4,
            sample_size=16,
            **options,
        )
    )


def unet(**options):
    return jittered(
        UNet2DConditionModel(
            sample_size=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            **{"attention_head_dim": 2, "cross_attention_dim": 32, **options},
        )
    )


def stable_diffusion():
    """Stable Diffusion 1, with a part that only diffusers has a use for."""
    scheduler = PNDMScheduler(**STABLE, skip_prk_steps=True, set_alpha_to_one=False)
    parts = {"vae": vae(4), "text_encoder": clip(), "tokenizer": tokenizer(), "unet": unet(), "scheduler": scheduler}
    unused = {"safety_checker": None, "feature_extractor": None}
    return StableDiffusionPipeline(**parts, **unused, requires_safety_checker=False)


def stable_diffusion_xl():
    network = unet(
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24 + 6 * 8,
    )
    return StableDiffusionXLPipeline(
        vae=vae(4, scaling_factor=0.13025),
        text_encoder=clip(),
        text_encoder_2=clip(True, "gelu"),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer("!"),
        unet=network,
        scheduler=EulerDiscreteScheduler(**STABLE, timestep_spacing="leading"),
        add_watermarker=False,
    )


def stable_diffusion_3(t5=True, **options):
    """Stable Diffusion 3; with `qk_norm` and `dual_attention_layers` 3.5."""
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=48,
        out_channels=16,
        pos_embed_max_size=12,
        **options,
    )
    config = T5Config(
        vocab_size=128,
        d_model=64,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dense_act_fn="gelu_new",
        is_gated_act=True,
    )
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -2.0),
        *((chr(i), -3.0) for i in range(33, 127)),
    ]
    third = jittered(T5EncoderModel(config)) if t5 else None
    return StableDiffusion3Pipeline(
        transformer=jittered(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(16, use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=clip(True),
        tokenizer=tokenizer(),
        text_encoder_2=clip(True, "gelu"),
        tokenizer_2=tokenizer("!"),
        text_encoder_3=third,
        tokenizer_3=T5TokenizerFast(vocab=pieces, extra_ids=0) if t5 else None,
    )


def dit():
    network = jittered(
        DiTTransformer2DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            num_embeds_ada_norm=1000,
        )
    )
    first = network.transformer_blocks[0].norm1.emb.state_dict()
    for block in network.transformer_blocks[1:]:  # published files hold equal ones
        block.norm1.emb.load_state_dict(first)
    return DiTPipeline(network, vae(4), DDIMScheduler(clip_sample=False))


PIPELINES = {
    "sd": stable_diffusion,
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "sd3 without t5": lambda: stable_diffusion_3(t5=False),
    "sd35": lambda: stable_diffusion_3(qk_norm="rms_norm", dual_attention_layers=(0,)),
    "dit": dit,
}


def save(name, folder):
    """Writes one of PIPELINES, and returns the path."""
    path = folder / name.replace(" ", "_")
    PIPELINES[name]().save_pretrained(path)
    if name == "dit":  # the published index has them, but diffusers does not write them
        index = json.loads((path / "model_index.json").read_text())
        (path / "model_index.json").write_text(json.dumps({**index, "id2label": {"0": "zero, nought", "1": "one"}}))
    return path
