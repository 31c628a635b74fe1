"""Code that comes with a model is run only where the recipe pins it: a commit of the hub, or a folder's contents.

pin_of(Path("my-model"))      "sha256:4f1c..." of every .py file in it, names included
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from groupwise.config.sections import ModelSection
from groupwise.errors import RecipeError


def pin_of(folder: Path) -> str:
    """What `model.revision` has to be for the Python files of this folder to be run."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        for part in (str(path.relative_to(folder)).encode(errors="surrogateescape"), path.read_bytes()):
            digest.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{digest.hexdigest()[:32]}"


def check_pin(section: ModelSection, folder: Path) -> ModelSection:
    """The section of a model in a folder, without the revision, which was one of the folder's code or is a mistake."""
    if section.revision is None:
        return section
    pin = pin_of(folder)
    if not section.trust_remote_code:
        raise RecipeError(
            f"model.revision: {str(folder)!r} is a folder, and a folder has no revisions. Drop it, or name the model "
            "by its id on the hub"
        )
    if section.revision != pin:
        how = (
            "was changed since it was pinned" if section.revision.startswith("sha256:") else "is pinned by its contents"
        )
        raise RecipeError(
            f'model.trust_remote_code: the code in {folder} {how}. Read it, then set model.revision = "{pin}"'
        )
    return section.model_copy(update={"revision": None})
