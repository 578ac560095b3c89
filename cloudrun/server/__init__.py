"""The embedded SSH server: one process is one `local` machine, on a loopback address of its own.

`python -m cloudrun.server --machine DIR` serves the folder DIR, `--release DIR` ends it from inside.
"""
