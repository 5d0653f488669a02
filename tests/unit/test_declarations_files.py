"""The directory of card declarations: a bad file harms no other, and nothing is raised."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardsession import config, declarations
from cardsession.declarations import CRITERIA, KEYS, Loaded
from fakes.tomltext import TEXTS, VALUES, document

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
GOOD = '[[card]]\nprofile = "piv"\nseries = "09"\n'


def loaded(tmp_path: Path, *texts: str | bytes) -> Loaded:
    """What is made of a directory with these files: 0.toml, 1.toml and so on."""
    directory = tmp_path / "cards.d"
    directory.mkdir(exist_ok=True)
    for at, text in enumerate(texts):
        content = text.encode() if isinstance(text, str) else text
        (directory / f"{at}.toml").write_bytes(content)
    return declarations.load(directory)


def refusal(tmp_path: Path, text: str | bytes) -> str:
    """Why a file is not used: its name, and what is wrong with it."""
    got = loaded(tmp_path, text)
    assert got.declarations == ()
    (problem,) = got.problems
    assert problem.startswith(f"{tmp_path / 'cards.d' / '0.toml'}: ")
    return problem


def test_a_bad_file_harms_no_other(tmp_path: Path) -> None:
    """Refused as a whole: its good table is not used either; the files beside it are."""
    bad = GOOD.replace("09", "66") + "[[card]]\nprofile = 'piv'\nseries = 7\n"
    got = loaded(tmp_path, GOOD, bad, "not toml", GOOD.replace("09", "10"))
    assert [each.series for each in got.declarations] == ["09", "10"]
    assert [Path(each.split(":")[0]).name for each in got.problems] == ["1.toml", "2.toml"]


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (b"\xff\xfe", "expected TOML in UTF-8 (at line 1)"),
        (b"[[card\n]]", "line 1"),
        (b"a = " + b"[" * 20000, "expected valid TOML"),
        (b"# " + b"x" * config.MAX_BYTES, "at most 65536 bytes"),
        (b"[[card]]\n" * 7000, "14000 problems"),
    ],
)
def test_files_that_are_no_declarations(tmp_path: Path, content: bytes, answer: str) -> None:
    """Named as what they are, on one screen."""
    message = refusal(tmp_path, content)
    assert answer in message
    assert len(message.splitlines()) <= 42


def test_nothing_to_read_is_no_problem(tmp_path: Path) -> None:
    """No directory, an empty one, files of others, an editor's, a file of comments only."""
    assert declarations.load(tmp_path / "none") == Loaded()
    assert loaded(tmp_path) == Loaded()
    directory = tmp_path / "cards.d"
    for name in ("README", "a.toml~", "a.toml.dpkg-new", ".a.toml", ".#b.toml"):
        (directory / name).write_text("no TOML")
    (directory / ".#c.toml").symlink_to("nobody@nowhere")
    assert loaded(tmp_path, "# [[card]]\n") == Loaded()


def test_the_order_is_that_of_the_names(tmp_path: Path) -> None:
    """Whatever order the disk has; the first that says something wins."""
    directory = tmp_path / "cards.d"
    directory.mkdir()
    for name in ("b", "10", "a", "9", "Z"):
        (directory / f"{name}.toml").write_text(GOOD.replace("09", name))
    found = declarations.load(directory).declarations
    assert [each.series for each in found] == ["10", "9", "Z", "a", "b"]


def test_things_that_are_no_file(tmp_path: Path) -> None:
    """A pipe that nobody writes, a directory, a device without end, links; all are told."""
    directory = tmp_path / "cards.d"
    directory.mkdir()
    os.mkfifo(directory / "1.toml")
    (directory / "2.toml").mkdir()
    (directory / "3.toml").symlink_to("/dev/zero")
    (directory / "4.toml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "good").write_text(GOOD)
    (directory / "5.toml").symlink_to(tmp_path / "good")
    Path(os.fsdecode(bytes(directory) + b"/\xff.toml")).write_text("bad\n")
    got = declarations.load(directory)
    assert len(got.declarations) == 1
    answers = ("no regular file", "a directory", "no regular file", "there is none", "line 1")
    assert len(got.problems) == len(answers)
    for problem, answer in zip(got.problems, answers, strict=True):
        assert answer in problem
        assert problem.isprintable()


def test_things_that_are_no_directory(tmp_path: Path) -> None:
    """What is there in its place is told; nothing at all is fine, a link to nothing is not."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text(GOOD)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for path, answer in (
        (tmp_path / "fifo", "expected a directory, found something else"),
        (tmp_path / "file", "expected a directory, found something else"),
        (tmp_path / "file" / "x", "expected a directory, found something else"),
        (tmp_path / "link", "expected a directory, the link leads to none"),
        (tmp_path / "a\0b", "expected a readable directory: not a file name"),
        (tmp_path / ("x" * 300), "expected a readable directory: File name too long"),
    ):
        got = declarations.load(path)
        assert got.declarations == ()
        (problem,) = got.problems
        assert problem.endswith(answer)


def test_what_may_not_be_read(tmp_path: Path) -> None:
    """Told as unreadable, not as absent; root, who may read everything, steps down for it."""
    loaded(tmp_path, GOOD, GOOD)
    directory = tmp_path / "cards.d"
    (directory / "0.toml").chmod(0)
    uid = os.geteuid()
    for parent in [directory, *directory.parents[:3]]:
        parent.chmod(0o755)
    os.seteuid(uid or 65534)
    try:
        one = declarations.load(directory)
        os.seteuid(uid)
        directory.chmod(0)
        os.seteuid(uid or 65534)
        none = declarations.load(directory)
    finally:
        os.seteuid(uid)
        directory.chmod(0o755)
    assert len(one.declarations) == 1
    assert "0.toml: expected a readable TOML file: Permission denied" in one.problems[0]
    assert none == Loaded(
        problems=(f"{directory}: expected a readable directory: Permission denied",)
    )


def test_a_directory_of_thousands_is_not_read_through(tmp_path: Path) -> None:
    """The first by name are used, and that there are more is told."""
    got = loaded(tmp_path, *[GOOD] * (declarations.MAX_FILES + 3))
    assert len(got.declarations) == declarations.MAX_FILES
    assert got.problems[0].endswith("expected at most 256 files, found 259; the rest is not used")


TABLES = st.lists(
    st.dictionaries(st.sampled_from(sorted(KEYS)) | TEXTS, VALUES, max_size=8) | VALUES, max_size=3
)


@PATIENT
@given(TABLES | VALUES, st.dictionaries(TEXTS, VALUES, max_size=1))
def test_no_table_raises_anything(
    tmp_path_factory: pytest.TempPathFactory, cards: Any, beside: dict[str, Any]
) -> None:
    """Anything that TOML can say; and a problem is for a terminal."""
    text = document({"card": cards} | {key: beside[key] for key in beside if key != "card"})
    tomllib.loads(text)
    got = loaded(tmp_path_factory.getbasetemp(), text)
    assert len(got.problems) <= 1
    assert not got.problems or not got.declarations
    assert all(line.isprintable() for each in got.problems for line in each.split("\n"))


@PATIENT
@given(st.binary(max_size=200))
def test_no_noise_raises_anything(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Whatever the file has."""
    assert loaded(tmp_path_factory.getbasetemp(), content).declarations == ()


HEX = st.binary(min_size=5, max_size=16).map(bytes.hex)


@PATIENT
@given(
    st.fixed_dictionaries(
        {"nhs": st.booleans()},
        optional={
            "atr": HEX.map(lambda digits: "3B" + digits),
            "aid": HEX,
            "manufacturer": st.text(st.characters(categories=["L"]), min_size=1, max_size=9),
            "serial-prefix": HEX,
            "series": st.text("0123456789", min_size=1, max_size=16),
            "labels": st.dictionaries(st.text("xyz", min_size=1), st.just("user"), min_size=1),
            "source": st.just("a manual"),
        },
    ).filter(lambda table: set(CRITERIA) & set(table))
)
def test_what_is_right_is_taken(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any]
) -> None:
    """Any combination of good keys arrives, key by key."""
    got = loaded(tmp_path_factory.getbasetemp(), document({"card": [table]}))
    assert got.problems == ()
    (found,) = got.declarations
    for key, value in table.items():
        kept = getattr(found, key.replace("-", "_"))
        shape = {bytes: bytes.hex}.get(type(kept), lambda each: each)(kept)
        same = shape == value if not isinstance(value, str) else shape.upper() == value.upper()
        assert same, key
