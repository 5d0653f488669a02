"""The polkit rule, run by the JavaScript engine of Debian's polkitd (duktape)."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from cardsession.stack.processes import program
from systemd.units import SHIPPED, SYSUSERS

RULE: Final = SHIPPED / "50-cardsession.rules"
PCSC, CARD = "org.debian.pcsc-lite.access_pcsc", "org.debian.pcsc-lite.access_card"
# What a rules file finds (polkit(8)): a rule's own word, else the next rule's, else the defaults
# of the action.
POLKIT: Final = """
var rules = [];
var polkit = {
    Result: {NO: "no", YES: "yes", AUTH_ADMIN: "auth_admin", NOT_HANDLED: null},
    addRule: function (rule) { rules.push(rule); },
    log: function () {}
};
function judged(id, user, groups) {
    var action = {id: id, lookup: function (key) { return key === "reader" ? "Reader 00" : ""; }};
    var subject = {
        user: user, groups: groups, local: true, active: true,
        isInGroup: function (group) { return groups.indexOf(group) >= 0; },
        isInNetGroup: function () { return false; }
    };
    for (var each = 0; each < rules.length; each += 1) {
        var said = rules[each](action, subject);
        if (said) { return said; }
    }
    return "default";
}
"""


def judged(*questions: tuple[str, str, list[str]], more: str = "", rule: Path = RULE) -> list[Any]:
    """What the rules say to each of (action, user, groups); `more`: a site's file after ours."""
    calls = ", ".join(f"judged({', '.join(map(json.dumps, each))})" for each in questions)
    text = f"{POLKIT}\n{rule.read_text()}\n{more}\nprint(JSON.stringify([{calls}]));\n"
    command = [program("duk"), "--run-stdin"]
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("action", [PCSC, CARD])
def test_the_daemon_and_the_group_are_let_in_and_nobody_else_is_judged(action: str) -> None:
    assert judged(
        (action, "cardsession", []),
        (action, "technician", ["users", "cardsession-pcsc"]),
        (action, "dispenser", ["cardsession"]),
        (action, "stranger", []),
        (action, "root", []),
    ) == ["yes", "yes", "default", "default", "default"]


def test_other_actions_are_none_of_ours() -> None:
    others = ("org.freedesktop.login1.suspend", "org.debian.pcsc-lite.access", f"{PCSC}.more")
    said = judged(*((each, "cardsession", ["cardsession-pcsc"]) for each in others))
    assert said == ["default"] * len(others)


def test_the_site_s_file_that_its_comment_recommends() -> None:
    """Everybody else is kept out, and nothing but cards is concerned."""
    lines = re.findall(r"^//   (.*)$", RULE.read_text(), re.MULTILINE)
    said = judged(
        (PCSC, "cardsession", []),
        (CARD, "technician", ["cardsession-pcsc"]),
        (CARD, "stranger", []),
        ("org.freedesktop.login1.suspend", "stranger", []),
        more="\n".join(lines),
    )
    assert said == ["yes", "yes", "no", "default"]


def test_what_the_engine_does_not_understand_is_an_error(tmp_path: Path) -> None:
    """polkitd would log it and go on without the rule."""
    broken = tmp_path / "broken.rules"
    broken.write_text(RULE.read_text().replace("function (action", "(action"))
    with pytest.raises(AssertionError, match="SyntaxError"):
        judged((PCSC, "cardsession", []), rule=broken)


def test_names_are_those_that_are_made() -> None:
    made = {line.split()[1] for line in SYSUSERS.read_text().splitlines() if line[:2] == "g "}
    rule = "\n".join(line for line in RULE.read_text().splitlines() if line[:2] != "//")
    assert set(re.findall(r'"(cardsession[\w-]*)"', rule)) <= made
