"""Generalists on disk: weights as safetensors; card, sizes and the gate's priors as JSON. Nothing in them can run."""

from __future__ import annotations

import importlib.resources
from dataclasses import asdict
from pathlib import Path

from betz.core.config import from_dict, to_dict
from betz.core.errors import BetzError, CheckpointError
from betz.decode.calibrate import Betz
from betz.decode.gate import Expectation, Prior
from betz.model.checkpoint import ModelCard
from betz.model.folder import Layout, read_manifest, read_tensors, write_folder
from betz.model.generalist import Generalist

MANIFEST = "generalist.json"
_REMEDY = "copy the folder again from where it came, or pretrain again"
LAYOUT = Layout(
    "generalist",
    MANIFEST,
    "generalist-{sha}.safetensors",
    1,
    sealed=True,
    writer="save_generalist or runs/pretrain_generalist.sh",
    remedy=_REMEDY,
)


def save_generalist(folder: str | Path, recipe: Betz, *, card: ModelCard) -> None:
    """Write a pretrained generalist; :func:`betz.load` gives its recipe.

    Args:
        folder: is made if needed; an older one in it is replaced.
        recipe: network and priors.
        card: its origin, licence and numbers.

    Raises:
        CheckpointError: the disk did not take it.
    """
    from safetensors.torch import save_file

    network = recipe.network
    tensors = {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}
    content = {
        "name": recipe.name,
        "members": network.members,
        "width": network.width,
        "latents": network.latents,
        "priors": {key: asdict(prior) for key, prior in recipe.priors.items()},
        "expectations": {key: asdict(found) for key, found in recipe.expectations.items()},
        "card": to_dict(card),
    }
    write_folder(Path(folder), LAYOUT, content, lambda path: save_file(tensors, path))


def load_generalist(folder: str | Path) -> tuple[Betz, ModelCard]:
    """The recipe and card of a folder that :func:`save_generalist` wrote.

    Raises:
        CheckpointError: it is none, of a newer format, or damaged.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    manifest = read_manifest(folder, LAYOUT)
    tensors = read_tensors(folder, LAYOUT, manifest, load_file)
    try:
        network = Generalist(
            members=int(manifest["members"]), width=int(manifest["width"]), latents=int(manifest["latents"])
        )
        network.load_state_dict(tensors)
        priors = {
            key: Prior({m: (float(a), float(b)) for m, (a, b) in values["scores"].items()}, float(values["pull"]))
            for key, values in manifest["priors"].items()
        }
        expectations = {key: Expectation(**values) for key, values in manifest["expectations"].items()}
        card = from_dict(ModelCard, manifest["card"])
        name = str(manifest["name"])
    except (KeyError, TypeError, ValueError, RuntimeError, BetzError) as error:
        raise CheckpointError(
            f"the manifest does not fit ({type(error).__name__}: {error}).", where=str(folder), remedy=_REMEDY
        ) from None
    return Betz(network.eval().requires_grad_(False), name, priors, expectations), card


def shipped() -> dict[str, Path]:
    """Folders of the generalists that come with Betz, by name."""
    root = Path(str(importlib.resources.files("betz"))) / "weights"
    return {p.name: p for p in sorted(root.glob("*")) if (p / MANIFEST).exists()}
