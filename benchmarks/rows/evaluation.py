"""Sample quality metrics against a direct PyTorch implementation."""

import numpy as np
import torch

from benchmarks.contest import OURS, Contender, Contest
from benchmarks.settings import Setting
from keras_gen.metrics import PrecisionRecall

DIM, K = 64, 3


def precision_recall(quick: bool, setting: Setting) -> Contest:
    n = 2_000 if quick else 10_000
    generator = np.random.default_rng(0)
    real, generated = generator.standard_normal((n, DIM), "float32"), generator.standard_normal((n, DIM), "float32")
    peer_inputs = setting.tensor(real), setting.tensor(0.9 * generated)

    def ours() -> list[float]:
        metric = PrecisionRecall(None, k=K)
        metric.update_state(real, np.float32(0.9) * generated)
        return list(metric.result().values())

    @torch.inference_mode()
    def theirs() -> list[float]:
        a, b = peer_inputs
        return [_share_in_balls(b, a), _share_in_balls(a, b)]

    contenders = {OURS: Contender(ours), "torch.cdist": Contender(theirs)}
    return Contest(f"twice {n:,} x {DIM} features, k = {K}", contenders, ("torch.cdist",))


def _share_in_balls(queries: torch.Tensor, points: torch.Tensor) -> float:
    reach = torch.cdist(points, points).topk(K + 1, largest=False).values[:, -1]  # the first is the point itself
    return (torch.cdist(queries, points) <= reach).any(dim=1).float().mean().item()
