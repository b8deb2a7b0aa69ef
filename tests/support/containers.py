"""The containers of tasks in an Engine, as anybody with its socket sees them."""

from pathlib import Path
from typing import Any

import msgspec

from k12ai.models import LABEL_INSTANCE, LABEL_TASK_ID
from tests.support.engine import EngineClient


class Outsider(EngineClient):
    """Looks at containers, and does to them what somebody else may do."""

    def of_instance(self, data_dir: Path) -> dict[str, dict[str, Any]]:
        """Return the rows of an installation's containers, running or not, by the id of their task."""
        rows = self.labelled(f"{LABEL_INSTANCE}={instance_of(data_dir)}")
        return {row["Labels"][LABEL_TASK_ID]: row for row in rows}

    def labelled(self, label: str) -> list[dict[str, Any]]:
        """Return the rows of all containers with a label."""
        filters = msgspec.json.encode({"label": [label]}).decode()
        answer = self._http.get("/containers/json", params={"all": "1", "filters": filters})
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows

    def processes(self, container_id: str) -> int:
        """Return how many processes a container has; 0 where it does not run."""
        answer = self._http.get(f"/containers/{container_id}/top", params={"ps_args": "-eo pid"})
        return len(answer.json()["Processes"]) if answer.status_code == 200 else 0

    def exists(self, container_id: str) -> bool:
        return self._http.get(f"/containers/{container_id}/json").status_code == 200

    def remove_instance(self, data_dir: Path) -> None:
        """Remove every container of an installation, where it has a name yet."""
        if (data_dir / "instance").exists():
            for row in self.labelled(f"{LABEL_INSTANCE}={instance_of(data_dir)}"):
                self.remove(row["Id"])

    def save_image(self, image: str, archive: Path) -> None:
        with self._http.stream("GET", f"/images/{image}/get") as answer, archive.open("wb") as file:
            assert answer.status_code == 200, answer.read()
            for piece in answer.iter_bytes(1 << 20):
                file.write(piece)

    def load_image(self, archive: Path) -> None:
        with archive.open("rb") as file:
            answer = self._http.post("/images/load", content=file)
        assert answer.status_code == 200, answer.text


def instance_of(data_dir: Path) -> str:
    """Return the name of the installation whose data is here."""
    return (data_dir / "instance").read_text().strip()
