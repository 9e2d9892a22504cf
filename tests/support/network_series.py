"""Damaged network files of an export, opened and run one after the other: `run(main, ...)` in a process of its own."""

import contextlib
import io
import json
import random
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from damage import damage_bytes, damage_json
from descriptions import make_description

from nnunetv2_hlfd.deploy.runtime.description import read_description
from nnunetv2_hlfd.deploy.runtime.errors import UserError
from nnunetv2_hlfd.deploy.runtime.network import Network, open_network
from nnunetv2_hlfd.deploy.runtime.predict import predict_labels
from nnunetv2_hlfd.deploy.runtime.readers.reader import Image


def _damaged(content: bytes, generator: random.Random) -> bytes:
    """Damaged bytes; or, in whole ones, another number somewhere, as if the file lied about a size."""
    if generator.random() < 0.5:
        return damage_bytes(content, generator)
    numbers = [at for at in range(len(content)) if content[at : at + 1].isdigit()] or [0]
    at = generator.choice(numbers)
    return content[:at] + generator.choice((b"", b"0", b"9999999", b"-1", b"../")) + content[at + 1 :]


def read_descriptions(samples: int, seed: int) -> Counter[str]:
    """Descriptions that fit no network, before an image that is prepared by them."""
    whole = json.loads(make_description().to_json())
    image = Image(data=np.ones((1, 3, 32, 32), np.float32), spacing=(1.0, 1.0, 1.0))
    counts: Counter[str] = Counter()
    for number in range(samples):
        text = damage_json(whole, random.Random(f"{seed}-description-{number}")).decode(errors="replace")
        try:
            model = read_description(text, "network.onnx")
            if model.heads <= 100:
                network = Network(
                    run=lambda batch, heads=model.heads: np.zeros((len(batch), heads, *batch.shape[2:]), np.float32),
                    description=model,
                )
                predict_labels(image, [network])
            counts["read"] += 1
        except UserError:
            counts["refused"] += 1
    return counts


def main(file: Path, samples: int, seed: int) -> None:
    """Print as JSON how many were refused and read; anything else ends the process.

    Args:
        file: network.onnx or network.xml, of which each part is damaged.
        samples: number of damaged forms of each part.
        seed: of the damage.
    """
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    with contextlib.redirect_stdout(io.StringIO()):
        for part in {file, *(file.with_suffix(".bin") for _ in range(file.suffix == ".xml"))}:
            whole = part.read_bytes()
            for number in range(samples):
                part.write_bytes(_damaged(whole, random.Random(f"{seed}-{part.suffix}-{number}")))
                try:
                    open_network(file, 1)
                    counts["read"] += 1
                except UserError:
                    counts["refused"] += 1
            part.write_bytes(whole)
    print(json.dumps(counts))
