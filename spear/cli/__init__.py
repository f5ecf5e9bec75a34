"""The `spear` command.

    _early      the entry of the process; signals while a command has nothing to clean up
    _main       the group; its help and exit codes
    _signals    the first Ctrl-C drains, the second cancels; exit codes
    _output     what people see: tables, the progress line, errors
    _run        spear run
    _chat       spear chat
    _asking     what the four commands below share
    _embed      spear embed
    _image      spear image
    _say        spear say
    _transcribe spear transcribe
    _inspect    spear backends, capabilities, explain, schema
    _config     spear config check, init
    _guest      spear guest build
    _demo       spear demo

A command's module is imported when that command runs, so that `spear --help` is quick.
"""

from ._early import main as main
