"""Prompts of a text-to-image model: texts, or what its encoders have made of them."""

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_gen.core.checks import check, check_integer
from keras_gen.core.compiled import as_tensor, even_batches
from keras_gen.core.conditions import map_parts
from keras_gen.diffusion.models.diffusion_model import DiffusionModel
from keras_gen.diffusion.samplers.guidance import ClassifierFreeGuidance, NegativeGuidance
from keras_gen.pretrained.prompts import as_prompts, as_texts, number_of

if TYPE_CHECKING:
    from keras_gen.diffusion.models.encoded_model import EncodedModel as Mixin  # which comes later among the bases
else:
    Mixin = object

BATCH_SIZE = 8  # of prompts and of images, where none is given


class EncodesPrompts(Mixin):
    """Mixin of models with text encoders, which may be released once all prompts are encoded."""

    diffusion: DiffusionModel
    family: Any
    text_encoders: list[keras.Layer]
    tokenizers: list[Any]
    _compiled_trainable_state: dict[keras.Layer, bool]  # Keras's

    def encode_prompts(
        self,
        prompts: str | Sequence[str],
        height: int | None = None,
        width: int | None = None,
        batch_size: int | None = None,
    ) -> Any:
        """Encodes prompts to conditions of the diffusion model. Equal prompts are encoded once.

        Args:
            prompts: a string, or a sequence of `n` strings.
            height: int or `None`. Height of the images, which the condition contains for Stable Diffusion XL. Defaults
                to `None`, the model's `image_size`.
            width: int or `None`. Width of the images. Defaults to `None`, as for `height`.
            batch_size: int >= 1 or `None`. Number of prompts encoded at a time. Defaults to `None`, 8.

        Returns:
            float32 array `(n, tokens, channels)`, or a dict of arrays `(n, ...)`, as the network takes them.

        Raises:
            ValueError: if the prompts are not strings, or an argument is outside its range.
        """
        texts = as_texts("prompts", prompts)
        self._check_encoders("prompts", prompts)
        unique = list(dict.fromkeys(texts))
        rows = [unique.index(text) for text in texts]
        ids = self.family.ids(self.tokenizers, unique)
        encodings = [self._encoded(number, own, given_or_usual(batch_size)) for number, own in enumerate(ids)]
        condition = self.family.condition(encodings, self._size(height, width) if self.family.takes_size else None)
        return map_parts(lambda part: part[rows], condition)

    def release_encoders(self) -> None:
        """Frees the memory of the text encoders, where all prompts are known beforehand.

        From then on all methods take prompts as `encode_prompts` returned them, and with a `ClassifierFreeGuidance`
        negative ones too, if the diffusion model has no `condition_dropout`. The model can still be trained, but
        neither be saved nor written for diffusers; `save_weights` leaves the encoders out.

        Example:

        >>> prompts, negative = model.encode_prompts(["a photo of a cat", "a red bus"]), model.encode_prompts("")
        >>> model.release_encoders()
        >>> images = model.sample(prompts, guidance=guidance, negative_prompts=negative)
        """
        encoders = list(self.text_encoders)
        self.text_encoders.clear()
        for encoder in encoders:
            for variable in encoder.variables:
                self._untrack_variable(variable)  # of PyTorch's module
        self.programs.by_key.clear()  # they hold the weights that they read
        if self.compiled:  # and Keras all layers, to warn of those that are frozen afterwards
            del self._compiled_trainable_state  # TensorFlow keeps what is merely replaced
            self._compiled_trainable_state = {layer: layer.trainable for layer in self._flatten_layers()}

    def _given(
        self,
        prompts: Any,
        guidance: Any,
        negative_prompts: Any,
        size: tuple[int, int],
        batch_size: int | None,
        verbose: str | int,
    ) -> dict[str, Any]:
        """Returns condition and guidance as the diffusion model takes them, and the batch size."""
        options = {"guidance": guidance, "batch_size": given_or_usual(batch_size), "verbose": verbose}
        leads_away = type(guidance) is ClassifierFreeGuidance
        rule = "come with a ClassifierFreeGuidance"
        check(leads_away or negative_prompts is None, "negative_prompts", rule, negative_prompts)
        if not leads_away or (negative_prompts is None and self.diffusion.condition_dropout > 0):
            return {"condition": self._conditions([prompts], size, batch_size)[0], **options}
        negatives = "" if negative_prompts is None else negative_prompts
        negatives = self._prompts("negative_prompts", negatives, number_of(prompts))
        conditions = self._conditions([prompts, negatives], size, batch_size)
        return {"condition": tuple(conditions), **options, "guidance": NegativeGuidance(**guidance.get_config())}

    def _check_whole(self) -> None:
        rule = "have its text encoders to be saved or written: `release_encoders` took them"
        check(len(self.text_encoders) > 0, "model", rule, self.name)

    def _prompts(self, name: str, prompts: Any, n: int | None = None) -> Any:
        """Returns prompts as `as_prompts` does, after checking that those which are encoded fit the network."""
        prompts = as_prompts(name, prompts, n)
        if isinstance(prompts, list):
            self._check_encoders(name, prompts)
            return prompts
        return self.diffusion.prepare_condition(prompts, number_of(prompts), name)

    def _check_encoders(self, name: str, prompts: Any) -> None:
        rule = "be encoded by `encode_prompts` before `release_encoders` is called"
        check(len(self.text_encoders) > 0, name, rule, repr(prompts)[:80])

    def _conditions(self, prompts: Sequence[Any], size: tuple[int, int], batch_size: int | None) -> list[Any]:
        """Returns the conditions of several sets of prompts, whose texts are encoded together."""
        texts = [text for own in prompts if isinstance(own, list) for text in own]
        encoded = self.encode_prompts(texts, *size, batch_size) if texts else None
        conditions, start = [], 0
        for own in prompts:
            if isinstance(own, list):
                rows = slice(start, start + len(own))
                conditions.append(map_parts(operator.itemgetter(rows), encoded))
                start = rows.stop
            else:
                conditions.append(own)
        return conditions

    def _encoded(self, number: int, ids: np.ndarray, batch_size: int) -> dict[str, np.ndarray]:
        """Returns what a text encoder makes of token ids, in float32."""
        encoder = self.text_encoders[number]

        def encode(ids: Any) -> Any:
            return keras.tree.map_structure(lambda part: ops.cast(part, "float32"), encoder(ids, training=False))

        batches = list(even_batches(len(ids), batch_size))
        run = self.program(("encode", number, len(batches[0]), ids.shape[1]), encode)
        parts = [keras.tree.map_structure(ops.convert_to_numpy, run(as_tensor(ids[rows]))) for rows in batches]
        return keras.tree.map_structure(lambda *part: np.concatenate(part)[: len(ids)], *parts)


def given_or_usual(batch_size: int | None) -> int:
    """Returns the number of prompts, or of images, that are computed at a time."""
    return BATCH_SIZE if batch_size is None else check_integer("batch_size", batch_size)
