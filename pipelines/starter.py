"""`roundtrip init`: lay out a new project: commented settings, an example of the keys' file, sample models.

The samples are those of this package: a model per language and the sync that sends their result.
"""

from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sources.core.errors import ConfigError


@dataclass(slots=True)
class InitResult:
    """What was written, and what was there already and left alone; paths relative to the project."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    run_id: str | None = None
    status: str = "ok"
    exit_code: int = 0
    error: str | None = None

    def payload(self) -> dict[str, Any]:
        """Give the two lists."""
        return {"written": self.written, "kept": self.kept}


def init(root: Path, models: Path) -> InitResult:
    """Write what is missing below `root` and in the models' folder; nothing is ever overwritten."""
    package = resources.files("pipelines")
    if models == Path(__file__).parent / "models":  # those of this package are for reading, not for editing
        models = root / "pipelines" / "models"
    result = InitResult()
    for name in ("config.toml", "example.secrets.toml"):
        _write(package / "templates" / name, root / ".dlt" / name, root, result)
    _write(package / "templates" / "gitignore", root / ".gitignore", root, result)
    for model in sorted((package / "models").iterdir(), key=lambda each: each.name):
        if model.name.endswith((".sql", ".py")) and not model.name.startswith("_"):
            _write(model, models / model.name, root, result)
    return result


def _write(sample: Traversable, target: Path, root: Path, result: InitResult) -> None:
    shown = str(target.relative_to(root)) if target.is_relative_to(root) else str(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(sample.read_text(encoding="utf-8"))
    except FileExistsError:
        result.kept.append(shown)
    except OSError as error:
        raise ConfigError(
            f"cannot write {shown} ({error.strerror})", hint="Run it in a folder of your own."
        ) from error
    else:
        result.written.append(shown)
