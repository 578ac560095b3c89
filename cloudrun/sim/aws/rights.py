"""Who may do what: signatures and IAM policies, checked where a rehearsal asks for it.

moto knows users, roles and policies; it judges the actions that a policy names, not its resources and
conditions. What EC2 checks beside the action itself stands in `actions_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moto.core.exceptions import _RESTError
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.iam.access_control import IAMRequest

from cloudrun.sim.aws.wire import ApiError, Request, tag_specifications

# Resource types that a create call of ours tags; tagging in a create call needs ec2:CreateTags too
# (EC2 user guide, "Grant permission to tag resources during creation").
_TAGGED = (
    "instance",
    "volume",
    "spot-instances-request",
    "security-group",
    "snapshot",
    "image",
    "elastic-ip",
)


def check(request: Request) -> None:
    """Raises what AWS answers to a caller that it does not know, or who may not do this."""
    if not request.environ.get("HTTP_AUTHORIZATION"):
        raise ApiError("AuthFailure", "AWS was not able to validate the provided access credentials")
    headers = _headers(request)
    for service, action in actions_of(request):
        try:
            caller = _Caller(service, action, request, headers)
            caller.check_signature()
            caller.check_action_permitted("*")
        except _RESTError as error:
            raise _refusal(request, error) from error


def actions_of(request: Request) -> Iterator[tuple[str, str]]:
    """The rights that a call needs: its own, and those of what it does on the way."""
    yield request.service, request.action
    if request.service != "ec2":
        return
    if any(tag_specifications(request.form, kind) for kind in _TAGGED) and request.action != "CreateTags":
        yield "ec2", "CreateTags"
    if any(key.startswith("IamInstanceProfile.") for key in request.form):
        yield "iam", "PassRole"
    if request.form.get("ImageId", "").startswith("resolve:ssm:"):
        yield "ssm", "GetParameters"


class _Caller(IAMRequest):
    """The caller's key against one right, which may be of another service than the one called."""

    def __init__(self, service: str, action: str, request: Request, headers: dict[str, str]) -> None:
        super().__init__(
            account_id=DEFAULT_ACCOUNT_ID,
            method=request.environ["REQUEST_METHOD"],
            path=_url(request.environ),
            data={},
            body=request.body,
            headers=headers,
            action=action,
        )
        self._action = f"{service}:{action}"


def _headers(request: Request) -> dict[str, str]:
    """The headers as they came, by their usual names."""
    found = {
        name[5:].replace("_", "-").title(): str(value)
        for name, value in request.environ.items()
        if name.startswith("HTTP_")
    }
    found["Content-Type"] = request.environ.get("CONTENT_TYPE", "")
    return found


def _url(environ: dict[str, Any]) -> str:
    query = environ.get("QUERY_STRING", "")
    path = environ.get("PATH_INFO", "/") or "/"
    return f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}{path}" + (f"?{query}" if query else "")


# What services that take JSON say where the others use these codes (AWS, "Common error types").
_IN_JSON = {
    "AccessDenied": "AccessDeniedException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
}


def _refusal(request: Request, error: _RESTError) -> ApiError:
    """EC2 says UnauthorizedOperation where other services say AccessDenied."""
    code = str(error.error_type)
    if code == "AccessDenied" and request.service == "ec2":
        text = f"You are not authorized to perform this operation. {error.message}"
        return ApiError("UnauthorizedOperation", text)
    if request.environ.get("HTTP_X_AMZ_TARGET"):
        code = _IN_JSON.get(code, code)
    return ApiError(code, error.message, int(error.code))
