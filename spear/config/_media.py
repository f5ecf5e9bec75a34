"""`[spear.media]`: where objects are kept, and what may be fetched."""

from __future__ import annotations

import re
from pathlib import Path as FilePath
from typing import Final

from ._model import MediaConfig
from ._positions import Path
from ._report import Report
from ._sections import Table, build, durations, keys_of, only_known, table

_ORIGIN: Final = re.compile(
    r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?)(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII
)


def read_media(report: Report, top: Table, folder: FilePath) -> MediaConfig | None:
    """A relative path is relative to the folder of the configuration."""
    path = ("spear", "media")
    values = only_known(report, table(report, top, ("spear",), "media"), path, keys_of(MediaConfig))
    values = durations(report, values, path, ("expire_s", "fetch_timeout_s", "fetch_idle_s"))
    values = _with_folder(report, values, path, folder)
    _check_origins(report, values, path)
    section = build(report, MediaConfig, values, path)
    if section is not None:
        for low, high in (("max_object_bytes", "max_task_bytes"), ("max_task_bytes", "max_bytes")):
            least, most = getattr(section, low), getattr(section, high)
            if least > most:
                report.add((*path, high), f"is {most}; expected at least {low}, which is {least}")
    return section


def _with_folder(report: Report, values: Table, path: Path, folder: FilePath) -> Table:
    name = values.get("path")
    if not isinstance(name, str):
        return values
    if not name.strip() or "\0" in name:
        report.add((*path, "path"), 'is empty or no path; expected the name of a folder, such as "media"')
        return {key: value for key, value in values.items() if key != "path"}
    found = (folder / name).absolute()
    if not _takes_a_folder(found):
        report.add((*path, "path"), "is no place for a folder; expected one that exists, or a new one in one that does")
    return {**values, "path": str(found)}


def _check_origins(report: Report, values: Table, path: Path) -> None:
    plaintext = values.get("allow_plaintext") is True
    for key in ("allow_origins", "allow_private_origins"):
        found = values.get(key)
        for index, each in enumerate(found if isinstance(found, list) else ()):
            if not isinstance(each, str):
                continue  # the model says so
            if _ORIGIN.fullmatch(each) is None:
                report.add((*path, key, index), 'is no origin; expected scheme and host, as in "https://example.com"')
            elif key == "allow_origins" and not plaintext and each.lower().startswith("http:"):
                message = "plain http:// needs allow_plaintext = true; what is fetched could be changed on the way"
                report.add((*path, key, index), message)


def _takes_a_folder(path: FilePath) -> bool:
    try:
        return path.is_dir() or (path.parent.is_dir() and not path.exists())
    except OSError:  # too long, or not to be entered
        return False
