"""The metadata service: AWS's rules about tokens, and HTTP on a socket."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing

import pytest

from cloudrun.sim.metadata import TOKEN_PATH, Imds, MetadataServer

DATA = "/latest/meta-data"
CONTENT = {"instance-id": "i-1", "spot/instance-action": "{}"}


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def imds(clock: Clock) -> Imds:
    return Imds(CONTENT.get, clock=clock)


def token(imds: Imds, seconds: str = "60") -> Mapping[str, str]:
    status, text = imds.respond("PUT", TOKEN_PATH, {"x-aws-ec2-metadata-token-ttl-seconds": seconds})
    assert status == 200
    return {"x-aws-ec2-metadata-token": text.decode()}


def test_a_token_opens_it(imds: Imds) -> None:
    mine = token(imds)
    assert imds.respond("GET", f"{DATA}/instance-id", mine) == (200, b"i-1")
    assert imds.respond("GET", f"{DATA}/spot/instance-action?x=1", mine) == (200, b"{}")
    assert imds.respond("GET", "/2021-07-15/meta-data/instance-id", mine) == (200, b"i-1")
    assert imds.respond("HEAD", f"{DATA}/instance-id/", mine)[0] == 200


@pytest.mark.parametrize("headers", [{}, {"x-aws-ec2-metadata-token": "x"}, {"x-aws-ec2-metadata-token": ""}])
def test_without_one_nothing(imds: Imds, headers: Mapping[str, str]) -> None:
    token(imds)
    for path in (f"{DATA}/instance-id", f"{DATA}/nothing", "/", "/latest/user-data"):
        assert imds.respond("GET", path, headers)[0] == 401


def test_a_token_ends(imds: Imds, clock: Clock) -> None:
    short, long = token(imds, "60"), token(imds, "21600")
    clock.now_s += 61
    assert imds.respond("GET", f"{DATA}/instance-id", short)[0] == 401
    assert imds.respond("GET", f"{DATA}/instance-id", long)[0] == 200


@pytest.mark.parametrize("seconds", ["", "0", "21601", "-1", "many", "1.5"])
def test_a_token_lasts_seconds_to_hours(imds: Imds, seconds: str) -> None:
    headers = {"x-aws-ec2-metadata-token-ttl-seconds": seconds}
    assert imds.respond("PUT", TOKEN_PATH, headers)[0] == 400
    assert imds.respond("PUT", TOKEN_PATH, {})[0] == 400


def test_no_token_by_a_proxy_or_another_method(imds: Imds) -> None:
    headers = {"x-aws-ec2-metadata-token-ttl-seconds": "60", "x-forwarded-for": "192.0.2.1"}
    assert imds.respond("PUT", TOKEN_PATH, headers)[0] == 403
    assert imds.respond("GET", TOKEN_PATH, headers)[0] == 405
    assert imds.respond("DELETE", f"{DATA}/instance-id", token(imds))[0] == 405


def test_what_is_not_there(imds: Imds) -> None:
    for path in (f"{DATA}/nothing", f"{DATA}/", "/latest/other", "/latest/meta-data"):
        assert imds.respond("GET", path, token(imds))[0] == 404


@pytest.fixture
def server(imds: Imds) -> Iterator[MetadataServer]:
    listener = socket.create_server(("127.0.0.1", 0))
    made = MetadataServer(listener, imds.respond)
    made.port = listener.getsockname()[1]  # type: ignore[attr-defined]
    yield made
    made.close()


def connection(server: MetadataServer) -> closing[http.client.HTTPConnection]:
    port: int = server.port  # type: ignore[attr-defined]
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10))


def test_over_http_several_questions_on_one_connection(server: MetadataServer) -> None:
    with connection(server) as line:
        line.request("PUT", TOKEN_PATH, headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        mine = line.getresponse().read().decode()
        for method, body in (("GET", b"i-1"), ("HEAD", b""), ("GET", b"i-1")):
            line.request(method, f"{DATA}/instance-id", headers={"X-AWS-EC2-Metadata-Token": mine})
            answer = line.getresponse()
            assert (answer.status, answer.read()) == (200, body)


def test_one_that_says_nothing_holds_nobody_up(server: MetadataServer) -> None:
    with connection(server) as silent, connection(server) as line:
        silent.connect()
        line.request("GET", f"{DATA}/instance-id")
        assert line.getresponse().status == 401


def test_a_closed_one_leaves_no_thread_waiting(imds: Imds) -> None:
    before = threading.active_count()
    listener = socket.create_server(("127.0.0.1", 0))
    server = MetadataServer(listener, imds.respond)
    server.close()
    server.close()
    assert threading.active_count() <= before  # one of an earlier test may have ended meanwhile
    assert listener.fileno() == -1
