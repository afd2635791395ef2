import keras
import numpy as np

from keras_gen import layers
from laws.arrays import IMAGES, NUMBERS, PAIRS, TOKENS, VECTOR, T
from laws.bijectors import BIJECTORS, DISCRETE
from laws.networks import NETWORKS
from laws.text import TEXT_ENCODERS

HEADS = np.random.default_rng(8).normal(size=(2, 6, 3, 8)).astype("float32")
DECAY = keras.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)

# name -> (constructor, inputs)
LAYERS = {
    "finite_scalar_quantizer": (lambda: layers.FiniteScalarQuantizer((4, 3)), (PAIRS,)),
    "gaussian_sampling": (lambda: layers.GaussianSampling(kl_weight=0.1, seed=0), (VECTOR, VECTOR)),
    "conditioner": (lambda: layers.Conditioner(3, [8], dropout=0.5, seed=0, remat=True), (VECTOR,)),
    "cross_attention": (lambda: layers.CrossAttention2D(2, 2, remat=True), (IMAGES, TOKENS)),
    "dit_block": (lambda: layers.DiTBlock(2, positions=layers.RotaryEmbedding2D(2, 3), remat=True), (TOKENS, VECTOR)),
    "gated_attention_unit": (
        lambda: layers.GatedAttentionUnit(4, 8, layers.RotaryEmbedding2D(3, 2, base=1e3), remat=True),
        (TOKENS,),
    ),
    "group_norm": (lambda: layers.GroupNorm(2), (IMAGES,)),
    "grouped_vector_quantizer": (
        lambda: layers.GroupedVectorQuantizer([layers.VectorQuantizer(5, seed=seed) for seed in (0, 1)]),
        (IMAGES,),
    ),
    "gumbel_softmax": (lambda: layers.GumbelSoftmax(DECAY, seed=0), (VECTOR,)),
    "light_block": (lambda: layers.LightBlock(4, remat=True), (IMAGES, VECTOR)),
    "lookup_free_quantizer": (lambda: layers.LookupFreeQuantizer(4), (PAIRS,)),
    "gated_pixel_block": (lambda: layers.GatedPixelBlock(8), (IMAGES, IMAGES[::-1].copy())),
    "gated_pixel_block_strict_groups_embedding": (
        lambda: layers.GatedPixelBlock(4, 5, strict=True, groups=2, remat=True),
        (IMAGES, IMAGES[::-1].copy(), VECTOR),
    ),
    "masked_conv_2d": (lambda: layers.MaskedConv2D(6, (3, 5), groups=2), (IMAGES,)),
    "masked_conv_2d_strict": (lambda: layers.MaskedConv2D(3, strict=True), (IMAGES,)),
    "masked_dense": (lambda: layers.MaskedDense([1, 2, 3, 1, 2, 3], [1, 2, 3]), (VECTOR,)),
    "learned_normal_base": (layers.LearnedNormalBase, (VECTOR,)),
    "laplace_base": (layers.LaplaceBase, (VECTOR,)),
    "logistic_base": (layers.LogisticBase, (VECTOR,)),
    "mmdit_block": (lambda: layers.MMDiTBlock(2, 3, dual_attention=True, remat=True), (IMAGES, TOKENS, VECTOR)),
    "moving_average": (lambda: layers.MovingAverage(0.9), (VECTOR,)),
    "moving_average_mean": (lambda: layers.MovingAverage(None), (VECTOR,)),
    "normal_base": (layers.NormalBase, (VECTOR,)),
    "pixel_shuffle": (lambda: layers.PixelShuffle2D(2, "dcr"), (IMAGES,)),
    "pixel_unshuffle": (lambda: layers.PixelUnshuffle2D(2, "dcr"), (IMAGES,)),
    "residual_block": (lambda: layers.ResidualBlock(4, 2, dropout=0.5, seed=0), (IMAGES, VECTOR)),
    "residual_block_alone": (lambda: layers.ResidualBlock(4, 2, dropout=0.5, remat=True, seed=0), (IMAGES,)),
    "residual_block_remat": (lambda: layers.ResidualBlock(8, 2, dropout=0.5, remat=True, seed=0), (IMAGES, VECTOR)),
    "residual_vector_quantizer": (
        lambda: layers.ResidualVectorQuantizer([layers.VectorQuantizer(5, restart_below=1, seed=0) for _ in range(2)]),
        (IMAGES,),
    ),
    "rotary_embedding": (lambda: layers.RotaryEmbedding(1e3), (HEADS,)),
    "rotary_embedding_2d": (lambda: layers.RotaryEmbedding2D(2, 3, base=1e3), (HEADS,)),
    "self_attention": (lambda: layers.SelfAttention2D(2, 2, remat=True), (IMAGES,)),
    "sinusoidal_embedding": (lambda: layers.SinusoidalEmbedding(6), (T,)),
    "sinusoidal_positions_2d": (lambda: layers.SinusoidalPositions2D(7, 3), (IMAGES,)),
    "spatial_transformer": (lambda: layers.SpatialTransformer(2, 2, 4, remat=True), (IMAGES, TOKENS)),
    "transformer_block": (
        lambda: layers.TransformerBlock(2, hidden_dim=12, activation="gelu", epsilon=1e-5),
        (TOKENS,),
    ),
    "transformer_block_rotary": (
        lambda: layers.TransformerBlock(2, 3, layers.RotaryEmbedding(1e3), 0.5, 0, True, activation="quick_gelu"),
        (TOKENS,),
    ),
    "von_mises_fisher_sampling": (lambda: layers.VonMisesFisherSampling(3.0, seed=0), (VECTOR,)),
    "uniform_base": (layers.UniformBase, (NUMBERS,)),
    "universal_attention": (lambda: layers.UniversalAttention(2, 3), (TOKENS,)),
    "universal_attention_l2_rotary": (
        lambda: layers.UniversalAttention(2, None, "l2", layers.RotaryEmbedding(1e3)),
        (TOKENS,),
    ),
    "vector_quantizer": (lambda: layers.VectorQuantizer(5, num_heads=2, restart_below=1, seed=0), (IMAGES,)),
    "vector_quantizer_cosine_rotation": (
        lambda: layers.VectorQuantizer(5, distance="cosine", gradient="rotation", seed=0),
        (IMAGES,),
    ),
    "vector_quantizer_loss": (
        lambda: layers.VectorQuantizer(5, codebook_update="loss", initializer="random_normal"),
        (IMAGES,),
    ),
}
LAYERS |= NETWORKS | TEXT_ENCODERS
LAYERS |= {name: (make, (x,)) for name, (make, x, *condition) in BIJECTORS.items() if not condition}

# Layers whose purpose is to sample, in inference too.
SAMPLING = DISCRETE | {"gaussian_sampling", "gumbel_softmax", "von_mises_fisher_sampling"}
