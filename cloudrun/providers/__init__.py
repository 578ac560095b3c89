"""Providers by name, loaded on use. Others register under the entry point group "cloudrun.providers"."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from cloudrun.errors import ProviderError

if TYPE_CHECKING:
    from cloudrun.config import Settings
    from cloudrun.providers.base import Provider

ENTRY_POINTS = "cloudrun.providers"
PROVIDERS: dict[str, str] = {
    "local": "cloudrun.providers.local:LocalProvider",
    "attached": "cloudrun.providers.attached:AttachedProvider",
    "aws": "cloudrun.providers.aws:AwsProvider",
    "azure": "cloudrun.providers.azure:AzureProvider",
}


def load_provider(name: str, settings: Settings) -> Provider:
    """The provider of that name, constructed; no I/O. Raises ProviderError for an unknown name,
    and for one whose SDK is not installed."""
    path = PROVIDERS.get(name) or _plugins().get(name)
    if not path:
        raise ProviderError(
            f"there is no provider {name!r} here",
            hint=f"known: {', '.join(provider_names())}; others can only be planned, with --dry-run",
        )
    module, _, attribute = path.partition(":")
    try:
        made: Provider = getattr(import_module(module), attribute)(settings)
    except ImportError as error:
        raise ProviderError(
            f"provider {name} cannot be loaded: {error}", hint=f"pip install 'cloudrun[{name}]'"
        ) from error
    return made


def provider_names() -> list[str]:
    """Every name that load_provider knows, our own first."""
    return [*PROVIDERS, *sorted(_plugins().keys() - PROVIDERS.keys())]


def _plugins() -> dict[str, str]:
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
