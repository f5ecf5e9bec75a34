"""Which voices there are, as `espeak-ng --voices` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Voices:
    """`languages` are the codes, and `names` what a voice is called, in small letters, with its code."""

    languages: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)

    def find(self, wanted: str) -> str | None:
        """What to call it by: a language, or a voice's name, with `+` and a variant after it or not. None = there is
        no such voice."""
        voice, plus, variant = wanted.strip().partition("+")
        key = voice.lower()
        base = key if key in self.languages else self.names.get(key)
        if base is None:
            return None
        if not plus:
            return base
        found = self.variants.get(variant.lower())
        return None if found is None else f"{base}+{found}"


def read_voices(listed: str, variants: str) -> Voices:
    """From the two tables. Voices of MBROLA are left out: they need files that espeak-ng does not bring."""
    languages: set[str] = set()
    names: dict[str, str] = {}
    for columns in _rows(listed):
        if columns[4].startswith("mb/"):
            continue
        languages.add(columns[1].lower())
        names.setdefault(columns[3].lower(), columns[1].lower())
    found = {file.lower(): file for file in (columns[4].rpartition("/")[2] for columns in _rows(variants))}
    return Voices(frozenset(languages), names, found)


def _rows(table: str) -> list[list[str]]:
    """Pty Language Age/Gender VoiceName File …"""
    rows = [line.split() for line in table.splitlines()[1:]]
    return [columns for columns in rows if len(columns) >= 5]
