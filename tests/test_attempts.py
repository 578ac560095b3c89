"""Which machine a run tries next."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cloudrun.attempts import next_offer
from cloudrun.models import Attempt, Market, Offer, Outcome


def offer(zone: str, price: str = "0.2", type: str = "p2.xlarge") -> Offer:
    return Offer("aws", zone[:-1], type, Market.SPOT, Decimal(price), zone=zone)


A, B, C = offer("us-east-1a", "0.1"), offer("us-east-1b", "0.2"), offer("us-west-2a", "0.3")


def attempts(*ended: tuple[Offer, Outcome]) -> list[Attempt]:
    return [Attempt("r", number, "t", tried, outcome=how) for number, (tried, how) in enumerate(ended, 1)]


def test_no_capacity_takes_the_next_in_price_order_and_then_gives_up() -> None:
    no = Outcome.NO_CAPACITY
    assert next_offer([A, B, C], attempts()) == A
    assert next_offer([A, B, C], attempts((A, no))) == B
    assert next_offer([A, B, C], attempts((A, no), (B, no))) == C
    assert next_offer([A, B, C], attempts((A, no), (B, no), (C, no))) is None


def test_a_preempted_offer_is_tried_last_and_earlier_refusals_are_forgotten() -> None:
    tried = attempts((A, Outcome.NO_CAPACITY), (B, Outcome.PREEMPTED))
    assert next_offer([A, B, C], tried) == A
    tried = attempts((A, Outcome.PREEMPTED))
    assert next_offer([A, B, C], tried) == B
    assert next_offer([A], tried) == A  # the only one there is


def test_another_type_in_the_preempting_zone_comes_after_other_zones() -> None:
    beside = offer("us-east-1a", "0.15", type="g4dn.xlarge")
    assert next_offer([A, beside, C], attempts((A, Outcome.PREEMPTED))) == C


OUTCOMES = st.sampled_from([Outcome.NO_CAPACITY, Outcome.PREEMPTED])


@given(st.lists(OUTCOMES, max_size=12))
def test_the_walk_over_candidates_always_ends_without_preemptions(outcomes: list[Outcome]) -> None:
    done: list[Attempt] = []
    for number, outcome in enumerate(outcomes, 1):
        taken = next_offer([A, B, C], done)
        if taken is None:
            break
        done.append(Attempt("r", number, "t", taken, outcome=outcome))
    refused = 0
    while (taken := next_offer([A, B, C], done)) is not None:
        done.append(Attempt("r", len(done) + 1, "t", taken, outcome=Outcome.NO_CAPACITY))
        refused += 1
        assert refused <= 3
