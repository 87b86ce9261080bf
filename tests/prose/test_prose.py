"""The check of the English bites, passes what is right, and reads everything that it should."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import click
import pytest
from npm import fetch

from prose import HARPER, Finding, check, house, paragraphs_of, phrases, unwanted, words

CLEAN = """\
# Event history

Reconnecting clients can resume: the `hub` keeps events, and a *client* is sent the ones it missed.

- A client that reads slowly never delays others.

| option | meaning |
| --- | --- |
| `--send-timeout` | disconnect a client that accepts no data for this long |

```python
teh = "who subscribes gets an eror"  # as code, this is not read
```
"""
FAULTY = """\
# Event history

Reconecting clients can resume, and the hub sends a event to the the
[wrong](teh-target.md) place. Who subscribes gets a gap.

```python
teh = "farewell"  # with a comment in it that is mispelled
```
"""
FAULTY_MODULE = '''\
"""Run an other eror, by `asyncio.gather`."""

LIMIT = 3  # of one's own


def run(times: int) -> None:
    """Run it::

        teh = code      and beside it a thing that lingers

    Args:
      teh: code, as it is an argument's name;
        how offen.

    Raises:
      RuntimeError: a eror.

    Returns:
      None, otherwise than before.
    """
    raise RuntimeError(f"it was {times} farewells, mispelled")
'''
FAULTY_PAGE = """\
<!doctype html>
<title>A paeg</title>
<p>A <code>teh</code> client, which <em>it
  is</em> told. <button aria-label="Clsoe">x</button>
"""


# What the style guide has examples of.
REPLACED = (
    "What a hub remembers, so that who was away can go on where they were",
    "Who begins behind what is kept, but not delivered yet, joins when it is",
    "How long a client may not take what is sent",
    "Nothing can be published: the disk is full",
    "What is published is kept again",
    "this may not have been published",
    "an event named gap is not published by anybody",
    "Whom the demonstration obeys",
    "what is as it mostly is goes without saying",
    "## The event's way",
    "## [When a client leaves](leaving.md)",
    "## Once for all",
    "## A busy hub gathers",
    "| Figures | Benchmarks |",
    "## Names",
    "At first a file, then otherwise than before",
    "A client that is no more.",
    "For streams of one's own",
    "There is one gap for one loss, and none without.",
    "Stop after so many events",
    "The client is sent a farewell",
)

FILES = {
    "clean.md": CLEAN,
    "faulty.md": FAULTY,
    "faulty.py": FAULTY_MODULE,
    "faulty.html": FAULTY_PAGE,
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    """Return what is found in the files above, or skip by name where npm has no Harper."""
    folder = tmp_path_factory.mktemp("prose")
    try:
        fetch(folder, HARPER)
    except OSError as error:
        said = f"{HARPER} cannot be had: npm install {HARPER}: {error}"
        if os.environ.get("PENSTOCK_TEST_REQUIRE") == "all":
            pytest.fail(said)
        pytest.skip(said)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return check([folder / name for name in FILES], folder)


def found(findings: list[Finding], name: str) -> set[tuple[int, str, str]]:
    """Return the line, the place and the rule of each finding in a file."""
    return {
        (each.line, each.part.partition("«")[2].partition("»")[0], each.rule)
        for each in findings
        if Path(each.path).name == name
    }


def test_nothing_is_found_in_what_is_right(findings: list[Finding]) -> None:
    """Code, options and the targets of links are not read."""
    assert found(findings, "clean.md") == set()


def test_faults_of_a_page_are_found(findings: list[Finding]) -> None:
    """Spelling, grammar and phrases, each on its line."""
    assert found(findings, "faulty.md") == {
        (3, "Reconecting", "SpellCheck"),
        (3, "a", "AnA"),
        (3, "the the", "RepeatedWords"),
        (4, "Who", "phrases.txt"),
        (7, "mispelled", "SplitWords"),
    }


def test_faults_of_a_module_are_found(findings: list[Finding]) -> None:
    """In docstrings, comments and messages; not in code and examples."""
    lines = found(findings, "faulty.py")
    assert {(line, part) for line, part, _ in lines} == {
        (1, "eror"),
        (3, "of one's own"),
        (9, "lingers"),
        (13, "offen"),
        (16, "a"),
        (16, "eror"),
        (19, "otherwise than"),
        (21, "farewells"),
        (21, "mispelled"),
    }


def test_faults_of_what_a_page_shows_are_found(findings: list[Finding]) -> None:
    """Its text, however it is marked up, and its labels."""
    assert {(line, part) for line, part, _ in found(findings, "faulty.html")} == {
        (2, "paeg"),
        (4, "is told"),
        (4, "Clsoe"),
    }


def test_a_finding_says_where_it_is_and_what_to_write(findings: list[Finding]) -> None:
    """The path and the line first, as editors want them."""
    (finding,) = [each for each in findings if each.rule == "AnA" and each.path.endswith(".md")]
    assert str(finding).startswith(f"{finding.path}:3: and the hub sends «a» event to the")
    assert str(finding).endswith(": AnA: Incorrect indefinite article. an")


def helps(command: click.Command) -> list[str]:
    """Return what help says of a command and its options, and of its commands."""
    said = [command.help or "", command.short_help or "", command.epilog or ""]
    for option in command.params:
        if isinstance(option, click.Option) and option.name != "version":  # Click's own
            said.append(option.help or "")
    if isinstance(command, click.Group):
        for name in command.commands:
            module = import_module(f"penstock.cli.{name}")
            said += [command.commands[name].short_help or "", *helps(getattr(module, name))]
    return said


def plain(text: str) -> str:
    """Return a text without what the readers put in or leave out."""
    return " ".join(text.replace("`", "").replace("\b", "").split())


def test_all_help_is_read() -> None:
    """Each sentence that `--help` prints is in a paragraph: of a docstring, or a literal."""
    from penstock.cli import cli

    read = " ".join(plain(each.text) for each in paragraphs_of(house()) if "cli" in each.path)
    sentences = [
        plain(sentence)
        for said in helps(cli)
        for block in said.split("\n\n")
        if "\b" not in block
        for sentence in block.split(". ")
    ]
    assert len(sentences) > 50
    # What is computed, such as a default, stands as code in what is read.
    missing = [
        each for each in sentences if each.split("[")[0].strip(". ") and each[:30] not in read
    ]
    assert missing == []


def test_the_lists_are_in_order() -> None:
    """Words are sorted, and each is there once; each phrase has what to write instead."""
    assert words() == sorted(set(words()), key=lambda word: (word.lower(), word))
    assert all(instead for _, instead in phrases())


@pytest.mark.parametrize("line", REPLACED)
def test_what_the_style_guide_replaces_is_found(tmp_path: Path, line: str) -> None:
    """Each of its examples has a phrase that is not used."""
    page = tmp_path / "page.md"
    page.write_text(f"{line}\n")
    assert unwanted(paragraphs_of([page]))


def test_a_phrase_is_whole_words_in_any_case(tmp_path: Path) -> None:
    """Also across the end of a line; but not in a longer word, nor in backticks."""
    page = tmp_path / "page.md"
    page.write_text("Farewell, `farewell` and farewell-party. It is no\nmore, and not gathering.\n")
    lines = [(each.line, each.rule) for each in unwanted(paragraphs_of([page]))]
    assert lines == [(1, "phrases.txt"), (1, "phrases.txt"), (2, "phrases.txt")]
