"""The file format: what is saved comes back bit for bit, and nothing else is ever accepted."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import graphs
from graphs import files, zoo
from graphs.draft import Draft
from graphs.errors import EvolutionError, FormatError, GraphError
from graphs.execution import execute
from graphs.genome import Genome
from graphs.initial import initial_weights
from graphs.source_text import source
from graphs.structure import Graph
from tests.graphs.drawing import graphs as drawn_graphs

ROOT = Path(__file__).parents[2]


def small() -> Genome:
    """A few layers, with a tied weight and a 0-dimensional integer, in about 5 kB."""
    draft = Draft()
    x = draft.input((2, 4, 4))
    x = draft.add("conv2d", x, path="one", out=2, bias=False)
    x = draft.add("conv2d", x, tensors={"weight": "one.weight"}, out=2, bias=False)
    x = draft.add("relu", draft.add("batch_norm", x, path="norm"))
    draft.head(draft.add("linear", draft.add("flatten", x), path="fc", out=3))
    graph = draft.finish()
    return Genome(
        graph, initial_weights(graph, 0), {"labels": ["zéro", "one", "two"], "normalisation": {"mean": [0.5]}}
    )


def alike(one: Genome, other: Genome) -> bool:
    """Equal in all that a genome holds; floating-point numbers bit by bit."""
    same = one.weights.keys() == other.weights.keys() and all(
        tensor.dtype == other.weights[name].dtype
        and tensor.shape == other.weights[name].shape
        and tensor.reshape(-1).view(torch.uint8).equal(other.weights[name].reshape(-1).view(torch.uint8))
        for name, tensor in one.weights.items()
    )
    return same and one.graph == other.graph and one.about == other.about


# Another implementation of the format, to write what `encode` would not.


def text_of(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def taken_apart(data: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """Header without metadata, document, bytes of the tensors."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header.pop("__metadata__")["hydra_evolve"])
    return header, document, data[8 + length :]


def framed(header: Any, body: bytes = b"") -> bytes:
    text = (
        header if isinstance(header, bytes) else json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass")
    )
    return struct.pack("<Q", len(text)) + text + body


def sealed(header: dict[str, Any], document: dict[str, Any], body: bytes) -> bytes:
    """The file with a digest that is right."""
    document = {key: value for key, value in document.items() if key != "digest"}
    digest = hashlib.sha256()

    def row(name: str, code: str, shape: list[int], data: bytes) -> None:
        line = text_of([name, code, shape, len(data)]).encode()
        digest.update(struct.pack("<Q", len(line)) + line + data)

    row("", "", [], text_of(document).encode())
    for name in sorted(header):
        begin, end = header[name]["data_offsets"]
        row(name, header[name]["dtype"], header[name]["shape"], body[begin:end])
    text = text_of({**document, "digest": digest.hexdigest()})
    return framed({"__metadata__": {"hydra_evolve": text}, **header}, body)


def test_the_other_implementation_writes_what_encode_writes() -> None:
    data = files.encode(small())
    assert alike(files.decode(sealed(*taken_apart(data))), small())
    assert taken_apart(sealed(*taken_apart(data))) == taken_apart(data)


# Round trips


@pytest.mark.parametrize("name", zoo.ZOO)
def test_zoo_networks_come_back(name: str, tmp_path: Path) -> None:
    genome = zoo.create(name, seed=1)
    path = tmp_path / "net.safetensors"
    graphs.save(genome, path)
    found = graphs.load(path)
    assert alike(found, genome)
    assert found.digest == genome.digest
    assert files.encode(found) == path.read_bytes() == files.encode(genome)
    assert os.listdir(tmp_path) == ["net.safetensors"]


about = st.dictionaries(
    st.text(max_size=5).filter(lambda name: name != "state"),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(deadline=None)
@given(drawn_graphs(), about, st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
def test_drawn_genomes_come_back(graph: Graph, about: dict[str, Any], dtype: torch.dtype) -> None:
    weights = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in initial_weights(graph, 0).items()
    }
    genome = Genome(graph, weights, about)
    data = files.encode(genome)
    found = files.decode(data)
    assert alike(found, genome)
    assert files.encode(found) == data
    assert files.from_json(json.loads(json.dumps(files.to_json(graph)))) == graph


def test_odd_numbers_come_back() -> None:
    genome = small()
    strange = torch.tensor([float("nan"), float("-inf"), -0.0, 1e-45])
    weight = strange.repeat(9).reshape(2, 2, 3, 3)
    found = Genome(genome.graph, {**genome.weights, "one.weight": weight})
    assert alike(files.decode(files.encode(found)), found)


def test_tensors_that_share_memory_come_back_apart() -> None:
    """Views, slices of one storage and tensors in another memory order are all written in full."""
    genome = small()
    storage = torch.arange(100.0)
    changed = {
        "one.weight": storage[:36].reshape(2, 2, 3, 3).permute(1, 0, 3, 2),
        "norm.weight": storage[3:5],
        "norm.bias": storage[3:5],
        "fc.bias": storage[::7][:3].requires_grad_(),
    }
    found = files.decode(files.encode(Genome(genome.graph, {**genome.weights, **changed})))
    assert found.weights["fc.bias"].tolist() == [0, 7, 14]
    assert found.weights["one.weight"].equal(changed["one.weight"])
    found.weights["norm.weight"].add_(1)
    assert found.weights["norm.bias"].tolist() == [3, 4]
    assert not found.weights["fc.bias"].requires_grad


def test_a_shared_tensor_stands_once_in_the_file() -> None:
    header, document, _ = taken_apart(files.encode(small()))
    assert [node["tensors"].get("weight") for node in document["graph"]["nodes"][1:3]] == ["one.weight"] * 2
    assert list(header).count("one.weight") == 1


def test_safetensors_reads_the_tensors_too() -> None:
    from safetensors.torch import load

    genome = small()
    found = load(files.encode(genome))
    assert found.keys() == genome.weights.keys()
    assert all(found[name].equal(tensor) for name, tensor in genome.weights.items())


def test_the_digest_is_over_everything() -> None:
    genome = small()
    found = {genome.digest, Genome(genome.graph, genome.weights).digest}
    for name, tensor in genome.weights.items():
        found.add(Genome(genome.graph, {**genome.weights, name: tensor + 1}, genome.about).digest)
    double = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in genome.weights.items()
    }
    found.add(Genome(genome.graph, double, genome.about).digest)
    found.add(Genome(Graph(genome.graph.nodes, genome.graph.heads, 99), genome.weights, genome.about).digest)
    assert len(found) == len(genome.weights) + 4
    backwards = dict(reversed(genome.weights.items()))
    assert Genome(genome.graph, backwards, dict(reversed(genome.about.items()))).digest == genome.digest


def test_other_processes_write_the_same_bytes() -> None:
    line = (
        "import hashlib; from tests.graphs.test_files import small; from graphs import files, zoo; "
        "both = small(), zoo.create('densenet', depth=10); "
        "print([hashlib.sha256(files.encode(each)).hexdigest() for each in both])"
    )
    expected = [hashlib.sha256(files.encode(each)).hexdigest() for each in (small(), zoo.create("densenet", depth=10))]
    env = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run([sys.executable, "-c", line], check=True, capture_output=True, text=True, cwd=ROOT, env=env)
    assert done.stdout == f"{expected}\n"


# Damage


def test_every_byte_counts() -> None:
    """Each byte of a file, one bit of it turned, and 500 bits at random."""
    data = files.encode(small())
    chance = random.Random(0)  # noqa: S311
    bits = [8 * place + chance.randrange(8) for place in range(len(data))]
    bits += [chance.randrange(8 * len(data)) for _ in range(500)]
    for bit in bits:
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            files.decode(bytes(broken))


def test_no_part_of_a_file_passes_for_all_of_it() -> None:
    data = files.encode(small())
    chance = random.Random(0)  # noqa: S311
    for length in [*range(20), *(chance.randrange(len(data)) for _ in range(200)), len(data) - 1]:
        with pytest.raises(FormatError, match=r"^somewhere: "):
            files.decode(data[:length], "somewhere")
    with pytest.raises(FormatError, match="bytes, but"):
        files.decode(data + b"\0")


def test_damage_names_file_and_place(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    data = bytearray(files.encode(small()))
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"net\.safetensors: damaged: its content has the digest .* use another copy"):
        files.load(path)


# Malice: whole documents whose digest is right


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The small genome's file after a change of its document, sealed again."""
    header, document, body = taken_apart(files.encode(small()))
    change(document)
    return sealed(header, document, body)


def with_graph(nodes: list[dict[str, Any]], **more: Any) -> bytes:
    heads = [{"name": "logits", "node": nodes[-1]["id"], "training_only": False}]
    return sealed(
        {}, {"format": 1, "about": {}, "graph": {"nodes": nodes, "heads": heads, "counter": 10**9, **more}}, b""
    )


def node(id: str, kind: str, inputs: list[str], **settings: Any) -> dict[str, Any]:
    return {"id": id, "kind": kind, "settings": settings, "inputs": inputs, "tensors": {}, "born": 0}


INPUT = node("x", "input", [], name="x", shape=[2, 4, 4], dtype="float", most=1)

X = {"in": 0}


def recorded(reads: list[list[int]], program: Any = (("torch.abs", (X,), {}),)) -> dict[str, Any]:
    return {"program": program, "reads": reads, "shape": [2, 4, 4], "held": []}


def opaque(program: list[Any]) -> dict[str, Any]:
    return node("o", "opaque", ["x"], **recorded([[2, 4, 4]], program))


def program(target: str, *arguments: Any, **keywords: Any) -> bytes:
    """A file with an opaque node of one step."""
    if arguments and isinstance(arguments[0], str) and arguments[0].startswith("[["):
        text = text_of({"format": 1, "about": {}, "digest": "0" * 64, "graph": {"nodes": "HERE"}})
        return metadata(text.replace('"HERE"', arguments[0]))
    return with_graph([INPUT, opaque([[target, list(arguments), keywords]])])


S = {"step": 0}


def steps(*program: Any) -> bytes:
    """A file with an opaque node of several steps."""
    return with_graph([INPUT, opaque(list(program))])


def deep(levels: int) -> Any:
    """A list in a list in a list; as text where Python cannot write it."""
    if levels > 900:
        return "[" * levels + "]" * levels
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def chain(length: int, kind: str = "relu", operands: int = 1) -> list[dict[str, Any]]:
    nodes = [INPUT]
    settings = {"axis": 0} if kind == "concat" else {}
    for place in range(length):
        nodes.append(node(f"n{place}", kind, [nodes[-1]["id"]] * operands, **settings))
    return nodes


def repeated(count: int) -> bytes:
    """A graph of so many nodes that are all the same one."""
    text = text_of(INPUT)
    nodes = ",".join([text] * count)
    return metadata(
        '{"about":{},"digest":"' + "0" * 64 + f'","format":1,"graph":{{"counter":0,"heads":[],"nodes":[{nodes}]}}}}'
    )


def facts(value: Any) -> bytes:
    return changed(lambda document: document["about"].update(a=value))


def named(id: str, node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "id": id}


def huge_layer(channels: int) -> bytes:
    settings = {"bias": False, "dilation": [1, 1], "groups": 1, "kernel": [3, 3], "out": channels}
    layer = node("conv", "conv2d", ["x"], padding=[1, 1], stride=[1, 1], **settings)
    layer["tensors"] = {"weight": "w"}
    header = {"w": {"dtype": "F32", "shape": [channels, 2, 3, 3], "data_offsets": [0, channels * 72]}}
    document = {"format": 1, "about": {}, "digest": "0" * 64}
    heads = [{"name": "logits", "node": "conv", "training_only": False}]
    graph = {"nodes": [INPUT, layer], "heads": heads, "counter": 0}
    return framed({"__metadata__": {"hydra_evolve": text_of({**document, "graph": graph})}, **header}, b"")


def with_header(change: Callable[[dict[str, Any]], Any]) -> bytes:
    data = files.encode(small())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    return framed(header, data[8 + length :])


def twice(text: bytes) -> bytes:
    """The small genome's header with a key that stands twice."""
    data = files.encode(small())
    length = int.from_bytes(data[:8], "little")
    return framed(data[8 : 8 + length].rstrip().replace(b"{", b"{" + text, 1), data[8 + length :])


def metadata(text: str) -> bytes:
    return framed({"__metadata__": {"hydra_evolve": text}})


def set_offsets(*offsets: Any) -> bytes:
    return with_header(lambda header: header["fc.bias"].update(data_offsets=list(offsets)))


def edit_node(place: int, **fields: Any) -> bytes:
    return changed(lambda document: document["graph"]["nodes"][place].update(fields))


def edit_settings(place: int, **fields: Any) -> bytes:
    return changed(lambda document: document["graph"]["nodes"][place]["settings"].update(fields))


def tensors_called(path: str, other: str = "") -> bytes:
    """The small genome's file with the tensors of its last layer at other paths."""
    header, document, body = taken_apart(files.encode(small()))
    names = {"weight": f"{path}.weight", "bias": f"{other or path}.bias"}
    document["graph"]["nodes"][-1]["tensors"] = names
    for role, name in names.items():
        header[name] = header.pop(f"fc.{role}")
    return sealed(header, document, body)


def edit_head(**fields: Any) -> bytes:
    return changed(lambda document: document["graph"]["heads"][0].update(fields))


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "cut short"),
    "seven bytes": (lambda: b"\0" * 7, "cut short"),
    "no header": (lambda: b"\0" * 8, "header: not valid JSON"),
    "pickle": (lambda: b"\x80\x04\x95" + b"\0" * 500, "not a genome, or cut short"),
    "zip bomb": (lambda: b"PK\x03\x04" + b"\0" * 1000, "header"),
    "header of 2^63 bytes": (
        lambda: struct.pack("<Q", 2**63) + b"{}",
        "its header would take 9223372036854775808 bytes",
    ),
    "header of 100 MB, promised": (lambda: struct.pack("<Q", 10**8) + b"{}", "its header would take 100000000 bytes"),
    "header of 100 MB": (lambda: framed(b" " * 10**8), "its header would take 100000000 bytes"),
    "header of 16 MB of nothing": (lambda: framed(b" " * 2**24), "not valid JSON"),
    "header of 16 MB of lists": (lambda: framed(b"[" + b"[]," * 5_000_000 + b"0]"), "too large"),
    "header of 16 MB of numbers": (lambda: framed(b"[" + b"0," * 8_000_000 + b"0]"), "too large"),
    "header of 16 MB of text": (lambda: metadata("a" * (2**24 - 100)), "not valid JSON"),
    "header of 16 MB of emojis": (lambda: metadata("\U0001f600" * (2**22 - 100)), "where it is not all ASCII"),
    "header of 4 MB of emojis": (lambda: metadata("\U0001f600" * (2**20 - 100)), "beyond ASCII"),
    "metadata of 16 MB of lists": (lambda: metadata("[" + "[]," * 5_000_000 + "0]"), "too large"),
    "as many lists as allowed": (lambda: metadata("[" + '{"a":0},' * 119_990 + "0]"), "'format' is missing"),
    "escaped brackets": (
        lambda: framed(b'{"__metadata__":{"hydra_evolve":"[' + b"\\u005b\\u005d," * 1_100_000 + b'0]"}}'),
        "too large",
    ),
    "nested 10^5 deep in the header": (lambda: framed(b"[" * 100_000 + b"]" * 100_000), "nested too deep"),
    "nested 10^5 deep in the metadata": (lambda: metadata('{"a":' * 100_000 + "0" + "}" * 100_000), "nested too deep"),
    "nested 800 deep in the facts": (
        lambda: changed(lambda document: document["about"].update(a=json.loads("[" * 800 + "]" * 800))),
        "about: nested more than 16 deep",
    ),
    "nested 200 deep in a setting": (
        lambda: edit_settings(1, out=json.loads("[" * 200 + "]" * 200)),
        "settings: nested more than 16 deep",
    ),
    "not UTF-8": (lambda: framed(b'{"\xff":0}'), "not valid JSON"),
    "header is a list": (lambda: framed([]), "expected an object"),
    "no metadata": (lambda: with_header(lambda header: header.pop("__metadata__")), "lacks 'hydra_evolve'"),
    "metadata is a list": (lambda: with_header(lambda header: header.update(__metadata__=[])), "lacks 'hydra_evolve'"),
    "more metadata": (lambda: with_header(lambda header: header["__metadata__"].update(a="")), "unknown key 'a'"),
    "document is a number": (lambda: metadata("1"), "'format' is missing"),
    "document is no JSON": (lambda: metadata("{"), "metadata: not valid JSON"),
    "NaN": (lambda: metadata('{"format":NaN}'), "NaN is not allowed"),
    "infinity": (lambda: metadata('{"format":-Infinity}'), "-Infinity is not allowed"),
    "a number beyond all": (
        lambda: metadata('{"about":{"a":1e999},"digest":"' + "0" * 64 + '","format":1,"graph":{}}'),
        "cannot be written as JSON",
    ),
    "a number of 10^5 digits": (lambda: metadata('{"format":' + "1" * 100_000 + "}"), "not valid JSON"),
    "a tensor twice": (lambda: twice(b'"fc.bias":{},'), "names the same key twice"),
    "metadata twice": (lambda: twice(b'"__metadata__":{},'), "names the same key twice"),
    "a key twice in the document": (lambda: metadata('{"format":1,"format":1}'), "names the same key twice"),
    "newer version": (lambda: changed(lambda document: document.update(format=2)), "format version 2 is newer"),
    "version far ahead": (lambda: changed(lambda document: document.update(format=10**4000)), "is newer than"),
    "version 0": (lambda: changed(lambda document: document.update(format=0)), "'format' is missing or no version"),
    "version true": (lambda: changed(lambda document: document.update(format=True)), "'format' is missing"),
    "more in the document": (lambda: changed(lambda document: document.update(more=1)), "unknown key 'more'"),
    "less in the document": (lambda: changed(lambda document: document.pop("about")), "'about' is missing"),
    "spaces": (
        lambda: with_header(
            lambda header: header["__metadata__"].update(
                hydra_evolve=json.dumps(json.loads(header["__metadata__"]["hydra_evolve"]), sort_keys=True)
            )
        ),
        "not in canonical form",
    ),
    "facts are a list": (lambda: changed(lambda document: document.update(about=[])), "expected an object 'about'"),
    "digest is a number": (
        lambda: with_header(
            lambda header: header["__metadata__"].update(
                hydra_evolve=text_of({**json.loads(header["__metadata__"]["hydra_evolve"]), "digest": 1})
            )
        ),
        "'digest' is not 64 hexadecimal digits",
    ),
    "overlap": (lambda: set_offsets(0, 12), "begins at byte"),
    "offsets backwards": (lambda: set_offsets(12, 0), "do not hold"),
    "offsets negative": (lambda: set_offsets(-12, 0), "data_offsets: expected a whole number"),
    "offsets beyond the end": (lambda: set_offsets(10**9, 10**9 + 12), "data_offsets: expected a whole number"),
    "offsets of 64 bits": (lambda: set_offsets(2**64 - 12, 2**64), "data_offsets: expected a whole number"),
    "offsets no integers": (lambda: set_offsets(0.0, True), "data_offsets: expected a whole number"),
    "one offset": (lambda: set_offsets(0), "two data_offsets"),
    "code": (lambda: program("torch.load", "x"), "none of the functions that a network's file may call"),
    "a method that pickles": (lambda: program("method.__reduce__", X), "none of the functions"),
    "a call of any method": (lambda: program("operator.methodcaller", "save"), "none of the functions"),
    "a path of attributes": (lambda: program("torch.nn.functional.relu", X), "none of the functions"),
    "a method that writes": (lambda: program("method.add_", X), "none of the functions"),
    "operand out of range": (lambda: program("torch.abs", {"in": 1}), "refers to the in 1, of which there are 1"),
    "nested operand out of range": (
        lambda: program("torch.cat", [X, {"tuple": [{"in": 7}]}]),
        "refers to the in 7, of which there are 1",
    ),
    "tensor out of range": (lambda: program("torch.add", X, {"tensor": 0}), "refers to the tensor 0, of which there"),
    "a step that refers to itself": (lambda: program("torch.abs", {"step": 0}), "step 0: expected plain values"),
    "negative step": (lambda: program("torch.abs", {"step": -1}), "expected a whole number"),
    "step is a truth value": (lambda: program("torch.abs", {"step": True}), "expected a whole number"),
    "unknown reference": (lambda: program("torch.abs", {"import": "os"}), "step 0: expected plain values"),
    "reference of two keys": (lambda: program("torch.abs", {"in": 0, "step": 0}), "step 0: expected plain values"),
    "unknown dtype": (lambda: program("method.to", X, {"dtype": "object"}), "step 0: expected plain values"),
    "unknown number": (lambda: program("torch.mul", X, {"number": "1e999"}), "step 0: expected plain values"),
    "a name that writes": (lambda: program("torch.abs", X, out=X), "'torch.abs': expected none of the arguments"),
    "a name that writes, in wide letters": (
        lambda: program("torch.abs", X, **{"ｏｕｔ": X}),
        "expected names of arguments",
    ),
    "a keyword of Python": (lambda: program("torch.add", X, **{"import": 1}), "expected names of arguments"),
    "a place that writes": (lambda: program("functional.relu", X, True), "which write in place"),
    "a place that writes when the network trains": (
        lambda: program("functional.elu", X, 1.0, {"training": True}),
        "write in",
    ),
    "an output by its place": (lambda: program("functional.normalize", X, 2, 1, 1e-6, X), "which write in place"),
    "an embedding that shortens its entries": (lambda: program("functional.embedding", X, X, max_norm=1.0), "write in"),
    "statistics that are an operand": (
        lambda: program("functional.batch_norm", X, X, None, None, None, True),
        "expected a tensor of the node for running_mean",
    ),
    "other statistics that are an operand": (
        lambda: program("torch.instance_norm", X, None, None, None, X, True, 0.1, 1e-5, False),
        "expected a tensor of the node for running_var",
    ),
    "a text of 10^10 letters": (lambda: program("operator.mod", "%9999999999d", 5), "expected tensors and numbers"),
    "a text 2^40 times": (lambda: program("operator.mul", "a", 2**40), "expected tensors and numbers"),
    "a list 2^40 times": (lambda: program("operator.mul", [0], 2**40), "expected tensors and numbers"),
    "a power of 10^15 digits": (lambda: program("operator.pow", 10**15, 10**15), "expected a tensor"),
    "a power of the batch size": (lambda: program("operator.pow", {"batch": 2}, 10**15), "expected a tensor"),
    "several tensors 2^40 times": (
        lambda: steps(["torch.split", [X, 1], {}], ["operator.mul", [S, 2**40], {}]),
        "several",
    ),
    "some of several tensors 2^40 times": (
        lambda: steps(
            ["torch.max", [X, 1], {}],
            ["operator.getitem", [S, {"slice": [None, None, None]}], {}],
            ["operator.mul", [2**40, {"step": 1}], {}],
        ),
        "several",
    ),
    "a text that is an index": (lambda: program("operator.getitem", X, ["a"]), "expected a tensor and an index"),
    "an index into a list": (lambda: program("operator.getitem", [X], 0), "expected a tensor and an index"),
    "a size of 2^40": (lambda: program("method.new_zeros", X, [2, 2**40]), "expected no whole number above"),
    "the size of a tensor": (lambda: program("method.size", X), "none of the functions"),
    "a text of a kilobyte": (lambda: program("torch.einsum", "a" * 1000, X), "step 0: expected plain values"),
    "arguments nested deep": (lambda: program("torch.abs", deep(9)), "nested too deep"),
    "arguments nested deeper": (lambda: program("torch.abs", deep(500)), "deep"),
    "arguments nested without end": (lambda: program("torch.abs", deep(100_000)), "deep"),
    "arguments of 400 kB": (lambda: program("torch.abs", [0] * 200_000), "settings of"),
    "no step": (lambda: with_graph([INPUT, opaque([])]), "expected a list of steps"),
    "too many steps": (
        lambda: with_graph([INPUT, opaque([["torch.abs", [X], {}]] * 1001)]),
        "expected a list of steps",
    ),
    "a step of one part": (lambda: with_graph([INPUT, opaque([["torch.abs"]])]), "step 0: expected [function"),
    "another shape than recorded": (
        lambda: with_graph([INPUT, {**opaque([["torch.abs", [X], {}]]), "settings": recorded([[2, 4, 5]])}]),
        "is only known for ((2, 4, 5),)",
    ),
    "pointwise with a tensor": (
        lambda: with_graph([INPUT, node("o", "pointwise", ["x"], program=[["torch.add", [X, {"tensor": 0}], {}]])]),
        "expected all of 1 operands and nothing else",
    ),
    "pointwise with what is not": (
        lambda: with_graph([INPUT, node("o", "pointwise", ["x"], program=[["torch.flip", [X, [0]], {}]])]),
        "expected one step, a function of each element",
    ),
    "unknown type": (lambda: with_header(lambda header: header["fc.bias"].update(dtype="F31")), "unknown dtype"),
    "type is a list": (lambda: with_header(lambda header: header["fc.bias"].update(dtype=["F32"])), "unknown dtype"),
    "type of another width": (lambda: with_header(lambda header: header["fc.bias"].update(dtype="F64")), "do not hold"),
    "type of another sort": (
        lambda: with_header(lambda header: header["norm.num_batches_tracked"].update(dtype="F64")),
        "its node expects integers",
    ),
    "shape of 10^9 axes": (lambda: with_header(lambda header: header["fc.bias"].update(shape=[1] * 1000)), "at most 8"),
    "shape beyond all": (
        lambda: with_header(lambda header: header["fc.bias"].update(shape=[2**60])),
        "shape: expected",
    ),
    "shape negative": (lambda: with_header(lambda header: header["fc.bias"].update(shape=[-3])), "shape: expected"),
    "another shape": (
        lambda: with_header(lambda header: header["fc.bias"].update(shape=[1, 3])),
        "its node expects (3,)",
    ),
    "tensor is a list": (lambda: with_header(lambda header: header.update({"fc.bias": []})), "expected an object"),
    "surplus tensor": (
        lambda: with_header(lambda header: header.update(more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})),
        "tensor 'more' belongs to no node",
    ),
    "missing tensor": (lambda: with_graph([INPUT, node("a", "prelu", ["x"], per_channel=True)]), "names tensors for"),
    "missing bytes": (lambda: files.encode(small())[:-4], "data_offsets: expected a whole number"),
    "surplus bytes": (lambda: files.encode(small()) + b"\0", "bytes, but"),
    "tensor under another name": (
        lambda: with_header(lambda header: header.update({"fc.bia": header.pop("fc.bias")})),
        "tensor 'fc.bia' belongs to no node",
    ),
    "tensor with a newline": (
        lambda: with_header(lambda header: header.update({"fc\nbias": header.pop("fc.bias")})),
        "expected a printable name",
    ),
    "tensor with a lone surrogate": (lambda: twice(b'"\\ud800":{},'), "expected a printable name"),
    "unknown kind": (lambda: edit_node(1, kind="conv4d"), "unknown kind 'conv4d'"),
    "kind is a list": (lambda: edit_node(1, kind=["conv2d"]), "kind: expected a name"),
    "kind of 10^6 letters": (lambda: edit_node(1, kind="a" * 10**6), "kind: expected a printable name"),
    "id is a number": (lambda: edit_node(1, id=1), "id: expected a name"),
    "id with an escape": (lambda: edit_node(1, id="\x1b[2J"), "id: expected a printable name"),
    "id twice": (lambda: edit_node(1, id="input#0"), "an earlier node has the same id"),
    "reads itself": (lambda: with_graph([INPUT, node("a", "relu", ["a"])]), "reads 'a', which is not among"),
    "cycle": (
        lambda: with_graph([INPUT, node("a", "relu", ["b"]), node("b", "relu", ["a"])]),
        "reads 'b', which is not",
    ),
    "reads what is not there": (lambda: edit_node(1, inputs=["y"]), "reads 'y', which is not among"),
    "inputs are a text": (lambda: edit_node(1, inputs="x"), "inputs: expected a list"),
    "too many inputs": (lambda: edit_node(1, inputs=["input#0"] * 2), "has 2 inputs, expected 1"),
    "dead end": (lambda: with_graph([INPUT, node("a", "relu", ["x"]), node("b", "relu", ["x"])]), "leads to no output"),
    "no nodes": (lambda: changed(lambda document: document["graph"].update(nodes=[])), "which is not in the graph"),
    "nodes are an object": (lambda: changed(lambda document: document["graph"].update(nodes={})), "expected a list"),
    "no heads": (lambda: changed(lambda document: document["graph"].update(heads=[])), "expected heads"),
    "head on nothing": (lambda: edit_head(node="y"), "which is not in the graph"),
    "head half there": (lambda: edit_head(training_only=1), "training_only: expected true or false"),
    "10,001 nodes": (lambda: with_graph(chain(10_001)), "at most 10000 are allowed"),
    "10^6 nodes": (lambda: repeated(1_000_000), "its header would take"),
    "1.5 · 10^4 nodes": (lambda: repeated(15_000), "at most 10000 are allowed"),
    "layer of 10^9 channels": (lambda: huge_layer(10**9), "expected a whole number from"),
    "layer of 10^7 channels": (lambda: huge_layer(10**7), "data_offsets: expected"),
    "sizes that double 9,000 times": (lambda: with_graph(chain(9_000, "concat", 2)), "axis"),
    "sizes of 4,000 digits": (lambda: with_graph(chain(2_000, "concat", 100)), "axis"),
    "sums of 10^4 operands": (lambda: with_graph(chain(20, "add", 10_000)), "at most 1000 are allowed"),
    "as many operands as allowed": (lambda: with_graph([*chain(240, "add", 1000), INPUT]), "has the same id"),
    "facts without end": (lambda: facts({str(place): 0 for place in range(900_000)}), "too large"),
    "more facts than allowed": (lambda: facts([[place] for place in range(30_000)]), "about: more than 50000 values"),
    "more tensors than allowed": (
        lambda: with_header(lambda header: header.update({f"a{place}": {} for place in range(10_000)})),
        "at most 10000 are allowed",
    ),
    "as many arguments as allowed": (
        lambda: with_graph(
            [INPUT, *(named(f"o{place}", opaque([["torch.cat", [[0] * 29_999 + [X]], {}]])) for place in range(8))]
        ),
        "leads to no output",
    ),
    "setting out of range": (lambda: edit_settings(1, groups=0), "groups=0: expected a whole number from 1"),
    "setting of another type": (lambda: edit_settings(1, bias="no"), "bias='no': expected true or false"),
    "setting not canonical": (lambda: edit_settings(1, kernel=3), "in their canonical form"),
    "setting missing": (
        lambda: changed(lambda d: d["graph"]["nodes"][1]["settings"].pop("bias")),
        "in their canonical form",
    ),
    "setting unknown": (lambda: edit_settings(1, knob=3), "unknown setting of 'conv2d'"),
    "settings of a megabyte": (lambda: edit_settings(1, kernel="a" * 10**6), "settings of"),
    "settings are a list": (lambda: edit_node(1, settings=[]), "settings: expected an object"),
    "tensors are a list": (lambda: edit_node(1, tensors=[]), "tensors: expected an object"),
    "tensors without a role": (lambda: edit_node(1, tensors={}), "names tensors for []"),
    "code in the name of a tensor": (
        lambda: tensors_called('b",print("X"))or(getattr)(self,"b'),
        "cannot stand in a module",
    ),
    "a tensor called as a method": (lambda: tensors_called("forward"), "'forward' is taken there"),
    "a tensor without a name": (lambda: tensors_called("."), "cannot stand in a module"),
    "a tensor within a tensor": (lambda: tensors_called("fc", "fc.weight"), "'fc.weight' is a tensor, and no place"),
    "code in the name of a head": (lambda: edit_head(name='x""";print("X");"""'), "a head has the name"),
    "code in the name of a node": (lambda: with_graph([INPUT, node('a");print("X', "relu", ["x"])]), "a node has the"),
    "an input called as what the code calls": (lambda: edit_settings(0, name="getattr"), "Python and torch leave free"),
    "an input that Python calls otherwise": (lambda: edit_settings(0, name="ｏｕｔ"), "Python and torch leave free"),
    "shared tensor of two shapes": (
        lambda: edit_node(6, tensors={"weight": "one.weight", "bias": "fc.bias"}),
        "one.weight",
    ),
    "born before time": (lambda: edit_node(1, born=-1), "born: expected a whole number"),
    "born in fractions": (lambda: edit_node(1, born=0.0), "born: expected a whole number"),
    "counter behind": (
        lambda: changed(lambda document: document["graph"].update(counter=3)),
        "is not below the counter, 3",
    ),
    "counter is a text": (lambda: changed(lambda document: document["graph"].update(counter="9")), "counter: expected"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str) -> None:
    make, message = HOSTILE[name]
    with pytest.raises(FormatError) as caught:
        files.decode(make(), "evil.safetensors")
    text = str(caught.value)
    assert text.startswith("evil.safetensors: ")
    assert message in text
    assert "\n" not in text
    assert len(text) < 1500


PROBE = """
import sys, time
from pathlib import Path
from graphs import files, zoo
from graphs.errors import FormatError

def megabytes(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(what))

files.decode(files.encode(zoo.create("convnet")))
Path("/proc/self/clear_refs").write_text("5")  # The peak starts again from here.
before, slowest = megabytes("VmRSS"), 0.0
for path in Path(sys.argv[1]).iterdir():
    start = time.process_time()
    try:
        files.load(path)
    except FormatError as error:
        assert str(path) in str(error)
    else:
        raise SystemExit(f"{path} was not refused")
    slowest = max(slowest, time.process_time() - start)
print(megabytes("VmHWM") - before, slowest)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
def test_hostile_files_cost_little(tmp_path: Path) -> None:
    """All of them together take less than 200 MB, and each is done with at once, whatever it promises."""
    for number, (make, _) in enumerate(HOSTILE.values()):
        (tmp_path / f"{number}.safetensors").write_bytes(make())
    done = subprocess.run([sys.executable, "-c", PROBE, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    megabytes, seconds = done.stdout.split()
    assert int(megabytes) < 200
    assert float(seconds) < 10


JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.sampled_from(
        ["input#0", "one#1", "relu", "add", "weight", "one.weight", "fc.weight", "logits", 2**24, 1, 3, ""]
    )
    | st.lists(st.integers(-1, 9), max_size=4)
    | st.dictionaries(st.sampled_from(["weight", "bias", "out", "kernel", "p", "name"]), st.integers(-1, 9), max_size=3)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all that a document holds."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


DOCUMENT = taken_apart(files.encode(small()))


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_junk_anywhere_in_a_document_is_refused_or_meant(data: st.DataObject) -> None:
    """Values replaced or added, with the right digest: an error of ours, or a genome that can be written again."""
    header, document, body = copy.deepcopy(DOCUMENT)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)[1:]))
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        if isinstance(parent[path[-1]], list) and data.draw(st.booleans()):
            parent[path[-1]].append(data.draw(JUNK))
        else:
            parent[path[-1]] = data.draw(JUNK)
    forged = sealed(header, document, body)
    try:
        genome = files.decode(forged, "evil")
    except FormatError as error:
        assert str(error).startswith("evil: ")
        assert "\n" not in str(error)
    else:
        assert files.decode(files.encode(genome)).digest == genome.digest


class Programs(torch.nn.Module):
    """Much that a program can be: indices, several results, numbers without end, methods, operators, the batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.cell, self.out = torch.nn.Linear(6, 8), torch.nn.GRUCell(8, 8), torch.nn.Linear(8, 3)
        self.register_buffer("mask", torch.ones(8).bool())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x).masked_fill(~self.mask, float("-inf"))
        x = torch.topk(self.cell(x.relu()).exp(), 8)[0].cumsum(-1) * 1.5
        x = abs(2.0 ** x.flip(1)[:, [3, 1, 0, 2, 4, 5, 7, 6]]) - torch.einsum("ni,nj->ni", x, x)
        x = torch.nn.functional.dropout(
            x.reshape(x.shape[0], 2, 4).clamp(-1, 1).sum(-1).repeat(1, 4), 0.5, self.training
        )
        found: torch.Tensor = self.out(torch.lerp(x, x.sort(1)[0], 0.25))
        return found


REPLACING: list[Any] = [
    *(None, True, 0, -1, 1, 7, 2**31, 1.5, -2.5, "", "a", "\n", "é", [], {}, [[]], [0] * 10, [{"in": 0}]),
    *({"in": 0}, {"in": 99}, {"tensor": 0}, {"step": 0}, {"batch": 1}, {"batch": 2}, {"number": "nan"}),
    *({"dtype": "int64"}, {"training": True}, {"ellipsis": True}, {"slice": [None, -1, 0]}, {"tuple": [{"in": 0}, 1]}),
    *("operator.pow", "operator.getitem", "method.sum", "method.add_", "torch.topk", "functional.pad", "torch.stack"),
]


def test_whatever_programs_a_file_holds_it_is_refused_or_becomes_a_module() -> None:
    """Values in the nodes replaced, removed or doubled, with the right digest; and running it fails in our words."""
    torch.manual_seed(0)
    genome = graphs.from_torch(Programs(), torch.randn(3, 6))
    header, original, body = taken_apart(files.encode(genome))
    rng, made, refused = random.Random(0), 0, 0  # noqa: S311
    inside = [place for place in places(original["graph"]["nodes"]) if "settings" in place[:-1]]
    for _ in range(400):
        document = copy.deepcopy(original)
        path = rng.choice(inside)
        parent = document["graph"]["nodes"]
        for key in path[:-1]:
            parent = parent[key]
        how = rng.choice(["replace", "replace", "remove", "double"])
        if how == "remove":
            del parent[path[-1]]
        elif how == "double" and isinstance(parent, list):
            parent.insert(path[-1], copy.deepcopy(parent[path[-1]]))
        else:
            parent[path[-1]] = rng.choice(REPLACING)
        try:
            found = files.decode(sealed(header, document, body), "evil")
            module = graphs.to_torch(found)
        except EvolutionError as error:
            refused += 1
            assert "\n" not in str(error), path
            continue
        made += 1
        compile(source(found), "model.py", "exec")
        try:
            execute(found.graph, found.weights, {"x": torch.ones(2, 6)}, training=True)
        except EvolutionError as error:
            assert "\n" not in str(error), path
        assert isinstance(module, torch.nn.Module)
    assert refused > 200 and made > 30, (refused, made)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_junk_anywhere_in_a_header_is_refused(data: st.DataObject) -> None:
    header, document, body = copy.deepcopy(DOCUMENT)
    header["__metadata__"] = {"hydra_evolve": text_of(document)}
    path = data.draw(st.sampled_from(places(header)[1:]))
    parent = header
    for key in path[:-1]:
        parent = parent[key]
    junk = data.draw(JUNK)
    if type(junk) is type(parent[path[-1]]) and junk == parent[path[-1]]:
        return
    parent[path[-1]] = junk
    with pytest.raises(FormatError, match=r"^evil: "):
        files.decode(framed(header, body), "evil")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300), st.booleans())
def test_noise_is_refused(noise: bytes, as_header: bool) -> None:
    with pytest.raises(FormatError):
        files.decode(framed(noise) if as_header else noise)


# What cannot be written


def test_what_a_file_cannot_hold_is_refused_when_writing(tmp_path: Path) -> None:
    genome = small()
    graph = genome.graph
    deep: list[Any] = []
    for _ in range(40):
        deep = [deep]
    too_many = Draft()
    x = too_many.input((2,))
    for _ in range(10_000):
        x = too_many.add("relu", x)
    too_many.head(x)
    wide = Draft()
    wide.head(wide.add("add", [wide.input((2,))] * 1001))
    many = Draft()
    x = many.input((2,))
    for _ in range(5005):
        x = many.add("linear", x, out=2)
    many.head(x)
    held = many.finish()
    wrong = [
        (Genome(graph, genome.weights, {"a": float("nan")}), "cannot be written as JSON"),
        (Genome(graph, genome.weights, {"a": object()}), "a value of type object"),
        (Genome(graph, genome.weights, {"a": deep}), "nested more than 16 deep"),
        (Genome(graph, genome.weights, {"a": "b" * 2**24}), "the most that is read again"),
        (
            Genome(graph, {**genome.weights, "fc.bias": torch.zeros(3, dtype=torch.complex64)}),
            "has type torch.complex64",
        ),
        (Genome(too_many.finish(), {}), "at most 10000 can be written"),
        (Genome(wide.finish(), {}), "has 1001 inputs; at most 1000 can be written"),
        (Genome(graph, genome.weights, {"a": [0] * 50_001}), "about: more than 50000 values"),
        (Genome(graph, genome.weights, {"a": "[" * 120_000}), "the structure and the facts: too large"),
        (Genome(held, initial_weights(held, 0)), "the network has 10010 tensors; at most 10000 can be written"),
    ]
    for bad, message in wrong:
        with pytest.raises((GraphError, FormatError), match=message):
            files.save(bad, tmp_path / "net.safetensors")
    assert os.listdir(tmp_path) == []


# Files that cannot be opened


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, message in [
        (tmp_path / "none.safetensors", "no such file or directory"),
        (folder, "it is not a file"),
        (pipe, "it is not a file"),
        (Path("/dev/zero"), "it is not a file"),
        (loop, "too many levels of symbolic links"),
        (Path("nul\0l"), "null byte"),
        (tmp_path / ("a" * 300), "file name too long"),
    ]:
        with pytest.raises(files.Unreadable, match=message) as caught:
            files.load(path)
        assert str(caught.value).startswith("cannot read ")
        assert "\n" not in str(caught.value)
        assert "\0" not in str(caught.value)
        assert isinstance(caught.value, FormatError | OSError)
        assert caught.value.exit_code == 2


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.safetensors"
    files.save(small(), path)

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(
        files.Unreadable, match=r"cannot read .*: permission denied; check the path and its permissions"
    ):
        files.load(path)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="a folder that takes no files, whoever asks")
def test_a_folder_that_takes_no_files_is_named() -> None:
    with pytest.raises(EvolutionError, match="the folder /proc takes no new files"):
        files.save(small(), "/proc/net.safetensors")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    files.save(small(), path)
    before = path.read_bytes()
    with pytest.raises(EvolutionError):
        files.save(Genome(small().graph, small().weights, {"a": float("inf")}), path)
    assert path.read_bytes() == before
    with pytest.raises(EvolutionError, match="cannot write"):
        files.save(small(), tmp_path / "nowhere" / "net.safetensors")


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_constants_of_every_integer_type_come_back(dtype: torch.dtype) -> None:
    draft = Draft()
    positions = draft.add("constant", (), shape=(4,), view=(4,), dtype="integer")
    program = [["torch.add", [{"in": 0}, {"in": 1}], {}]]
    total = draft.add("opaque", [draft.input((4,)), positions], program=program, reads=[(4,), (4,)], shape=(4,))
    draft.head(total)
    graph = draft.finish()
    genome = Genome(graph, {"constant_0.value": torch.tensor([0, 1, 1, 0], dtype=dtype)})
    again = files.decode(files.encode(genome))
    assert again.weights["constant_0.value"].dtype == dtype
    assert torch.equal(again.weights["constant_0.value"], genome.weights["constant_0.value"])
    assert again.graph == graph and again.digest == genome.digest
    with pytest.raises(FormatError, match="its node expects integers"):
        files.decode(files.encode(Genome(graph, {"constant_0.value": torch.zeros(4)})))
