"""Which markup may pass. espeak-ng's own parser is lenient and can open files (`<audio src>`), so it gets only what was
parsed strictly here and written anew."""

from __future__ import annotations

import re
from typing import Final
from xml.etree import ElementTree

_ALLOWED: Final = {
    "speak": ("{http://www.w3.org/XML/1998/namespace}lang",),
    "p": (),
    "s": (),
    "break": ("time", "strength"),
    "emphasis": ("level",),
    "prosody": ("rate", "pitch", "volume", "range"),
    "say-as": ("interpret-as", "format", "detail"),
    "sub": ("alias",),
    "mark": ("name",),
}
_VALUE: Final = re.compile(r"[A-Za-z0-9 .,%+\-]{0,64}")
_DEPTH: Final = 32


class BadSsml(ValueError):
    """The message says what is wrong, and what would be right."""


def clean_ssml(text: str) -> str:
    """The same markup, `<speak>` around it, with nothing in it that is not known to be harmless. Raises `BadSsml`."""
    if "<!" in text or "<?" in text:
        raise BadSsml("has declarations; only elements are taken")
    whole = text if text.lstrip().startswith("<speak") else f"<speak>{text}</speak>"
    try:
        tree = ElementTree.fromstring(whole)  # without declarations there are no entities to expand
    except (ElementTree.ParseError, ValueError) as error:
        raise BadSsml(f"is no well-formed markup ({error})") from None
    _check(tree, 0)
    return ElementTree.tostring(tree, encoding="unicode")


def _check(element: ElementTree.Element, depth: int) -> None:
    if depth > _DEPTH:
        raise BadSsml(f"is nested more than {_DEPTH} deep")
    name = element.tag = element.tag.removeprefix("{http://www.w3.org/2001/10/synthesis}")
    if name not in _ALLOWED:
        raise BadSsml(f"has <{name[:40]}>; known are {', '.join(sorted(_ALLOWED))}")
    for key in list(element.attrib):
        if key not in _ALLOWED[name]:
            del element.attrib[key]
        elif not _VALUE.fullmatch(element.attrib[key]):
            raise BadSsml(f"has a value of {key[-40:]} in <{name}> that is none")
    for inner in element:
        _check(inner, depth + 1)
