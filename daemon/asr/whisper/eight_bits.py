"""Weights in eight bits, for CTranslate2, of which seven are used.

Processors without instructions for eight bits (AVX2, and AVX-512 before VNNI) multiply 0..255 by -127..127, add two
such products in 16 bits, and cut off what does not fit (oneDNN, "Nuances of int8 computations"; found in this way in
pytorch/pytorch#136746). The library's own conversion uses the whole range: there a Whisper says other words, and nobody
is told. With weights of -64..64 no sum overflows, and every processor comes to the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

MOST = 64
"""255 x 64 + 255 x 64 = 32,640, and 16 bits hold 32,767."""


def quantize(spec: Any) -> None:
    """Turn the weights of a CTranslate2 `ModelSpec` that can be had in eight bits into integers and scales, per row.

    Instead of `optimize`, of which it does the rest as well.
    """
    from ctranslate2.specs.model_spec import NumpyVariable, Variable, visit_spec

    def narrow(layer: Any, name: str, value: Any) -> None:
        key = name.rpartition("/")[2]
        if not (isinstance(value, Variable) and hasattr(layer, f"{key}_scale")) or value.is_scalar():
            return
        weights = value.to("float32").numpy()
        rows = weights.reshape(len(weights), -1)
        most = np.abs(rows).max(1)
        most[most == 0] = MOST
        scale = MOST / np.maximum(most, MOST / np.finfo(np.float32).max)
        setattr(layer, key, NumpyVariable(np.rint(rows * scale[:, None]).astype(np.int8).reshape(weights.shape)))
        setattr(layer, f"{key}_scale", NumpyVariable(scale.astype(np.float32)))

    spec.optimize()  # joins what is twice there, and must see it first
    visit_spec(spec, narrow)
