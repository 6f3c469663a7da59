"""What is done with CRM data: the command line, pull, enrich and push, which meet in one DuckDB file."""

__version__ = "0.1.0"
