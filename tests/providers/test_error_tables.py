"""Every code of a cloud that the catalogue has, and those of account, line and request, in our words."""

from __future__ import annotations

import pytest
from error_cases import CASES, ErrorCase

from cloudrun.catalog.loader import read_csv
from cloudrun.errors import CloudrunError, ProviderError, Refused

WORDS = "words of the cloud"

every_cloud = pytest.mark.parametrize("cloud", CASES, ids=lambda cloud: cloud.provider)
catalogued = [(cloud, code) for cloud in CASES for code in cloud.expected]
others = [(cloud, code, error) for cloud in CASES for code, error in cloud.others.items()]
more = [(cloud, code) for cloud in CASES for code in cloud.table.MORE]


@every_cloud
def test_the_expectation_names_every_code_of_the_catalogue(cloud: ErrorCase) -> None:
    codes = {row["code"] for row in read_csv("errors.csv") if row["provider"].startswith(cloud.provider)}
    assert codes == set(cloud.expected) == set(cloud.table.shipped())


@pytest.mark.parametrize(("cloud", "code"), catalogued, ids=[code for _, code in catalogued])
def test_a_code_of_the_catalogue(cloud: ErrorCase, code: str) -> None:
    error = cloud.met(cloud.refusal(code, WORDS))
    assert type(error) is cloud.expected[code]
    assert error.message.startswith(cloud.tried)
    assert f"({code})" in error.message
    assert error.hint
    assert not {"same", "same,"} & set((error.message + " " + error.hint).split())
    assert ".csv" not in error.message + error.hint


@pytest.mark.parametrize(("cloud", "code"), more, ids=[code for _, code in more])
def test_a_code_of_account_line_or_request(cloud: ErrorCase, code: str) -> None:
    error = cloud.met(cloud.refusal(code, ""))
    assert type(error) is cloud.table.KINDS[cloud.table.MORE[code].kind].error
    assert f"({code})" in error.message
    assert error.hint


@pytest.mark.parametrize(("cloud", "code", "expected"), others, ids=[code for _, code, _ in others])
def test_a_code_that_the_catalogue_has_not(
    cloud: ErrorCase, code: str, expected: type[CloudrunError]
) -> None:
    assert type(cloud.met(cloud.refusal(code, WORDS))) is expected


@every_cloud
def test_no_code_has_two_rows(cloud: ErrorCase) -> None:
    assert not set(cloud.table.MORE) & set(cloud.table.shipped())


@every_cloud
def test_an_unknown_code_is_passed_on_with_its_words(cloud: ErrorCase) -> None:
    error = cloud.met(cloud.refusal("BrandNewCode", "something is wrong"))
    assert type(error) is ProviderError
    assert error.message.startswith(cloud.tried)
    assert error.message.endswith(" says BrandNewCode: something is wrong")


@every_cloud
def test_our_own_errors_pass_as_they_are(cloud: ErrorCase) -> None:
    ours = Refused("a disk does not shrink", hint="none")
    assert cloud.met(ours) is ours


@every_cloud
def test_the_cause_is_kept_for_whoever_debugs(cloud: ErrorCase) -> None:
    cause = cloud.refusal(next(iter(cloud.expected)), WORDS)
    assert cloud.met(cause).__cause__ is cause
