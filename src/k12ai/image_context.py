"""What a task image is built from: the package as it is installed here, and what pip has to add to it.

The Engine gets it as a tar archive. The same package makes the same bytes, on whichever machine, so that
the Engine's cache recognises it; nothing in it tells where it came from.
"""

import hashlib
import io
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import requires
from importlib.resources import files
from pathlib import Path
from typing import IO

from k12ai._version import __version__

PACKAGE = "k12ai"

_DOCKERFILE = Path("docker", "task.Dockerfile")
_PACKAGES = Path("packages")
_WHEELS = Path("wheels")


class Context:
    """The files of a build, and a digest that tells whether an image was made of the same ones."""

    def __init__(self, extra: str) -> None:
        """``extra`` names what pip installs: that of the framework, or nothing where it is empty."""
        self._files = {
            Path("Dockerfile"): dockerfile().read_bytes(),
            Path("requirements.txt"): "".join(f"{each}\n" for each in requirements(extra)).encode(),
            # So that pip, where somebody adds to the image, knows that the package is there.
            _PACKAGES / f"{PACKAGE}-{__version__}.dist-info" / "METADATA": _METADATA.encode(),
            **{_PACKAGES / name: content for name, content in package_files()},
        }

    @property
    def digest(self) -> str:
        """The digest of everything but the certificates, which leave no trace in the image."""
        found = hashlib.sha256()
        for name, content in sorted(self._files.items()):
            found.update(f"{name.as_posix()}\0{len(content)}\0".encode() + content)
        return found.hexdigest()

    def archive(self, certificates: bytes = b"", wheels: Iterable[Path] = ()) -> IO[bytes]:
        """Return the archive for the Engine, which the caller closes.

        pip trusts ``certificates`` (PEM) where there are some, and looks among ``wheels`` as well.
        """
        # Wheels may have gigabytes together, so it is a file.
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        try:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                _add(tar, {**self._files, Path("certificates.pem"): certificates})
                tar.addfile(_directory(_WHEELS))
                for wheel in sorted(wheels, key=lambda path: path.name):
                    entry = _file(_WHEELS / wheel.name, wheel.stat().st_size)
                    with wheel.open("rb") as opened:
                        tar.addfile(entry, opened)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file


def requirements(extra: str) -> list[str]:
    """Return what pip installs for an extra of this package, as its own metadata says."""
    if not extra:
        return []
    condition = re.compile(rf"""(?:(?P<rest>.+) and )?extra == ['"]{re.escape(extra)}['"]""")
    found = []
    for each in requires(PACKAGE) or ():
        requirement, _, marker = each.partition(";")
        if (match := condition.fullmatch(marker.strip())) is not None:
            rest = match["rest"]
            found.append(f"{requirement.strip()}; {rest}" if rest else requirement.strip())
    return found


def dockerfile() -> Path:
    """Return the Dockerfile: in the package where that was installed, beside it in a checkout."""
    package = _package()
    installed, checkout = package / _DOCKERFILE, package.parents[1] / _DOCKERFILE
    return installed if installed.exists() else checkout


def package_files() -> Iterator[tuple[Path, bytes]]:
    """Yield the package's own files, without what Python and editors leave between them."""
    package = _package()
    for path in sorted(package.rglob("*")):
        name = path.relative_to(package.parent)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
        if path.is_file() and not hidden and path.suffix != ".pyc" and name.parts[1] != _DOCKERFILE.parts[0]:
            yield name, path.read_bytes()


def _package() -> Path:
    return Path(str(files(PACKAGE)))


def _add(tar: tarfile.TarFile, content: Mapping[Path, bytes]) -> None:
    directories = {parent for name in content for parent in name.parents} - {Path()}
    # A directory that is not named gets the mode that the Engine's own account gives new ones.
    for name in sorted(directories | set(content)):
        if name in directories:
            tar.addfile(_directory(name))
        else:
            tar.addfile(_file(name, len(content[name])), io.BytesIO(content[name]))


def _directory(name: Path) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name.as_posix())
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    return entry


def _file(name: Path, size_bytes: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name.as_posix())
    entry.size, entry.mode = size_bytes, 0o644
    return entry


_METADATA = f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {__version__}\n"
