"""Records to JSON and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun.attempts import Order
from cloudrun.models import Attempt, Charge, Machine, Offer, Run, SshAddress, Stack
from cloudrun.records import from_json, to_json

TIMES = st.datetimes(timezones=st.just(UTC))
MONEY = st.decimals(allow_nan=False, allow_infinity=False, min_value=0, max_value=10**6)
strategies = {
    datetime: TIMES,
    Decimal: MONEY,
    Path: st.text("abc/", min_size=1, max_size=9).map(Path),
    float: st.floats(allow_nan=False, allow_infinity=False),
}
for kind, strategy in strategies.items():
    st.register_type_strategy(kind, strategy)


@pytest.mark.parametrize("record", [Run, Attempt, Machine, Offer, Charge, Stack, SshAddress, Order])
def test_what_goes_out_comes_back(record: type) -> None:
    @given(st.builds(record))
    def round_trip(value: object) -> None:
        assert from_json(record, json.loads(json.dumps(to_json(value)))) == value

    round_trip()


def test_a_newer_record_is_read_without_what_is_not_known() -> None:
    address = SshAddress("h", 22, "me", Path("/k"))
    assert from_json(SshAddress, {**to_json(address), "new_in_2030": [1]}) == address


def test_a_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError):
        from_json(SshAddress, {"host": 3, "port": 22, "user": "me", "key_path": "/k"})
