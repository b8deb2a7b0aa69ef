"""The name of this installation, which everything that it makes elsewhere carries."""

import os
import re
import secrets
from pathlib import Path

_NAME = re.compile(r"[0-9a-f]{12}")


def instance_name(data_dir: Path) -> str:
    """Return the name, 12 hex digits; it is made with the data directory and stays."""
    path = data_dir / "instance"
    try:
        found = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        found = secrets.token_hex(6)
        partial = path.with_name(".instance.new")  # whole or not at all, also after a crash
        with partial.open("w", encoding="ascii") as file:
            file.write(found + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    if not _NAME.fullmatch(found):
        raise ValueError(f"{path}: {found[:40]!r} is no name of 12 hex digits; delete the file")
    return found
