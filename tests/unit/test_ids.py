"""Task ids: UUIDv7 with a keyed tag."""

import os
import time
import uuid

import pytest

from apps.contract import ids as module
from apps.contract.ids import TaskIds, created_at_s, random_bytes, uuid7

IDS = TaskIds(b"a secret of sixteen")


def test_id_is_a_uuid7_with_a_tag() -> None:
    plain = uuid.UUID(IDS.new("a")[:36])
    assert (plain.version, plain.variant) == (7, uuid.RFC_4122)


def test_uuid_equals_the_example_of_the_rfc() -> None:
    """RFC 9562, appendix A.6."""
    random = bytes.fromhex("7cc398c4dc0c0c07398f")
    assert module._uuid7(0x017F22E279B0, random) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"  # noqa: SLF001
    assert module._uuid7(0, bytes(10)) == "00000000-0000-7000-8000-000000000000"  # noqa: SLF001
    assert module._uuid7(0, b"\xff" * 10) == "00000000-0000-7fff-bfff-ffffffffffff"  # noqa: SLF001


def test_forked_child_does_not_reuse_random_bytes_of_its_parent() -> None:
    random_bytes()
    read, write = os.pipe()
    if not (pid := os.fork()):
        os.write(write, random_bytes())
        os._exit(0)
    os.waitpid(pid, 0)
    childs = os.read(read, 16)
    assert len(childs) == 16
    assert childs not in {random_bytes() for _ in range(2 * module.STOCK)}
    os.close(read)
    os.close(write)


def test_id_contains_its_creation_time() -> None:
    before_s = time.time()
    assert before_s - 0.001 <= created_at_s(IDS.new("a")) <= time.time()


def test_ids_are_unique_and_ordered_by_time() -> None:
    ids = [uuid7() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert [plain[:13] for plain in ids] == sorted(plain[:13] for plain in ids)


def test_replica_with_the_same_secret_accepts_an_id() -> None:
    assert TaskIds(b"a secret of sixteen").owns("a", IDS.new("a"))


def test_id_is_valid_only_for_its_owner_and_secret() -> None:
    task_id = IDS.new("a")
    assert IDS.owns("a", task_id)
    assert not IDS.owns("b", task_id)
    assert not TaskIds(b"another secret").owns("a", task_id)


@pytest.mark.parametrize("position", range(53))
def test_id_with_any_changed_character_is_rejected(position: int) -> None:
    task_id = IDS.new("a")
    other = "1" if task_id[position] == "0" else "0"
    assert not IDS.owns("a", task_id[:position] + other + task_id[position + 1 :])


def test_creation_time_of_a_malformed_id_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        created_at_s("made-up")


def test_ids_of_a_batch_are_unique_and_derived_from_the_first_id() -> None:
    ids = TaskIds(b"0123456789abcdef")
    first = ids.new("owner")
    members = [ids.member(first, index, "owner") for index in range(1000)]
    assert members[0] == first
    assert len(set(members)) == 1000
    assert all(ids.owns("owner", member) and not ids.owns("other", member) for member in members)
    assert {created_at_s(member) for member in members} == {created_at_s(first)}
    assert members == [ids.member(first, index, "owner") for index in range(1000)]
    assert TaskIds(b"another-key-0123").member(first, 1, "owner") != members[1]
