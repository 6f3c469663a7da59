"""Runs the command line as `python -m pipelines`."""

from pipelines.cli import run

run()
