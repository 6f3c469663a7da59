"""Runs of the command line that start at once: a process with everything imported forks one each time.

What is killed in the tests is such a run, by a real SIGKILL, while the sandbox goes on in the test's process.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.conftest import REPOSITORY, clean_environ


class Run:
    """One run that has begun; `pid` may be killed."""

    def __init__(self, host: "subprocess.Popen[str]", folder: Path) -> None:
        self._host = host
        self._folder = folder
        self.pid = int(_line(host))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; until `end` is called the number stays the run's own, also when it is over."""
        os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for the end and give the exit code, negative for a signal."""
        _tell(self._host, "wait")
        return os.waitstatus_to_exitcode(int(_line(self._host)))

    @property
    def out(self) -> str:
        """Give what the run wrote to standard output."""
        return (self._folder / "run.out").read_text()

    @property
    def err(self) -> str:
        """Give what the run wrote to standard error."""
        return (self._folder / "run.err").read_text()

    def json(self) -> dict[str, Any]:
        """Give the one JSON object of a run with `--json`."""
        found: dict[str, Any] = json.loads(self.out)
        return found


class WarmRuns:
    """The process that forks runs; one run at a time."""

    def __enter__(self) -> Self:
        self._host = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            cwd=REPOSITORY,
            env=clean_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        self._host.stdin.close()
        self._host.wait(30)
        self._host.stdout.close()

    def start(
        self,
        folder: Path,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        *,
        max_file: int = 0,
        main: str = "pipelines.cli",
    ) -> Run:
        """Begin `roundtrip ARGUMENTS` in a folder; `max_file` bytes is as large as its files may get.

        `main` is the module whose function of that name takes the arguments.
        """
        order = {
            "main": main,
            "folder": str(folder),
            "arguments": list(arguments),
            "environ": dict(environ),
            "max_file": max_file,
        }
        _tell(self._host, json.dumps(order))
        return Run(self._host, folder)


def _line(host: "subprocess.Popen[str]") -> str:
    assert host.stdout is not None
    return host.stdout.readline()


def _tell(host: "subprocess.Popen[str]", line: str) -> None:
    assert host.stdin is not None
    host.stdin.write(line + "\n")
    host.stdin.flush()


def _serve() -> None:
    import dlt  # noqa: F401  (imported here so that no run has to)
    import pyarrow.parquet  # noqa: F401

    import pipelines.cli
    import pipelines.pull
    import pipelines.push  # noqa: F401
    import sources

    for name in sources.names():
        sources.load(name)
    pid = 0
    for line in sys.stdin:
        if line.strip() == "wait":
            _say(os.waitpid(pid, 0)[1])
            continue
        pid = os.fork()
        if pid == 0:
            _run(json.loads(line))
        _say(pid)


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _run(order: dict[str, Any]) -> None:
    code = 70
    try:
        os.chdir(order["folder"])
        for descriptor, name in enumerate((os.devnull, "run.out", "run.err")):
            flags = os.O_RDWR if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags, 0o600), descriptor)
        os.environ.update(order["environ"])
        if order["max_file"]:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (order["max_file"],) * 2)
        code = import_module(order["main"]).main(order["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve()
