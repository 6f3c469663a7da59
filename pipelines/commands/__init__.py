"""The commands of `roundtrip`, by what one does with them; `cli` lists them in the order of the help.

Each reads the settings, calls one function of `pipelines` and hands its result to `running.run`; it decides
nothing else. Heavy modules are imported inside the commands, so that `--help` answers at once.
"""
