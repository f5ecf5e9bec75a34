"""`[spear.media]`: where objects are kept, and what may be fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Final

from spear.secrets import Secret

from ._credentials import UnusableCredential, from_environment, is_variable_name
from ._model import MediaConfig, S3Config
from ._positions import Path
from ._read import describe
from ._report import Report
from ._sections import Table, build, durations, keys_of, only_known, table
from ._urls import checked_url

_ORIGIN: Final = re.compile(
    r"https?://(\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_.])?)(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII
)


def read_media(report: Report, top: Table, folder: FilePath, environ: Mapping[str, str]) -> MediaConfig | None:
    """A relative path is relative to the folder of the configuration."""
    path = ("spear", "media")
    values = only_known(report, table(report, top, ("spear",), "media"), path, keys_of(MediaConfig))
    values = durations(report, values, path, ("expire_s", "fetch_timeout_s", "fetch_idle_s"))
    values = _with_folder(report, values, path, folder)
    s3 = _s3(report, values.pop("s3"), (*path, "s3"), environ) if "s3" in values else None
    if s3 is not None and "path" not in values:
        report.add((*path, "s3"), "needs media.path: objects are kept there first, and copied")
    _check_origins(report, values, path)
    section = build(report, MediaConfig, values, path)
    if section is not None:
        for low, high in (("max_object_bytes", "max_task_bytes"), ("max_task_bytes", "max_bytes")):
            least, most = getattr(section, low), getattr(section, high)
            if least > most:
                report.add((*path, high), f"is {most}; expected at least {low}, which is {least}")
    return section and section.model_copy(update={"s3": s3})


def _s3(report: Report, values: object, path: Path, environ: Mapping[str, str]) -> S3Config | None:
    """Keys come from variables that are named; without any, from where the S3 client looks by itself."""
    if not isinstance(values, dict):
        report.add(path, f"is {describe(values)}; expected a table: [spear.media.s3]")
        return None
    known = (keys_of(S3Config) - {"access_key", "secret_key"}) | {"access_key_env", "secret_key_env"}
    kept = durations(report, only_known(report, values, path, known), path, ("timeout_s",))
    secrets: dict[str, Secret | None] = {}
    if "endpoint_url" in kept:
        secrets["endpoint_url"] = checked_url(report, kept.pop("endpoint_url"), (*path, "endpoint_url"))
    if ("access_key_env" in kept) != ("secret_key_env" in kept):
        report.add(path, "has one of `access_key_env` and `secret_key_env`; expected both or none")
    for key in ("access_key", "secret_key"):
        if f"{key}_env" in kept:
            secrets[key] = _variable(report, kept.pop(f"{key}_env"), (*path, f"{key}_env"), environ)
    made = build(report, S3Config, kept, path)
    return made and made.model_copy(update=secrets)


def _variable(report: Report, name: object, path: Path, environ: Mapping[str, str]) -> Secret | None:
    if not isinstance(name, str) or not is_variable_name(name):
        report.add(path, "is not the name of an environment variable (letters, digits, _)")
        return None
    try:
        value = from_environment(name, environ)
    except UnusableCredential as error:
        report.add(path, str(error))
        return None
    if value is None:
        report.add(path, "the variable is missing or empty")
    return value


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
