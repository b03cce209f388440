"""What an earlier call of a command wrote."""

import pytest

from codes.errors import InputError
from codes.files import recorded, write_json


def test_a_record_is_read_again_and_another_ones_refused(tmp_path):
    path = tmp_path / "record.json"
    assert recorded(path, {"a": 1}, "choose another") == {}
    write_json(path, {"a": 1, "b": 2, "more": [3]})
    assert recorded(path, {"a": 1, "b": 2}, "choose another") == {"a": 1, "b": 2, "more": [3]}
    with pytest.raises(InputError, match=r"made otherwise \(b\); choose another"):
        recorded(path, {"a": 1, "b": 3}, "choose another")
    path.write_text("{}")
    with pytest.raises(InputError, match="made otherwise"):
        recorded(path, {"a": 1}, "choose another")
    path.write_text("[1")
    with pytest.raises(InputError, match="damaged"):
        recorded(path, {"a": 1}, "choose another")
