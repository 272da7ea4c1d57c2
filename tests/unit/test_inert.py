"""Pickles that want to run something are refused by name, and do not run it."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from betz.core.errors import CheckpointError
from betz.model import inert
from betz.model.archive import Archive
from betz.model.inert import read_pickle
from betz.model.inert_values import Name, Record, TensorRef, to_json
from tests.unit.pickle_files import (
    BUILD,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    END,
    MARK,
    NEWOBJ,
    NEWOBJ_EX,
    NONE,
    PERSID,
    PROTO,
    REDUCE,
    TUPLE1,
    call,
    checkpoint,
    mapping,
    name,
    number,
    several,
    storage,
    tensor,
    text,
    write,
)

RECORD = name("omegaconf.nodes.AnyNode") + EMPTY_TUPLE + NEWOBJ
RUN = "open('{marker}', 'w').close()"


def armed(marker: Path) -> dict[str, bytes]:
    """Pickles that make the marker file when Python's own unpickler reads them."""
    code, touch = text(RUN.format(marker=marker)), text(f"touch {marker}")
    path = text(str(marker))
    module = call(name("importlib.import_module"), text("os"))
    system = call(name("builtins.getattr"), module, text("system"))
    partial = call(name("functools.partial"), name("os.system"), touch)
    return {
        "os.system": call(name("os.system"), touch),
        "posix.system": call(name("posix.system"), touch),
        "builtins.exec": call(name("builtins.exec"), code),
        "__builtin__.eval": call(name("__builtin__.eval"), code),
        "builtins.getattr chain": call(system, touch),
        "functools.partial": call(partial),
        "subprocess.Popen": call(name("subprocess.check_call"), several(text("touch"), path)),
        "os.system in a list": EMPTY_LIST + call(name("os.system"), touch) + b"a",
        "INST": MARK + touch + b"ios\nsystem\n",
        "OBJ": MARK + name("os.system") + touch + b"o",
        "dotted name": text("os") + text("path.os.system") + b"\x93" + touch + TUPLE1 + REDUCE,
        "a stand-in's module": text("pathlib") + text("os.system") + b"\x93" + touch + TUPLE1 + REDUCE,
        "a path that writes": call(text("pathlib") + text("Path.touch") + b"\x93", call(name("pathlib.Path"), path)),
        "state that runs": name("pathlib.PurePath") + NONE
        + several(NONE, mapping({"x": call(name("os.system"), touch)})) + BUILD + b"0",
    }  # fmt: skip


ARMED = tuple(armed(Path("x")))


@pytest.mark.parametrize("which", ARMED)
def test_a_pickle_that_runs_something_is_refused_and_does_not_run(which: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    protocol = b"\x80\x02" if "__builtin__" in which else b"\x80\x04"
    payload = armed(marker)[which]
    if which != "state that runs":
        pickle.loads(protocol + payload + END)
    else:
        with pytest.raises(AttributeError):
            pickle.loads(protocol + payload + END)
    assert marker.exists(), "this pickle is harmless, so the test would show nothing"
    marker.unlink()
    for content in (protocol + payload + END, checkpoint(payload)):
        path = write(tmp_path / "evil.ckpt", content)
        with pytest.raises(CheckpointError, match=r"its pickle (names|uses).*nothing in the file was run"):
            Archive(path)
        with contextlib.suppress(CheckpointError):
            Archive(path, tolerate=True)
    assert not marker.exists()


@pytest.mark.parametrize(
    "function",
    [
        "torch.load",
        "torch.storage._load_from_bytes",
        "torch._utils._rebuild_device_tensor_from_numpy",
        "torch.nn.Module",
        "torch.hub.load",
        "numpy.core.multiarray._reconstruct",
        "builtins.open",
        "builtins.__import__",
        "nt.system",
        "copyreg._reconstructor",
        "webbrowser.open",
        "betz.model.inert.read_pickle",
        "omegaconf_evil.run",
        "collections.UserDict",
    ],
)
def test_names_that_no_checkpoint_needs_are_refused(function: str) -> None:
    with pytest.raises(CheckpointError, match=f"its pickle names {function}, which no NDT3 checkpoint needs"):
        read_pickle(PROTO + name(function) + END, where="x")
    listed = read_pickle(PROTO + name(function) + END, where="x", tolerate=True)
    assert listed.refused == (function,)


ABUSED: dict[str, tuple[bytes, str]] = {
    "an instance is called": (RECORD + EMPTY_TUPLE + REDUCE, "calls a omegaconf.nodes.AnyNode, which is no class"),
    "a text is called": (text("os.system") + EMPTY_TUPLE + REDUCE, "calls a str, which is no class"),
    "a dictionary is called": (EMPTY_DICT + EMPTY_TUPLE + REDUCE, "calls a dict, which is no class"),
    "attributes of a class": (name("typing.Any") + mapping({"x": NONE}) + BUILD, "sets the attributes of a typing.Any"),
    "attributes of a function": (
        name("torch._utils._rebuild_tensor_v2") + several(NONE, mapping({"__code__": NONE})) + BUILD,
        "sets the attributes of a torch._utils._rebuild_tensor_v2",
    ),
    "attributes of a tensor": (tensor() + mapping({"__class__": NONE}) + BUILD, "sets the attributes of a TensorRef"),
    "attributes of a list": (EMPTY_LIST + EMPTY_DICT + BUILD, "sets the attributes of a list"),
    "state twice": (RECORD + EMPTY_DICT + BUILD + EMPTY_DICT + BUILD, "sets the state of a .*AnyNode twice"),
    "a type is called": (call(name("builtins.str"), text("x")), "calls builtins.str, which no NDT3"),
    "a storage class is called": (call(name("torch.FloatStorage"), number(9)), "calls torch.FloatStorage, which no"),
    "a new function": (name("torch._utils._rebuild_tensor_v2") + EMPTY_TUPLE + NEWOBJ, "calls torch._utils._rebuild"),
    "a new function with keywords": (
        name("collections.OrderedDict") + EMPTY_TUPLE + EMPTY_DICT + NEWOBJ_EX,
        "calls collections.OrderedDict, which no",
    ),
    "keywords that are none": (
        name("pathlib.Path") + EMPTY_TUPLE + EMPTY_LIST + NEWOBJ_EX,
        "calls pathlib.Path without a list of arguments",
    ),
    "arguments that are none": (name("pathlib.Path") + NONE + REDUCE, "calls pathlib.Path without a list of arguments"),
    "entries of an instance": (RECORD + text("a") + NONE + b"s", "sets an entry of a omegaconf.nodes.AnyNode"),
    "appending to an instance": (RECORD + NONE + b"a", "appends to a omegaconf.nodes.AnyNode"),
    "a dictionary from a call": (call(name("collections.OrderedDict"), NONE), "a dictionary out of something else"),
    "a dictionary that calls": (call(name("collections.defaultdict"), NONE), "missing entries are no empty class"),
    "a set from a text": (call(name("builtins.set"), text("ab")), "a set out of something else"),
    "a chain of attributes": (text("torch") + text("serialization.os") + b"\x93", "a chain of attributes, or no name"),
    "a name that is none": (text("torch") + NONE + b"\x93", "by values that are no text"),
    "a parameter that is none": (
        call(name("torch._utils._rebuild_parameter"), NONE, b"\x88", EMPTY_DICT),
        "a parameter that is no tensor",
    ),
    "extension codes": (b"\x82\x01", "uses EXT1, which no checkpoint needs"),
    "a persistent id as text": (b"Pos.system\n", "uses PERSID"),
    "a duplicate": (NONE + b"2", "uses DUP"),
    "persistent id of a number": (number(1) + PERSID, "a persistent id that is no storage"),
    "persistent id of a class": (name("typing.Any") + PERSID, "a persistent id that is no storage"),
    "persistent id, short": (several(text("storage")) + PERSID, "a persistent id that is no storage"),
    "storage of a function": (storage(kind="torch._utils._rebuild_parameter"), "the unknown type torch._utils"),
    "storage of a text": (
        several(text("storage"), text("FloatStorage"), text("0"), text("cpu"), number(4)) + PERSID,
        "the unknown type str",
    ),
    "storage of a cycle": (
        several(text("storage"), EMPTY_LIST + b"q\x00h\x00a", text("0"), text("cpu"), number(4)) + PERSID,
        "the unknown type list",
    ),
    "storage elsewhere": (storage(key="../0"), "without a proper key and size"),
    "storage of negative size": (storage(numel=-4), "without a proper key and size"),
    "storage of a true size": (
        several(text("storage"), name("torch.FloatStorage"), text("0"), text("cpu"), b"\x88") + PERSID,
        "without a proper key and size",
    ),
    "tensor without storage": (tensor(of=text("0")), "a tensor with the wrong arguments"),
    "tensor beyond its storage": (tensor((2, 3), (3, 1)), r"a tensor \[2, 3\] that reaches beyond its 4 elements"),
    "tensor before its storage": (tensor(offset=-1), "a tensor with the wrong arguments"),
    "tensor of 20 GB in 4 elements": (tensor((5_000_000_000,), (0,)), "reaches beyond its 4 elements"),
    "tensor of negative stride": (tensor((2, 2), (-1, 1)), "a tensor without a proper shape"),
    "tensor of few strides": (tensor((2, 2), (1,)), r"is damaged \(ValueError: zip"),
    "tensor with hooks": (tensor(hooks=mapping({"0": name("typing.Any")})), "a tensor with hooks"),
}


@pytest.mark.parametrize("which", ABUSED)
def test_what_an_honest_program_never_writes_is_refused(which: str) -> None:
    content, message = ABUSED[which]
    with pytest.raises(CheckpointError, match=message):
        read_pickle(b"\x80\x04" + content + END, where="x")


def test_refused_names_stay_inert_when_they_are_tolerated() -> None:
    call_it = call(name("os.system"), text("exit 1"))
    found = read_pickle(PROTO + call_it + END, where="x", tolerate=True).value
    assert isinstance(found, Record)
    assert (str(found.of), found.args) == ("os.system", ("exit 1",))
    with pytest.raises(CheckpointError, match=r"calls a os\.system, which is no class"):
        read_pickle(PROTO + call_it + EMPTY_TUPLE + REDUCE + END, where="x", tolerate=True)


DAMAGED: dict[str, bytes] = {
    "nothing": b"",
    "no end": PROTO + NONE,
    "an empty stack": PROTO + END,
    "two values": PROTO + NONE + NONE + END,
    "an open mark": PROTO + MARK + NONE + END,
    "no mark": PROTO + b"t" + END,
    "an unknown opcode": PROTO + b"\xff" + END,
    "a memo of nothing": PROTO + b"h\x07" + END,
    "a key without value": PROTO + EMPTY_DICT + MARK + NONE + b"u" + END,
    "bytes that are not there": PROTO + b"\x8e" + struct.pack("<Q", 1 << 60) + END,
    "a text that is not there": PROTO + b"X" + struct.pack("<I", 1 << 31) + END,
    "a text that is no text": PROTO + b"X" + struct.pack("<I", 1) + b"\xff" + END,
    "digits that are none": PROTO + b"I12x\n" + END,
    "too many digits": PROTO + b"L" + b"9" * 9000 + b"L\n" + END,
}


@pytest.mark.parametrize("which", DAMAGED)
def test_a_damaged_pickle_is_said_to_be_damaged(which: str) -> None:
    with pytest.raises(CheckpointError, match=r"its pickle is damaged \(.*get the file from its origin again"):
        read_pickle(DAMAGED[which], where="x")


def test_a_cut_pickle_never_passes_and_never_crashes() -> None:
    content = checkpoint(RECORD + mapping({"a": tensor(), "b": EMPTY_LIST}) + BUILD)
    for end in range(len(content)):
        with pytest.raises(CheckpointError, match="its pickle"):
            read_pickle(content[:end], where="x")


def test_flipped_bits_give_values_or_our_own_error() -> None:
    content = checkpoint(RECORD + mapping({"a": tensor(), "b": EMPTY_LIST}) + BUILD)
    refused = 0
    for place in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            try:
                read_pickle(bytes(flipped), where="x")
            except CheckpointError:
                refused += 1
    assert refused > len(content)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_python_objects_come_back_as_what_they_are(protocol: int) -> None:
    value: dict[Any, Any] = {"a": [1, -2, 2.5, True, None, ("x", 1 << 70)], 3: {"b": {}}, "s": {1, 2}, (1, "t"): ()}
    if protocol >= 3:
        value["b"] = b"bytes"
    if protocol >= 4:
        value["f"] = frozenset({"z"})
    assert read_pickle(pickle.dumps(value, protocol=protocol), where="x").value == value


# ---- size


def test_nesting_without_end_is_refused_quickly() -> None:
    laughs = EMPTY_LIST + b"q\x00"
    for level in range(1, 60):  # each list holds the one before it ten times
        laughs += EMPTY_LIST + b"q" + bytes([level]) + MARK + (b"h" + bytes([level - 1])) * 10 + b"e"
    content = PROTO + MARK + laughs + TUPLE1[:0] + b"t" + END
    start = time.perf_counter()
    value = read_pickle(content, where="x").value
    with pytest.raises(CheckpointError, match="nested without end"):
        to_json(value, where="x")
    circle = read_pickle(PROTO + EMPTY_LIST + b"q\x00h\x00a" + END, where="x").value
    assert circle[0] is circle
    with pytest.raises(CheckpointError, match="nested without end"):
        to_json(circle)
    assert time.perf_counter() - start < 5


def test_deep_tuples_as_keys_are_refused_before_they_are_hashed() -> None:
    deep = EMPTY_TUPLE + TUPLE1 * 200_000
    for use in (EMPTY_DICT + deep + NONE + b"s", b"\x8f" + MARK + deep + b"\x90", MARK + deep + b"\x91"):
        with pytest.raises(CheckpointError, match="has a tuple as a key"):
            read_pickle(b"\x80\x04" + use + END, where="x")
    with pytest.raises(CheckpointError, match="has a list as a key"):
        read_pickle(PROTO + EMPTY_DICT + EMPTY_LIST + NONE + b"s" + END, where="x")


def test_too_large_a_pickle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="its pickle has 1,001 bytes; more than 1,000 are not read"):
        read_pickle(bytes(1001), where="x")
    monkeypatch.setattr(inert, "MAX_OPCODES", 10)
    with pytest.raises(CheckpointError, match="more than 10 steps"):
        read_pickle(PROTO + (NONE + b"0") * 20 + NONE + END, where="x")


# ---- the archive


def saved(value: Any, path: Path, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def test_tensors_are_those_that_torch_saved(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    dtypes = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
              torch.uint8, torch.bool)  # fmt: skip
    value: dict[str, torch.Tensor] = {"base": base, "turned": base.T, "part": base[1:3, ::2], "one": base[2, 3]}
    value |= {str(t): base.to(t) for t in dtypes}
    value |= {"none": torch.empty(0, 3), "wide": base[:1].expand(4, 6), "parameter": torch.nn.Parameter(base * 2)}
    value["alias"] = value["base"]
    with Archive(saved(value, tmp_path / "x.pt")) as archive:
        for key, ref in archive.plain.value.items():
            assert isinstance(ref, TensorRef)
            found = archive.tensor(ref, name=key)
            assert found.dtype == value[key].dtype
            assert found.is_contiguous()
            assert torch.equal(found, value[key])
            found.zero_()  # of memory of its own


def test_an_expanded_tensor_is_no_larger_than_its_storage(tmp_path: Path) -> None:
    torch.save(torch.ones(1).expand(10**6), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="reaches beyond its 1 elements"):
        Archive(tmp_path / "x.pt")


def test_the_old_format_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = saved({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"pickle of the old kind.*reading it runs it.*torch 1\.6 or later"):
        Archive(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "this file is empty"),
        (b"PK\x03\x04" + bytes(50), "truncated or damaged"),
        (b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.", "pickle of the old kind"),
        (bytes(257) + b"ustar" + bytes(300), "pickle of the old kind"),
        (b"version https://git-lfs.github.com/spec/v1\n", "this is no checkpoint"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        Archive(tmp_path / "x.ckpt")


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file.*give the path of a \.ckpt file"):
        Archive(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Archive(tmp_path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    whole = saved({"a": torch.arange(64.0)}, tmp_path / "x.pt").read_bytes()
    for size in range(0, len(whole) - 1, 37):
        (tmp_path / "cut.pt").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match=r"truncated or damaged|is empty|no checkpoint"):
            Archive(tmp_path / "cut.pt")


def test_a_flipped_bit_in_a_tensor_is_noticed(tmp_path: Path) -> None:
    value = torch.arange(64.0)
    whole = bytearray(saved({"a": value}, tmp_path / "x.pt").read_bytes())
    whole[whole.index(value.numpy().tobytes()) + 100] ^= 4
    (tmp_path / "x.pt").write_bytes(whole)
    with Archive(tmp_path / "x.pt") as archive, pytest.raises(CheckpointError, match=r"data/0 is damaged \(Bad CRC"):
        archive.tensor(archive.plain.value["a"], name="a")


def test_zip_bombs_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.ckpt", bytes(50_000_000), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=r"'x/data\.pkl' is compressed; torch never writes that"):
        Archive(path)


def test_records_that_claim_more_than_the_file_are_refused(tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "x.ckpt", PROTO + NONE + END, records={"data/0": bytes(16)}).read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # of data/0 in the table of contents
    content[entry + 20 : entry + 28] = struct.pack("<II", 4_000_000_000, 4_000_000_000)
    (tmp_path / "x.ckpt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"its records claim 4,000,000,\d+ bytes, the file has \d{3}\."):
        Archive(tmp_path / "x.ckpt")


@pytest.mark.parametrize("numel", [5_000_000_000, 3, 5])
def test_a_storage_must_be_as_large_as_its_record(numel: int, tmp_path: Path) -> None:
    pickled = PROTO + tensor((2,), (1,), of=storage(numel=numel)) + END
    needs = rf"tensor 'w' needs {4 * numel:,} bytes, but its record"
    write(tmp_path / "x.ckpt", pickled, records={"data/0": bytes(16)})
    with Archive(tmp_path / "x.ckpt") as archive, pytest.raises(CheckpointError, match=f"{needs} has 16 bytes"):
        archive.tensor(archive.plain.value, name="w")
    write(tmp_path / "y.ckpt", pickled)
    with Archive(tmp_path / "y.ckpt") as archive, pytest.raises(CheckpointError, match=f"{needs} is missing"):
        archive.tensor(archive.plain.value, name="w")


def test_a_pickle_inside_a_record_is_only_bytes(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as file:
        file.writestr("x/data.pkl", PROTO + armed(marker)["os.system"] + END)
    raw = inner.getvalue() + bytes(-len(inner.getvalue()) % 4)
    of = storage(numel=len(raw) // 4)
    path = write(tmp_path / "x.ckpt", PROTO + tensor((2,), (1,), of=of) + END, records={"data/0": raw})
    with Archive(path) as archive:
        assert archive.tensor(archive.plain.value).shape == (2,)
    assert not marker.exists()


def test_other_archives_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ckpt", PROTO + NONE + END, records={"constants.pkl": b"", "code/x.py": b""})
    with pytest.raises(CheckpointError, match=r"TorchScript program.*give a Lightning"):
        Archive(path)
    with pytest.raises(CheckpointError, match="big-endian machine"):
        Archive(write(tmp_path / "b.ckpt", PROTO + NONE + END, records={"byteorder": b"big"}))
    with zipfile.ZipFile(tmp_path / "c.ckpt", "w") as file:
        file.writestr("a/data.pkl", PROTO + NONE + END)
        file.writestr("b/data.pkl", PROTO + NONE + END)
    with pytest.raises(CheckpointError, match="it has 2 pickles where a checkpoint has one"):
        Archive(tmp_path / "c.ckpt")
    with zipfile.ZipFile(tmp_path / "d.ckpt", "w") as file:
        file.writestr("words.txt", "hello")
    with pytest.raises(CheckpointError, match="it has 0 pickles"):
        Archive(tmp_path / "d.ckpt")
    with zipfile.ZipFile(tmp_path / "e.ckpt", "w") as file:
        file.writestr("a/data.pkl", PROTO + NONE + END)
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a/data.pkl", PROTO + name("os.system") + END)
    with pytest.raises(CheckpointError, match="two of its records have the same name"):
        Archive(tmp_path / "e.ckpt")


def test_settings_become_json_values() -> None:
    node = Record(
        Name("omegaconf.nodes", "AnyNode"), state={"_val": Record(Name("context_general_bci", "Task"), ("a",))}
    )
    config = Record(
        Name("omegaconf.dictconfig", "DictConfig"), state={"_content": {"x": node, "y": None}, "_parent": 1}
    )
    path = Record(Name("pathlib", "PosixPath"), ("/", "tmp", "x"))
    odd = {"c": config, "p": path, "t": Name("typing", "Any"), "n": float("nan"), "i": 1 << 70, "s": {2, 1}, 3: (True,)}
    assert to_json(odd) == {
        "c": {"x": "a", "y": None},
        "p": "/tmp/x",
        "t": "typing.Any",
        "n": "float out of range",
        "i": "int out of range",
        "s": [1, 2],
        "3": [True],
    }
