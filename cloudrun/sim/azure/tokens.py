"""Who calls: the tokens that Microsoft's login service gives out, and the machines' own identities."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
import uuid

from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request

LIFE_S = 3599  # of a token, as Microsoft's login service gives them


class Tokens:
    """One tenant with one application in it. `caller` is that application's object id."""

    def __init__(self) -> None:
        self.tenant = str(uuid.uuid4())
        self.client = str(uuid.uuid4())
        self.secret = secrets.token_urlsafe(24)
        self.caller = str(uuid.uuid4())
        self._lock = threading.Lock()
        self._issued: dict[str, tuple[str, float]] = {}  # token -> principal, end

    def issue(self, principal: str, life_s: float = LIFE_S) -> str:
        """A token for that object id."""
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._issued[token] = (principal, time.monotonic() + life_s)
        return token

    def expire(self) -> None:
        """No token that is out is good any longer."""
        with self._lock:
            self._issued = {token: (principal, 0.0) for token, (principal, _) in self._issued.items()}

    def principal(self, request: Request) -> str:
        """Whose token the call carries. Raises ApiError 401."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        with self._lock:
            principal, ends = self._issued.get(token, ("", 0.0))
        if kind.lower() != "bearer" or not principal:
            raise ApiError(
                "InvalidAuthenticationToken",
                "The access token is invalid.",
                headers={"WWW-Authenticate": self._challenge(request, "invalid_token")},
            )
        if time.monotonic() >= ends:
            raise ApiError(
                "ExpiredAuthenticationToken",
                "The access token expiry UTC time is in the past.",
                headers={"WWW-Authenticate": self._challenge(request, "insufficient_claims", claims=True)},
            )
        return principal

    def configuration(self, request: Request) -> Reply:
        """What a client reads of a tenant before it asks for a token."""
        tenant = request.params["tenant"]
        if tenant != self.tenant:
            return Reply(
                400,
                {
                    "error": "invalid_tenant",
                    "error_description": f"AADSTS90002: Tenant '{tenant}' not found.",
                },
                code="invalid_tenant",
            )
        home = f"{request.base_url}/{tenant}"
        return Reply(
            200,
            {
                "token_endpoint": f"{home}/oauth2/v2.0/token",
                "authorization_endpoint": f"{home}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{home}/oauth2/v2.0/devicecode",
                "issuer": f"{home}/v2.0",
                "jwks_uri": f"{home}/discovery/v2.0/keys",
                "token_endpoint_auth_methods_supported": ["client_secret_post"],
                "response_types_supported": ["code", "id_token"],
                "subject_types_supported": ["pairwise"],
                "scopes_supported": ["openid"],
                "tenant_region_scope": "EU",
            },
        )

    def token(self, request: Request) -> Reply:
        """A token for the application's id and secret."""
        form: Body = request.body if isinstance(request.body, dict) else {}
        if form.get("client_id") != self.client or request.params["tenant"] != self.tenant:
            return _refusal(
                "unauthorized_client",
                400,
                f"AADSTS700016: Application with identifier '{form.get('client_id')}' was not found.",
            )
        if form.get("client_secret") != self.secret:
            return _refusal(
                "invalid_client",
                401,
                f"AADSTS7000215: Invalid client secret provided for app '{self.client}'.",
            )
        token = self.issue(self.caller)
        return Reply(
            200,
            {
                "token_type": "Bearer",
                "expires_in": LIFE_S,
                "ext_expires_in": LIFE_S,
                "access_token": token,
            },
        )

    def _challenge(self, request: Request, error: str, *, claims: bool = False) -> str:
        challenge = f'Bearer authorization_uri="{request.base_url}/{self.tenant}", error="{error}"'
        if claims:
            wanted = {"access_token": {"nbf": {"essential": True, "value": str(int(time.time()))}}}
            challenge += f', claims="{base64.b64encode(json.dumps(wanted).encode()).decode()}"'
        return challenge


def _refusal(error: str, status: int, description: str) -> Reply:
    return Reply(status, {"error": error, "error_description": description}, code=error)
