"""Text of any kind is shown and does nothing: known attacks, then whatever hypothesis finds."""

import io
import json
import unicodedata
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fastssd.core.untrusted import error_for_terminal, for_figure, for_markdown, for_terminal
from fastssd.errors import ConfigError
from fastssd.runtime.console import Console

ATTACKS = [
    "A$AP_x_$y$",
    r"\$\frac{1}$ $",
    "__init__",
    "_$hidden$",
    "a\nb\r\n\n# heading",
    "a | b || \\| \\",
    "`code` ``` ~~~ **bold** _it_ ~~s~~ [a](javascript:x) ![b](c) [^1] {.x} ^a^",
    "<img src=x onerror=alert(1)>\n\n# heading.jpg",
    "<!-- & &copy; &#60;b>",
    "\x1b[31mred\x1b]0;title\x07\x9b2J",
    "[bold red]x[/] :bee:",
    "\u202egpj.exe\u2066\u200b\u2028\u2029\ufeff",
    b"caf\xe9.jpg".decode("utf-8", "surrogateescape"),
    "\ud800",
    "https://example.org www.example.org me@example.org",
    "12. item",
    "# - + = : |",
    "---",
    "    four spaces ",
    "\t",
    "",
    "\u72ac \U0001f41d \u0928\u094d\u200d\u0937",
]
anything = st.text(st.characters(exclude_categories=()), max_size=30) | st.text(
    st.sampled_from("\\`*_[](){}#+-.!|~$@&<>;:/^=\"' \n\t\x1b\u202e\udcffaw1"), max_size=30
)


def attacked(test):
    """Run a property on the known attacks and on what hypothesis makes of text."""
    for text in ATTACKS:
        test = example(text)(test)
    return settings(max_examples=60, deadline=None)(given(anything)(test))


@attacked
def test_a_terminal_gets_one_line_of_characters_that_it_obeys_in_nothing(text):
    line = for_terminal(text)

    line.encode("utf-8")
    categories = {unicodedata.category(char) for char in line if char not in "\u200c\u200d"}
    assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert for_terminal(line) == line
    for_terminal(text, encoding="ascii").encode("ascii")


@pytest.mark.parametrize(
    "name", ["caf\u00e9", "\u72ac", "\u0646\u200c\u0646", "a  b\u3000c", "C:\\x"]
)
def test_names_in_any_script_are_shown_as_they_are(name):
    assert for_terminal(name) == name


def test_what_cannot_be_shown_is_an_escape():
    assert for_terminal("a\nb\x1b[31m\u202e\udce9\U000e0041") == (
        r"a\nb\x1b[31m\u202e\xe9\U000e0041"
    )
    assert for_terminal("caf\u00e9", encoding="ascii") == r"caf\xe9"


def test_an_error_has_as_many_lines_as_messages_whatever_it_names():
    error = ConfigError("a\nfastssd: done", "b\x1b[2J")

    assert error_for_terminal(error) == "a\\nfastssd: done\nb\\x1b[2J"
    assert str(error) == "a\nfastssd: done\nb\x1b[2J"


def texts_of(tokens):
    return "".join(child.content for token in tokens for child in token.children or [])


@attacked
def test_markdown_renders_the_text_and_no_markup_of_it(text):
    markdown = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    shown = for_markdown(text)

    alone = markdown.parse(f"{shown}\n\nend.")
    within = markdown.parse(f"File {shown}, end.")
    cell = markdown.parse(f"| a | b |\n| :-- | --: |\n| {shown} | {shown} |\n")

    kinds = {child.type for token in alone + within + cell for child in token.children or []}
    assert kinds <= {"text", "text_special"}
    assert {token.tag for token in alone} <= {"p", ""}
    assert {token.tag for token in cell} <= {"table", "thead", "tbody", "tr", "th", "td", ""}
    assert texts_of(alone) == for_terminal(text) + "end."
    assert texts_of(within) == f"File {for_terminal(text)}, end."
    assert texts_of(cell) == "ab" + 2 * for_terminal(text)
    assert sum(token.type == "td_open" for token in cell) == 2


def test_ordinary_names_stay_readable_in_the_markdown_file():
    for name in ("SSD III-hard", "1-features", "n0144 (2).jpg", "a/b.jpg: truncated"):
        assert for_markdown(name) == name


@attacked
def test_a_figure_draws_the_text_and_no_formula(text):
    figure = Figure(figsize=(1, 1))
    axes = figure.add_subplot()
    axes.plot([0, 1], label=for_figure(text))

    if text:
        (drawn,) = axes.legend().get_texts()
        shown, is_formula = drawn._preprocess_math(drawn.get_text())
        assert is_formula is False
        assert shown.removeprefix(" " * text.startswith("_")) == for_terminal(text)


def test_the_known_attacks_are_drawn():
    figure = Figure(figsize=(4, 4))
    axes = figure.add_subplot()
    axes.set_xticks(range(len(ATTACKS)), [for_figure(text) for text in ATTACKS])
    axes.set_title(for_figure("".join(ATTACKS)))

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_console_shows_the_known_attacks_as_they_are(monkeypatch, is_terminal):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "400")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream.isatty = lambda: is_terminal
    with Console(enabled=True, stream=stream) as console:
        for text in ATTACKS:
            console.message(text)
            console.stage_started(text, epochs=1, steps_per_epoch=2)
            console.progress(
                epoch=0, step=1, losses={text: 1.0}, accuracy={text: 1.0}, lr=0.1,
                images_per_second=1.0, data_wait_percent=0.0,
            )  # fmt: skip
            console.evaluated(text, {text: {"overall": 1.0, "class_mean": 1.0}})
    stream.flush()

    shown = stream.buffer.getvalue().decode()
    for text in ATTACKS:
        assert for_terminal(text) in shown
    assert "\x1b]0;" not in shown
    assert "\u202e" not in shown


def test_json_holds_every_text_exactly():
    for text in ATTACKS:
        assert json.loads(json.dumps(text)) == text
        assert json.dumps(text).isascii()
