"""spear replay and spear config diff, as people use them."""

from __future__ import annotations

import json

import pytest
import trio

import spear as library
from tests.spear.cli.command import spear, toml
from tests.system.kit import chat, config, stub

CONFIG = config(
    stub("a", weight=5), stub("b", weight=1), stub("c", weight=1), default_policy="weighted_random",
    decisions={"sample": 1.0, "path": "x"},
)  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    CONFIG["spear"]["decisions"]["path"] = str(folder / "d.jsonl")

    async def main():
        async with library.open_runtime(CONFIG, seed=3) as runtime:
            for _ in range(70):
                await runtime.invoke(chat(model=""))

    trio.run(main)
    return (folder / "d.jsonl").read_text()


@pytest.fixture
def folder(tmp_path, log):
    (tmp_path / "d.jsonl").write_text(log)
    return tmp_path


def changed(log, number, change):
    lines = log.splitlines()
    record = json.loads(lines[number])
    change(record)
    lines[number] = json.dumps(record)
    return "\n".join(lines) + "\n"


def test_reproduced(folder):
    done = spear("replay", "d.jsonl", cwd=folder)
    assert (done.code, done.out, done.err) == (0, "70 decisions reproduced\n", "")
    assert spear("replay", "d.jsonl", "--json", cwd=folder).json["different"] == 0


def test_a_difference_is_listed(folder, log):
    (folder / "d.jsonl").write_text(changed(log, 5, lambda record: record["plan"].update(chosen="z", note="\x1b[31m")))
    done = spear("replay", "d.jsonl", cwd=folder)
    assert done.code == 1
    assert done.out.startswith("69 decisions reproduced\n1 decision came out differently:\n")
    assert "d.jsonl:6" in done.out
    assert "chosen, note" in done.out
    assert "\x1b" not in done.out
    (difference,) = spear("replay", "d.jsonl", "--json", cwd=folder).json["differences"]
    assert (difference["place"], difference["fields"]) == ("d.jsonl:6", ["chosen", "note"])


def test_another_policy(folder):
    done = spear("replay", "d.jsonl", "--policy", "weighted_round_robin", cwd=folder)
    assert done.code == 0
    assert "a       " in done.out
    found = spear("replay", "d.jsonl", "--policy", "weighted_round_robin", "--json", cwd=folder).json
    assert {name: each["now"] for name, each in found["chosen"].items()} == {"a": 50, "b": 10, "c": 10}
    assert sum(each["then"] for each in found["chosen"].values()) == 70


def test_another_configuration(folder):
    text = toml(
        '[spear]\ndefault_policy = "round_robin"',
        '[[spear.backends]]\nname = "b"\nkind = "stub"\nhosting = "local"',
        '[[spear.backends]]\nname = "new"\nkind = "stub"\nhosting = "local"',
        '[[spear.backends]]\nname = "off"\nkind = "stub"\nhosting = "local"\nweight = 0',
    )
    (folder / "other.toml").write_text(text)
    done = spear("replay", "d.jsonl", "-c", "other.toml", cwd=folder)
    assert done.code == 0
    assert "not in the records, taken to be idle and well: new, off" in done.out
    assert "drained" in done.out
    found = spear("replay", "d.jsonl", "-c", "other.toml", "--policy", "cheapest", "--json", cwd=folder).json
    assert sum(each["now"] for name, each in found["chosen"].items() if name in ("b", "new")) == 70
    (folder / "other.toml").write_text("[spear]\nnope = 1\n")
    done = spear("replay", "d.jsonl", "-c", "other.toml", cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert "other.toml:2: spear.nope" in done.err


def test_broken_lines_are_named_and_passed_over(folder, log):
    lines = log.splitlines()
    lines[3], lines[9] = '{"v": 7}', lines[9][:100]
    (folder / "d.jsonl").write_text("\n".join(lines)[:-50])
    done = spear("replay", "d.jsonl", cwd=folder)
    assert (done.code, done.out) == (0, "67 decisions reproduced\n")
    named = done.err.splitlines()
    assert [line.split(": ")[1] for line in named] == ["d.jsonl:4", "d.jsonl:10", "d.jsonl:71"]
    assert "version 7" in named[0]
    assert "unfinished" in named[2]
    assert spear("replay", "d.jsonl", "--json", cwd=folder).json["unreadable"] == 3


def test_many_broken_lines_do_not_fill_the_screen(folder):
    (folder / "d.jsonl").write_text("x\n" * 1000)
    done = spear("replay", "d.jsonl", cwd=folder)
    assert done.code == 1
    assert len(done.err.splitlines()) == 21
    assert "980 more" in done.err


def test_without_its_generation_nothing_is_replayed(folder, log):
    (folder / "d.jsonl").write_text("\n".join(log.splitlines()[1:]))
    done = spear("replay", "d.jsonl", cwd=folder)
    assert (done.code, done.out) == (1, "0 decisions reproduced\n")
    assert "generation 1 of run" in done.err


def test_a_record_without_inputs_is_counted(folder, log):
    (folder / "d.jsonl").write_text(changed(log, 5, lambda record: record.update(inputs=None)))
    done = spear("replay", "d.jsonl", cwd=folder)
    assert (done.code, done.out) == (0, "69 decisions reproduced, 1 recorded without what they read\n")


def test_rotated_files_are_read_in_order(folder, log):
    lines = log.splitlines(keepends=True)
    (folder / "d.jsonl.1").write_text("".join(lines[:40]))
    (folder / "d.jsonl").write_text("".join([lines[0], *lines[40:]]))
    whole = spear("replay", "d.jsonl", "d.jsonl.1", "--policy", "round_robin", "--json", cwd=folder).json
    (folder / "d.jsonl").write_text(log)
    once = spear("replay", "d.jsonl", "--policy", "round_robin", "--json", cwd=folder).json
    assert {**once, "differences": 0} == {**whole, "differences": 0}
    assert [each["now"] for each in once["differences"]] == [each["now"] for each in whole["differences"]]


@pytest.mark.parametrize("name", ["gone", "."])
def test_a_file_that_cannot_be_read(folder, name):
    done = spear("replay", name, cwd=folder)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("spear: ")


def test_a_policy_there_is_not(folder):
    assert spear("replay", "d.jsonl", "--policy", "best", cwd=folder).code == 2


# --- spear config diff ----------------------------------------------------------------------------------------------

OLD = """
[[spear.credentials]]
name = "k"
env = "SOME_KEY"
[[spear.backends]]
name = "same"
kind = "stub"
hosting = "local"
[[spear.backends]]
name = "lighter"
kind = "stub"
hosting = "local"
weight = 50
[[spear.backends]]
name = "moved"
kind = "openai_chat"
hosting = "local"
base_url = "http://127.0.0.1:1/canary-one"
credentials = ["k"]
[[spear.backends]]
name = "gone"
kind = "stub"
hosting = "local"
"""


def test_what_a_reload_would_do(tmp_path):
    new = (
        OLD.replace("weight = 50", "weight = 20\npriority = 1")
        .replace("canary-one", "canary-two")
        .replace('name = "gone"', 'name = "fresh"')
    )
    (tmp_path / "old.toml").write_text(OLD)
    (tmp_path / "new.toml").write_text(new + "\n[spear.router]\nmax_requests = 5\n[spear.retries]\nbackoff_s = 1\n")
    keys = {"SOME_KEY": "canary-key"}
    done = spear("config", "diff", "old.toml", "new.toml", "--json", cwd=tmp_path, **keys)
    assert done.json["backends"] == [
        {"name": "same", "action": "keep", "because": ""},
        {"name": "lighter", "action": "adjust", "because": "weight 50 → 20, priority 0 → 1"},
        {"name": "moved", "action": "replace", "because": "base_url"},
        {"name": "fresh", "action": "start", "because": "new"},
        {"name": "gone", "action": "drain", "because": "not in the new file"},
    ]
    assert done.json["settings"] == ["router", "retries"]
    assert len(done.json["not_applied"]) == 1
    shown = spear("config", "diff", "old.toml", "new.toml", cwd=tmp_path, **keys)
    assert shown.code == 0
    assert "not applied by a reload: router.max_requests stays 8192" in shown.out
    assert "canary" not in shown.out + done.out + shown.err
    same = spear("config", "diff", "old.toml", "old.toml", "--json", cwd=tmp_path, **keys).json
    assert {each["action"] for each in same["backends"]} == {"keep"}
    assert (same["settings"], same["not_applied"]) == ([], [])


def test_a_file_that_is_wrong(tmp_path):
    (tmp_path / "old.toml").write_text(OLD)
    (tmp_path / "new.toml").write_text("[spear]\nnope = 1\n")
    for pair in (("old.toml", "new.toml"), ("new.toml", "old.toml"), ("old.toml", "gone.toml")):
        done = spear("config", "diff", *pair, cwd=tmp_path)
        assert (done.code, done.out) == (2, "")
        assert done.err
