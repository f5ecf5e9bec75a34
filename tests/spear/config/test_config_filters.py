"""`[[spear.filters]]`: what is read, and what is said of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from spear.config import FilterConfig, FilterContent, load_config
from spear.ir import ConfigError, Hosting
from spear.secrets import Secret

BACKEND = "[[spear.backends]]\nname = 's'\nkind = 'stub'\nhosting = 'local'\n"
FILTER = "[[spear.filters]]\nname = 'f'\n"
ROUTE = "[[spear.routes]]\nfilter = 'f'\n"


def load(tmp_path: Path, text: str):
    file = tmp_path / "spear.toml"
    file.write_text(BACKEND + text)
    return load_config(file)


def test_all_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv("FILTER_KEY", "value")
    config = load(
        tmp_path,
        ROUTE + FILTER + "kind = 'http'\nurl = 'http://127.0.0.1:9/x'\nhosting = 'local'\ncredential = 'k'\n"
        "timeout = '20ms'\non_error = 'closed'\ncontent = { max_bytes = 9 }\nmax_reweight = 2\nmax_inflight = 3\n"
        "allow_plaintext = true\n[[spear.credentials]]\nname = 'k'\nenv = 'FILTER_KEY'\n",
    )
    (found,) = config.filters
    assert found.origin.line == 7
    assert found.model_copy(update={"origin": FilterConfig(name="f", kind="http").origin}) == FilterConfig(
        name="f", kind="http", url=Secret("http://127.0.0.1:9/x"), hosting=Hosting.LOCAL, credential="k", timeout=0.02,
        on_error="closed", content=FilterContent(max_bytes=9), max_reweight=2.0, max_inflight=3, allow_plaintext=True,
    )  # fmt: skip
    assert config.routes[0].filter == "f"
    assert config.credentials[0].value == Secret("value")
    assert Secret("http://127.0.0.1:9/x") in config.secrets
    assert "127.0.0.1" not in repr(config)
    assert config.warnings == ()


def test_a_path_is_relative_to_the_file(tmp_path):
    config = load(tmp_path, ROUTE + FILTER + "kind = 'wasm'\npath = 'x.wasm'\ncontent = false\n")
    assert config.filters[0].path == str(tmp_path / "x.wasm")
    assert config.filters[0].content is None


def test_a_filter_that_nobody_uses_is_a_warning(tmp_path):
    (warning,) = load(tmp_path, FILTER + "kind = 'python'\n").warnings
    assert warning.endswith(":5: spear.filters[0]: has no effect: no route names this filter")


PYTHON = FILTER + "kind = 'python'\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ROUTE, "6 spear.routes[0].filter: is not among [[spear.filters]]; there is none"),
        (
            ROUTE + PYTHON.replace("'f'", "'g'"),
            "6 spear.routes[0].filter: is not among [[spear.filters]]; there are: g",
        ),
        ("[spear.filter]\n", '5 spear.filter: is not a known key; did you mean "filters"?'),
        (FILTER, "spear.filters[0].kind: is missing"),
        (FILTER + "kind = 'grpc'", "7 spear.filters[0].kind: is none of the known names; expected 'http', 'wasm' or"),
        (FILTER + "kind = 'http'", "5 spear.filters[0]: has no `url`, which a filter of kind http needs"),
        (FILTER + "kind = 'wasm'", "5 spear.filters[0]: has no `path`, which a filter of kind wasm needs"),
        (FILTER + "kind = 'wasm'\npath = ''", "8 spear.filters[0].path: is empty"),
        (FILTER + "kind = 'wasm'\npath = 3", "8 spear.filters[0].path: is 3; expected a string"),
        (FILTER + "kind = 'http'\nurl = 'nowhere'", "8 spear.filters[0].url: is a string without a scheme"),
        (PYTHON + "url = 'https://x'", "8 spear.filters[0].url: has no meaning for a filter of kind python"),
        (PYTHON + "path = 'x'", "8 spear.filters[0].path: has no meaning for a filter of kind python"),
        (PYTHON + "hosting = 'local'", "8 spear.filters[0].hosting: has no meaning for a filter of kind python"),
        (PYTHON + "timeout = 0", "8 spear.filters[0].timeout: is 0; expected more than 0"),
        (PYTHON + "timeout = '2m'", "8 spear.filters[0].timeout: is 120; expected at most 60"),
        (PYTHON + "on_error = 'ask'", "8 spear.filters[0].on_error: is none of the known names; expected 'open' or"),
        (
            PYTHON + "content = true",
            "8 spear.filters[0].content: is a boolean; expected false or a table: {max_bytes = 4096}",
        ),
        (PYTHON + "content = { bytes = 3 }", "spear.filters[0].content.bytes: is not a known key"),
        (PYTHON + "content = { max_bytes = 0 }", "spear.filters[0].content.max_bytes: is 0; expected at least 1"),
        (PYTHON + "max_reweight = 0.5", "8 spear.filters[0].max_reweight: is 0.5; expected at least 1"),
        (PYTHON + "max_inflight = 0", "8 spear.filters[0].max_inflight: is 0; expected at least 1"),
        (PYTHON + "token = 'x'", "a key itself never stands in a configuration"),
        (PYTHON + PYTHON, "9 spear.filters[1].name: is the name of spear.filters[0] already"),
        (PYTHON.replace("'f'", "' f'"), "6 spear.filters[0].name: has blanks around it"),
        (
            FILTER + "kind = 'http'\nurl = 'https://x'\ncredential = 'k'",
            "9 spear.filters[0].credential: is not among [[spear.credentials]]; there is none",
        ),
    ],
)
def test_what_is_wrong_is_said_with_line_and_key(tmp_path, text, expected):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    found = [f"{each.line} {each.key}: {each.message}" for each in caught.value.problems]
    assert any(expected in line for line in found), found
