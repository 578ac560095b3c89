"""Rights: with them switched on, keys and policies count, for calls of moto's and for the double's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from double_help import Account, account, refused, status_of

TAGS = [{"ResourceType": "instance", "Tags": [{"Key": "cloudrun", "Value": "1"}]}]


@pytest.fixture
def owner() -> Iterator[Account]:
    with account() as each:
        each.image()
        yield each


def user(owner: Account, *actions: str) -> Account:
    """A user who may do just that; rights count from now on."""
    iam = owner.client("iam")
    iam.create_user(UserName="renter")
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    if actions:
        iam.put_user_policy(UserName="renter", PolicyName="some", PolicyDocument=document)
    key = iam.create_access_key(UserName="renter")["AccessKey"]
    owner.double.set_rights(True)
    return Account(owner.double, owner.url, key["AccessKeyId"], key["SecretAccessKey"])


def test_an_unknown_key_is_refused(owner: Account) -> None:
    owner.double.set_rights(True)
    with refused("AuthFailure") as caught:
        owner.ec2.describe_instances()
    assert status_of(caught) == 401


def test_a_wrong_secret_is_refused(owner: Account) -> None:
    known = user(owner, "ec2:*")
    known.ec2.describe_instances()
    with refused("AuthFailure"):
        Account(owner.double, owner.url, known._key, "another").ec2.describe_instances()


def test_what_the_policy_does_not_name_is_refused(owner: Account) -> None:
    renter = user(owner, "ec2:DescribeInstances")
    renter.ec2.describe_instances()
    with refused("UnauthorizedOperation", "ec2:DescribeSpotPriceHistory"):
        renter.ec2.describe_spot_price_history()


def test_a_launch_needs_its_own_right_alone(owner: Account) -> None:
    image = owner.image()
    assert user(owner, "ec2:RunInstances").launch(ImageId=image)


def test_a_launch_with_tags_needs_the_right_to_tag(owner: Account) -> None:
    image = owner.image()
    renter = user(owner, "ec2:RunInstances")
    with refused("UnauthorizedOperation", "ec2:CreateTags"):
        renter.launch(ImageId=image, TagSpecifications=TAGS)


def test_a_launch_by_parameter_needs_the_right_to_read_it(owner: Account) -> None:
    with refused("UnauthorizedOperation", "ssm:GetParameters"):
        user(owner, "ec2:RunInstances").launch()


def read_products(renter: Account) -> None:
    renter.client("pricing").get_products(ServiceCode="AmazonEC2", MaxResults=1)


def read_quotas(renter: Account) -> None:
    renter.client("service-quotas").list_service_quotas(ServiceCode="ec2")


@pytest.mark.parametrize(
    ("call", "right"),
    [(read_products, "pricing:GetProducts"), (read_quotas, "servicequotas:ListServiceQuotas")],
)
def test_services_of_the_double_itself_ask_too(
    owner: Account, call: Callable[[Account], None], right: str
) -> None:
    renter = user(owner, "ec2:*")
    with refused("AccessDeniedException", right):
        call(renter)
    owner.double.set_rights(False)
    call(renter)
