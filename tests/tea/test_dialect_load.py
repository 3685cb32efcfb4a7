"""Reading YAML: what is refused, and where each mistake is said to be."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tea.dialect import Workflow, WorkflowError, load_dict, load_file, load_text
from tea.dialect.load import MAX_BYTES, MAX_DEPTH, read_text

NODES = "nodes:\n  - name: a\n"


def refusal(text: str) -> str:
    with pytest.raises(WorkflowError) as caught:
        load_text(text, "flow.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("variables: {x: !!python/object:os.system ls}\n" + NODES, "1:16", "tag 'tag:yaml.org,2002:python/object"),
        ("variables: {x: !!str 3}\n" + NODES, "1:16", "not allowed"),
        ("variables: !mine {x: 3}\n" + NODES, "1:12", "tag '!mine'"),
        ("variables: {x: ! 3}\n" + NODES, "1:16", "tag '!'"),
        ("name: x\nname: y\n" + NODES, "2:1", "duplicate key 'name'"),
        ("variables: {on: 1}\n" + NODES, "1:13", "key on is not text"),
        ("variables: {? [a] : 1}\n" + NODES, "1:15", "a list where a key belongs"),
        ("variables: {a: {{ state.x }}}\n" + NODES, "1:17", "put templates in quotes"),
        ("- a\n- b\n", "1:1", "a workflow is a mapping"),
        ("just text", "1:1", "a workflow is a mapping"),
        ("", "1:1", "file is empty"),
        (NODES + "---\n" + NODES, "3:1", "second document"),
        (NODES + "  bad: [1,\n", "3:3", "look at the indentation"),
        ("name: a: b\n", "1:8", "in quotes"),
        ("name: \tx\n\tnodes: 3\n", "2:1", "not with tabs"),
        ("nodes:\n\t- x\n", "2:1", "not with tabs"),
        (NODES + "    run: 'x\n\n", "5:1", "is not closed; what is wrong begins in line 3"),
        ("variables: &a [*a]\n" + NODES, "1:16", "alias '*a'"),
        ("variables: {<<: 3}\n" + NODES, "1:17", "'<<' merges mappings only"),
        ("variables: {x: " + "9" * 5000 + "}\n" + NODES, "1:16", "too long"),
        ("name: a\0b\n" + NODES, "1:1", "not valid YAML"),
    ],
)
def test_refused_at_its_place(text: str, place: str, says: str) -> None:
    message = refusal(text)
    assert message.startswith(f"flow.yaml:{place}: ")
    assert says in message


def test_several_refusals_come_together() -> None:
    message = refusal("name: x\nname: y\nvariables: {x: !a 1, y: !b 2}\n" + NODES)
    assert [line.split(": ")[0] for line in message.splitlines()] == [
        "flow.yaml:2:1",
        "flow.yaml:3:16",
        "flow.yaml:3:25",
    ]


def test_alias_bomb_is_refused_without_the_memory() -> None:
    lines = ["a0: &a0 [" + ", ".join(["lol"] * 10) + "]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 12)]
    tracemalloc.start()
    message = refusal("\n".join(lines))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "too many values" in message
    assert peak < 20_000_000


def test_deep_nesting_is_refused_and_survived() -> None:
    assert "nested deeper" in refusal("variables: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1) + "\n" + NODES)
    message = refusal("variables: " + "[" * 100_000)  # libyaml looks ahead; from 0.2.6 on it counts itself as it does
    assert "nested deeper" in message or "maximum nesting depth" in message
    assert "nested deeper" in refusal("variables:\n" + "\n".join(" " * n + "a:" for n in range(1, 300)))
    ok = "variables: {v: " + "[" * (MAX_DEPTH - 5) + "]" * (MAX_DEPTH - 5) + "}\n" + NODES
    load_text(ok)


def test_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_bytes(b"name: a\ndescription: caf\xe9\n" + NODES.encode())
    with pytest.raises(WorkflowError, match=r"flow\.yaml:2:17: file is not UTF-8 \(byte 0xe9 is in the way\)"):
        load_file(file)


def test_byte_order_mark_is_fine(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + NODES.encode())
    assert load_file(file).raw["nodes"] == [{"name": "a"}]


def test_too_large(tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(WorkflowError, match="larger than 8 MiB"):
        load_file(file)


def test_values_keep_their_types_and_times_stay_text() -> None:
    loaded = read_text("{i: 3, f: 2.5, b: true, n: ~, d: 2024-01-01, t: 12:30, s: '3', e: }")
    assert loaded.data == {
        "i": 3,
        "f": 2.5,
        "b": True,
        "n": None,
        "d": "2024-01-01",
        "t": "12:30",
        "s": "3",
        "e": None,
    }


def test_aliases_and_merges() -> None:
    text = "base: &b {x: 1, y: 2}\nmine: {<<: *b, y: 3}\nboth: {<<: [*b, {z: 4}]}\nlist: [*b]"
    data = read_text(text).data
    assert data["mine"] == {"x": 1, "y": 3}
    assert data["both"] == {"x": 1, "y": 2, "z": 4}
    assert data["list"] == [{"x": 1, "y": 2}]


def test_places_of_keys_and_values() -> None:
    source = read_text("name: x\nnodes:\n  - name: a\n    run: |\n      return {}\n").source
    assert source.spot(("nodes", 0, "run")) == (4, 10)
    assert source.spot(("nodes", 0, "run"), at_key=True) == (4, 5)
    assert source.spot(("nodes", 0, "missing")) == (3, 5)
    assert source.spot(("nowhere", 3)) == (1, 1)


def test_mapping_in_python_is_checked_alike() -> None:
    with pytest.raises(WorkflowError) as caught:
        load_dict({"nodes": [{"name": "a", "runn": "x"}], "variables": {"when": object()}})
    assert str(caught.value).splitlines() == [
        "variables.when: a object is not plain data (use text, numbers, lists and mappings)",
        "nodes[0].runn: unknown key 'runn' in a node (did you mean 'run'?)",
    ]


def test_mapping_that_holds_itself_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["loop"] = loop
    with pytest.raises(WorkflowError, match="nested deeper"):
        load_dict({"nodes": [{"name": "a"}], "variables": loop})


def test_tuples_become_lists_and_the_original_stays() -> None:
    config = {"nodes": ({"name": "a"},), "variables": {"x": (1, 2)}}
    workflow = load_dict(config)
    assert workflow.raw["variables"]["x"] == [1, 2]
    assert config["variables"] == {"x": (1, 2)}


def test_error_can_be_pickled() -> None:
    import pickle

    with pytest.raises(WorkflowError) as caught:
        load_text("nodes: 3", "f.yaml")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.problems) == (str(caught.value), caught.value.problems)


LINES = st.lists(st.text("az#:'- \t", max_size=12), min_size=1, max_size=5).map(lambda lines: "\n".join([*lines, ""]))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | LINES
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5))
def test_dump_loads_back_to_equal_data(data: dict[str, object]) -> None:
    text = Workflow.dump(data)
    assert read_text(text).data == data
    assert Workflow.dump(data) == text


def test_dump_shows_code_as_a_block() -> None:
    assert Workflow.dump({"run": "if x:\n    return {}\n"}) == "run: |\n  if x:\n      return {}\n"


@given(st.binary(max_size=60) | st.text(alphabet="[]{}:,-&*!|>'\"#%@ \n\tab1", max_size=40).map(str.encode))
def test_any_bytes_are_a_workflow_or_a_workflow_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(data)
    with pytest.raises(WorkflowError) as caught:
        load_file(file)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in caught.value.problems)
