"""How the server is reached, and by whom."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from infrastructure.settings.kinds import (
    Count,
    Path,
    Rate,
    Seconds,
    Section,
    Text,
    Whole,
    clash,
    from_variable,
    is_address,
)


def _issuer(url: str | None) -> str | None:
    if url is None or (is_address(url) and url.startswith(("https://", "http://127.0.0.1:"))):
        return url
    raise ValueError("an https URL is needed")


class Oidc(Section):
    """Tokens of an identity provider (OpenID Connect), beside those of `hostledger tokens`."""

    issuer: Annotated[Text, AfterValidator(_issuer)] = None
    """The `iss` that a token must have. None: no such token is accepted."""
    audience: Text = None
    """The `aud` that a token must have; needed with `issuer`."""
    jwks_url: Annotated[Text, AfterValidator(_issuer)] = None
    """Where the provider's keys are. None: as `issuer`/.well-known/openid-configuration says."""
    role_claim: Annotated[str, Field(min_length=1)] = "roles"
    """The claim with the names of roles: a list, or words."""
    roles: Annotated[
        dict[str, Literal["viewer", "operator", "admin"]], BeforeValidator(from_variable)
    ] = {"viewer": "viewer", "operator": "operator", "admin": "admin"}
    """Name in that claim -> the role here; the highest holds."""

    @model_validator(mode="after")
    def _refuse_any_audience(self) -> Self:
        if self.issuer is not None and self.audience is None:
            raise clash(
                "server.oidc.issuer is set without server.oidc.audience: tokens that were made "
                "for other programs would be accepted",
                "set the audience that the provider gives to this server's tokens",
                "server.oidc.issuer",
                "server.oidc.audience",
            )
        return self


class Server(Section):
    """`hostledger server run`: queries, commands and the console over HTTP."""

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    """The address to listen on; every address is `0.0.0.0` or `::`."""
    port: Annotated[Whole, Field(ge=0, le=65535)] = 8765
    """The port; 0 is any that is free."""
    socket: Path = None
    """A Unix socket to listen on in place of host and port, an absolute path; mode 0660."""
    tls_certificate: Path = None
    """A PEM file with the certificate and those above it, an absolute path. None: plain HTTP, for a
    proxy on the same machine that speaks TLS."""
    tls_key: Path = None
    """A PEM file with the certificate's key, an absolute path."""
    requests_per_second: Rate = 2000
    """Requests that one credential may make per second, over ten seconds; 429 beyond."""
    max_body: Count = 65536
    """Bytes of a request's body; 413 beyond."""
    request_timeout: Seconds = 10
    """Seconds in which a client must have sent its request; its connection is closed then."""
    drain_timeout: Seconds = 30
    """Seconds after SIGTERM in which requests under way may finish."""
    max_streams: Count = 200
    """Most clients that follow the event stream at a time, in one process; 503 beyond."""
    oidc: Oidc = Oidc()

    @model_validator(mode="after")
    def _refuse_half_a_certificate(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise clash(
                "server.tls_certificate and server.tls_key go together",
                "set both, or neither",
                "server.tls_certificate",
                "server.tls_key",
            )
        return self
