"""Templates: what they may name, which type they give, and what an error says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.state import BranchState
from tea import templates
from tea.templates import TemplateFailed, TemplateSyntax, evaluate, render

STATE: dict[str, Any] = {
    "items": [1, 2],
    "user": {"name": "Ada", "get": "got"},
    "url": "u",
    "flag": None,
    "max": 3,
    "raw": '{"a": 1}',
}


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("plain", "plain"),
        ("{{ state.items }}", [1, 2]),
        (" {{- state.items -}}\n", [1, 2]),
        ("{{ items }}!", "[1, 2]!"),
        ("{{ user.name }}", "Ada"),
        ("{{ user.get }}", "got"),
        ("{{ state.get('none', 7) }}", 7),
        ("{{ state['user']['name'] | upper }}", "ADA"),
        ("{{ url }}{{ url }}", "uu"),
        ("{{ '}}' }}", "}}"),
        ("{{ state.nothing | default('d') }}", "d"),
        ("{{ nothing | default(3) }}", 3),
        ("{{ flag }}", None),
        ("{{ flag is None }}", True),
        ("{{ state.items | length }}", 2),
        ("{{ len(items) }}", 2),
        ("{{ max }}", 3),
        ("{{ variables.k }}", "v"),
        ("{{ env.HOME_OF_TEST }}", "here"),
        ("{{ user | tojson }}", '{"name": "Ada", "get": "got"}'),
        ("{{ {'a': 'é<'} | json }}", '{"a": "é<"}'),
        ("{{ raw | fromjson }}", {"a": 1}),
        ("{{ url | sha256 }}", "0bfe935e70c321c7ca3afc75ce0d0ca2f98b5422e008bb31c00c6d7f1f1c0ad6"),
        ("{% for i in state.items %}{{ i }};{% endfor %}", "1;2;"),
        ("{% if url %}{{ url }}\n{% endif %}", "u\n"),
        ({"a": ["{{ items }}", 1, None]}, {"a": [[1, 2], 1, None]}),
    ],
)
def test_values(template: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME_OF_TEST", "here")
    assert render(template, STATE, {"k": "v"}) == value


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ state.item }}", "cannot evaluate '{{ state.item }}': no key 'item' here (did you mean 'items'?)"),
        ("x {{ itemz }} y", "cannot evaluate 'x {{ itemz }} y': no 'itemz' here (did you mean 'items'?)"),
        ("{{ user.nam }}", "no key 'nam' here (did you mean 'name'?)"),
        ("{{ state.a.b }}", "no key 'a' here"),
        ("{{ variables.kk }}", "no key 'kk' here (did you mean 'k'?)"),
        ("{{ url.foo }}", "has no attribute 'foo'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ not_there() }}", "no 'not_there' here"),
        ("{{ state.items.append(3) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ state.items.__class__ }}", "unsafe"),
        ("{% include 'x' %}", "cannot evaluate"),
    ],
)
def test_failures_name_the_template_and_the_nearest_key(template: str, says: str) -> None:
    with pytest.raises(TemplateFailed) as caught:
        render(template, STATE, {"k": "v"})
    assert says in str(caught.value)
    assert STATE["items"] == [1, 2]


@pytest.mark.parametrize("template", ["{{ a b }}", "{{ ", "{% if %}", "{% for x in y %}", "{{ a | nofilter }}"])
def test_bad_syntax(template: str) -> None:
    with pytest.raises(TemplateSyntax):
        templates.compile_template(template)


def test_bad_syntax_knows_its_line() -> None:
    with pytest.raises(TemplateSyntax) as caught:
        templates.compile_template("one\ntwo {{ a b }}")
    assert caught.value.line == 2


def test_expressions_with_and_without_braces() -> None:
    assert evaluate("state['items'][0] == 1 and not flag", STATE) is True
    assert evaluate("{{ max > 2 }}", STATE) is True
    with pytest.raises(TemplateSyntax, match="text around the expression"):
        evaluate("{{ max }} > 2", STATE)


def test_only_what_a_template_names_is_read() -> None:
    state = BranchState({"big": [[1]], "small": [1]}, {})
    render("{{ small }} and {{ state.small }}", state)
    assert set(state._mine) == {"small"}


def test_containers_are_new_each_time() -> None:
    value = {"a": [1]}
    first = render(value, {})
    first["a"].append(2)
    assert value == {"a": [1]}
    assert render(value, {}) == {"a": [1]}


@given(st.dictionaries(st.sampled_from("abcxyz"), st.integers() | st.text() | st.lists(st.integers()), min_size=1))
def test_an_expression_gives_the_very_value(state: dict[str, Any]) -> None:
    for key in state:
        assert render(f"{{{{ state.{key} }}}}", state) is state[key]
        assert render(f"{{{{ {key} }}}}", state) is state[key]


@given(st.text().filter(lambda text: "{{" not in text and "{%" not in text))
def test_text_without_templates_is_untouched(text: str) -> None:
    assert render(text, {}) is text


def test_jinja_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, tea.dialect as d; from tea.graph import Graph;"
        "d.build(d.load_text('nodes: [{name: a, run: x = 1}, {name: b, command: [ls]}]'), Graph).nodes['b'].run({});"
        "print('jinja2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ x | upperr }}", r"No filter named 'upperr' \(did you mean 'upper'\?\)$"),
        ("a {{ x | qqqqq }}", r"No filter named 'qqqqq'$"),
        ("a {{ x is defind }}", r"No test named 'defind' \(did you mean 'defined'\?\)$"),
    ],
)
def test_a_filter_that_does_not_exist_names_the_nearest(text: str, says: str) -> None:
    with pytest.raises(TemplateSyntax, match=says):
        render(text, {"x": 1})
