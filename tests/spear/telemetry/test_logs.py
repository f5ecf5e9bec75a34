"""Logs: their form, their level, what is cut out of them, and that nobody else's logging is touched."""

from __future__ import annotations

import io
import logging
import threading

import orjson
import pytest
import structlog

from spear.secrets import MASK, Secret
from spear.telemetry import LogOutput, configure_logging, get_logger, redacting


@pytest.fixture
def restored():
    yield
    configure_logging()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines() -> None:
    stream = io.StringIO()
    log = LogOutput("info", "json", stream).get_logger("spear.router").bind(actor="router")
    log.debug("not this one")
    log.info("chosen", backend="gpt", tried=("a", "b"), seconds=0.5, error=ValueError("no"))
    (line,) = lines(stream)
    assert line.pop("timestamp")
    assert line == {
        "event": "chosen",
        "level": "info",
        "logger": "spear.router",
        "actor": "router",
        "backend": "gpt",
        "tried": ["a", "b"],
        "seconds": 0.5,
        "error": "ValueError('no')",
    }


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warning", "error", "critical"]),
        ("warning", ["warning", "error", "critical"]),
        ("error", ["error", "critical"]),
    ],
)
def test_levels(level: str, seen: list[str]) -> None:
    stream = io.StringIO()
    log = LogOutput(level, "json", stream).get_logger("x")  # type: ignore[arg-type]
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(log, name)("e")
    assert [line["level"] for line in lines(stream)] == seen


@pytest.mark.parametrize("format_", ["json", "console"])
def test_secrets_are_cut_out(format_: str) -> None:
    stream = io.StringIO()
    output = LogOutput("info", format_, stream)  # type: ignore[arg-type]
    log = output.get_logger("x")
    with output.redacting([Secret("hunter2!")]):
        try:
            raise ConnectionError("to https://me:pw-canary@h/ with Bearer canary1")
        except ConnectionError:
            log.exception("hunter2! failed", api_key="canary2", nested={"token": ["canary3"]}, text="hunter2!")
    text = stream.getvalue()
    assert "ConnectionError" in text
    assert text.count(MASK) == 8  # two of them twice: in the traceback's line of source, too
    assert "canary" not in text
    assert "hunter" not in text


def test_the_locals_of_a_traceback_do_not_show() -> None:
    stream = io.StringIO()
    log = LogOutput("info", "console", stream).get_logger("x")
    ordinary_word = "canary"
    try:
        raise ValueError(len(ordinary_word))
    except ValueError:
        log.exception("failed")
    assert "ValueError: 6" in stream.getvalue()
    assert stream.getvalue().count("canary") == 0


def test_secrets_are_known_only_while_needed_and_may_overlap() -> None:
    stream = io.StringIO()
    output = LogOutput("info", "json", stream)
    log = output.get_logger("x")
    one, two = output.redacting([Secret("alpha"), Secret("shared")]), output.redacting([Secret("shared")])
    one.__enter__()
    two.__enter__()
    log.info("alpha shared")
    one.__exit__(None, None, None)
    log.info("alpha shared")
    two.__exit__(None, None, None)
    log.info("alpha shared")
    assert [line["event"] for line in lines(stream)] == [f"{MASK} {MASK}", f"alpha {MASK}", "alpha shared"]


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_guest_cannot_steer_the_terminal_or_forge_a_line(format_: str) -> None:
    stream = io.StringIO()
    log = LogOutput("info", format_, stream).get_logger("x")  # type: ignore[arg-type]
    log.info("guest", text="\x1b[2Jhello\r\nlevel=error \x07\udcff")
    text = stream.getvalue()
    assert "hello" in text
    assert not set(text) & {"\x1b", "\r", "\x07", "\udcff"}
    assert len(text.splitlines()) == 1


def test_the_process_wide_output_and_its_default(capsys: pytest.CaptureFixture[str], restored: None) -> None:
    log = get_logger("spear.test")
    log.info("quiet")
    with redacting([Secret("hunter2!")]):
        log.warning("hunter2!")
    configure_logging("info", "json")
    log.info("loud")
    out, err = capsys.readouterr()
    assert out == ""
    assert "quiet" not in err
    assert MASK in err
    assert orjson.loads(err.splitlines()[-1])["event"] == "loud"


def test_nothing_global_is_touched(restored: None) -> None:
    before = (logging.root.handlers[:], logging.root.level, structlog.is_configured())
    configure_logging("debug", "json", io.StringIO())
    get_logger("x").info("e")
    assert (logging.root.handlers[:], logging.root.level, structlog.is_configured()) == before
    stream = io.StringIO()
    theirs = structlog.wrap_logger(structlog.PrintLogger(stream), processors=[structlog.processors.KeyValueRenderer()])
    theirs.info("theirs", password="theirs too")
    assert "theirs too" in stream.getvalue()


def test_a_stream_that_fails_does_not_end_the_program() -> None:
    stream = io.StringIO()
    output = LogOutput("info", "json", stream)
    stream.close()
    output.get_logger("x").info("e")
    assert output.lost == 1


def test_lines_of_threads_do_not_mix() -> None:
    stream = io.StringIO()
    log = LogOutput("info", "json", stream).get_logger("x")
    threads = [threading.Thread(target=lambda: [log.info("e" * 200) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [len(str(line["event"])) for line in lines(stream)] == [200] * 200


@pytest.mark.parametrize(("level", "format_"), [("loud", "json"), ("info", "xml")])
def test_what_it_does_not_know(level: str, format_: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        LogOutput(level, format_)  # type: ignore[arg-type]
