"""Guests in C: the header for the ABI, samples with their modules, and the way to build one's own.

_build.py    finds a compiler for wasm32-wasi, turns FILE.c into FILE.wasm
rebuild.py   `python -m spear.guests.rebuild [--check] [DIRECTORY]`: the committed modules and their record BUILD.json
spear.h      the ABI 1.0 for C99
*.c, *.wasm  hello, chat, chat_tool, epoll_loop; local_filter, a routing filter; hello.wat, made without a compiler
"""

from __future__ import annotations

from ._build import Compiler as Compiler
from ._build import build as build
from ._build import find_compiler as find_compiler
from ._build import find_compilers as find_compilers
from ._samples import include_dir as include_dir
from ._samples import names as names
from ._samples import path as path

__all__ = ["Compiler", "build", "find_compiler", "find_compilers", "include_dir", "names", "path"]
