"""Tests: real HTTP on loopback, real DuckDB files."""
