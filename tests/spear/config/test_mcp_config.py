"""`[spear.mcp]` and the folder of servers: what is read, what is wrong with it and where."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spear._watch import watched
from spear.config import MAX_MCP_SERVERS, load_config
from spear.ir import ConfigError

STUB = '[[spear.backends]]\nname = "b"\nkind = "stub"\nhosting = "local"\n'
FS = 'server_id = "fs"\ntransport = "stdio"\nallowed_tools = ["*"]\n[stdio]\ncommand = "server"\n'


def write(folder: Path, text: str = '[spear.mcp]\npath = "mcp.d"\n', **files: str) -> Path:
    (folder / "mcp.d").mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / "mcp.d" / name.replace("_", ".")).write_text(content, encoding="utf-8")
    path = folder / "spear.toml"
    path.write_text(STUB + text, encoding="utf-8")
    return path


def problems(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as failed:
        load_config(path, environ=environ or {})
    return [str(problem).replace(f"{path.parent}/", "") for problem in failed.value.problems]


def test_a_folder_with_both_formats(tmp_path):
    other = {
        "server_id": "git",
        "display_name": None,
        "transport": "streamable_http",
        "stdio": None,
        "http": {"url": "https://mcp.example/mcp", "headers": {"X-Key": "${ENV:K}"}, "auth_ref": None},
        "tool_namespace": "git",
        "allowed_tools": ["read_*"],
        "approval_policy": {"default_policy": "never", "per_tool": {"x": "always"}},
        "budgets": {"tool_timeout_ms": 1000, "max_concurrency": 2, "max_tool_output_bytes": 10},
    }
    path = write(tmp_path, a_toml=FS, b_json=json.dumps(other))
    (tmp_path / "mcp.d" / "README").write_text("not a server", encoding="utf-8")
    section = load_config(path, environ={"K": "a-long-secret", "PATH": "/bin", "OTHER": "x"}).mcp
    assert [each.server_id for each in section.servers] == ["fs", "git"]
    fs, git = section.servers
    assert fs.stdio is not None
    assert {name: value.reveal() for name, value in fs.stdio.env.items()} == {"PATH": "/bin"}
    assert git.http is not None
    assert git.http.headers["X-Key"].reveal() == "a-long-secret"
    assert {each.reveal() for each in git.secrets} == {"a-long-secret", "https://mcp.example/mcp"}
    assert git.budgets.max_concurrency == 2
    assert [Path(each).name for each in section.sources] == ["mcp.d", "a.toml", "b.json"]


def test_paths_are_relative_to_the_file_that_names_them(tmp_path):
    text = 'server_id = "x"\ntransport = "stdio"\n[stdio]\ncommand = "./bin/server"\ncwd = "work"\n'
    [server] = load_config(write(tmp_path, a_toml=text), environ={}).mcp.servers
    assert server.stdio is not None
    assert server.stdio.command == str(tmp_path / "mcp.d" / "bin" / "server")
    assert server.stdio.cwd == str(tmp_path / "mcp.d" / "work")


def test_every_file_that_is_wrong_is_named(tmp_path):
    path = write(
        tmp_path,
        a_toml=FS + "arg = 1\n",
        b_toml='server_id = "x"\n',
        c_json="{",
        d_json="[]",
        e_toml="= 1",
        f_toml='server_id = "y"\ntransport = "stdio"\n',
        g_toml='server_id = "a/b"\ntransport = "stdio"\n[stdio]\ncommand = "x"\n[http]\nurl = "https://h/"\n',
        h_toml=FS.replace('"fs"', '"z"').replace('"*"', "1"),
    )
    found = problems(path)
    assert 'mcp.d/a.toml:6: stdio.arg: is not a known key; did you mean "args"?' in found
    assert "mcp.d/b.toml: transport: is missing" in found
    assert any(each.startswith("mcp.d/c.json: is not JSON") for each in found)
    assert "mcp.d/d.json: is a list; expected a table" in found
    assert any(each.startswith("mcp.d/e.toml:1: is not TOML") for each in found)
    assert "mcp.d/f.toml: has no table `stdio`, which the transport stdio needs" in found
    assert "mcp.d/g.toml:1: server_id: has blanks, slashes or unprintable characters; expected a plain name" in found
    assert "mcp.d/g.toml:5: http: has no meaning with the transport stdio" in found
    assert "mcp.d/h.toml:3: allowed_tools[0]: is 1; expected a string" in found


WRONG = [
    ('path = "nowhere"', "spear.mcp.path: cannot be read as a folder: No such file or directory"),
    ("path = 5", "spear.mcp.path: is 5; expected a string"),
    ('start = "now"', "spear.mcp.start: is none of the known names"),
    ("folder = 1", "spear.mcp.folder: is not a known key"),
    ("servers = 3", "spear.mcp.servers: is 3; expected a list of tables"),
    (
        'servers = [{server_id = "h", transport = "streamable_http", http = {url = "https://h/", auth_ref = "k"}}]',
        "auth_ref of h is not among [[spear.credentials]]; there is none",
    ),
    (
        'servers = [{server_id = "h", transport = "streamable_http", http = {url = "nix"}}]',
        "http.url: is a string without a scheme",
    ),
    (
        'servers = [{server_id = "h", transport = "streamable_http", http = {url = "https://h", headers = {te = ""}}}]',
        "http.headers.te: is set by the host",
    ),
    (
        'servers = [{server_id = "s", transport = "stdio", stdio = {command = "x", env = {"A=B" = "x"}}}]',
        'stdio.env."A=B": is no usable variable',
    ),
    (
        'servers = [{server_id = "s", transport = "stdio", stdio = {command = "x"}, budgets = {max_concurrency = 0}}]',
        "budgets.max_concurrency: is 0; expected at least 1",
    ),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_what_is_wrong(tmp_path, line, message):
    found = problems(write(tmp_path, f"[spear.mcp]\n{line}\n"))
    assert any(message in each for each in found), found
    assert all(each.startswith("spear.toml:") for each in found)


def test_two_servers_with_one_id(tmp_path):
    [problem] = problems(write(tmp_path, a_toml=FS, b_toml=FS))
    assert "two servers have the server_id fs: mcp.d/a.toml and mcp.d/b.toml" in problem
    server = {"server_id": "x", "transport": "stdio", "stdio": {"command": "x"}}
    with pytest.raises(ConfigError, match="two servers have the server_id x"):
        load_config({"spear": {"mcp": {"servers": [server, server]}}})


def test_too_many(tmp_path):
    files = {f"s{n}_toml": FS.replace('"fs"', f'"fs{n}"') for n in range(MAX_MCP_SERVERS + 1)}
    [problem] = problems(write(tmp_path, **files))
    assert "expected at most 64" in problem


def test_a_server_without_allowed_tools_is_warned_of(tmp_path):
    [warning] = load_config(write(tmp_path, a_toml=FS.replace('allowed_tools = ["*"]', "")), environ={}).warnings
    assert "fs has no allowed_tools: none of its tools can be used" in warning


def test_the_folder_and_its_files_are_watched(tmp_path):
    path = write(tmp_path, a_toml=FS)
    seen = watched(path, load_config(path, environ={}))
    assert {tmp_path / "mcp.d", tmp_path / "mcp.d" / "a.toml"} <= set(seen)


def test_variables(tmp_path):
    text = FS + 'env = { A = "${ENV:ONE}-${ENV:TWO:-2}", B = "${ENV:THREE}", C = "${ENV:ONE", D = "${env:ONE}" }\n'
    [server] = load_config(write(tmp_path, a_toml=text), environ={"ONE": "1", "TWO": ""}).mcp.servers
    assert server.missing == ("THREE",)
    assert server.stdio is not None
    found = {name: value.reveal() for name, value in server.stdio.env.items()}
    assert found == {"A": "1-2", "B": "", "C": "${ENV:ONE", "D": "${env:ONE}"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["stdio", "http", "https://h/"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["command", "args", "env", "url", "headers", "A", "budgets", "max_concurrency"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
KEYS = ["server_id", "transport", "stdio", "http", "allowed_tools", "budgets", "approval_policy", "zzz"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6), st.booleans())
def test_any_registry_file_is_read_or_refused(tmp_path, value, good):
    if good:
        value |= {"server_id": "s", "transport": "stdio"}
    path = write(tmp_path, a_json=json.dumps(value))
    with suppress(ConfigError):
        assert load_config(path, environ={}).mcp.servers


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.sampled_from(["a.toml", "a.json"]))
def test_any_bytes_are_read_or_refused(tmp_path, data, name):
    path = write(tmp_path)
    for each in (tmp_path / "mcp.d").iterdir():
        each.unlink()
    (tmp_path / "mcp.d" / name).write_bytes(data)
    with pytest.raises(ConfigError):
        load_config(path, environ={})
