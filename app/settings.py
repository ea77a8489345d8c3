"""Every setting with its default and meaning, in one frozen class.

Each is also an environment variable with the prefix ``CHARLOOM_``; ``charloom
doctor`` prints them. Relative paths are relative to where the command runs.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def checked_key(key: str) -> str:
    """A key as requests carry it: without the spaces and line ends around it.

    Raises ValueError for a key that is empty or that an HTTP header cannot carry.
    """
    stripped = key.strip()
    if not stripped:
        raise ValueError("must not be empty: give it a key, or remove the variable to have no key.")
    if not (stripped.isascii() and stripped.isprintable()):
        raise ValueError("must consist of ASCII letters, digits and signs: it is sent in a header.")
    return stripped


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="CHARLOOM_",
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,  # it may be the key, or a password in a URL
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    models_dir: str = Field("models", description="Model store: a folder or an object-store URL.")
    data_dir: Path = Field(Path("data"), description="SQLite file, datasets, checkpoints.")
    store_url: str | None = Field(
        None,
        description="Object-store URL under which models, datasets and checkpoints lie; "
        "default: the two folders above.",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL; default: SQLite in the data folder."
    )
    default_model: str | None = Field(
        None, description="Model used when a request names none; default: the only one."
    )
    api_key: SecretStr | None = Field(
        None, description="Key that requests must carry; needed to listen beyond loopback."
    )
    trusted_network: bool = Field(
        False,
        description="Listen beyond loopback without a key: whoever reaches the port is trusted.",
    )
    allowed_hosts: str = Field(
        "",
        description="Host names that the server answers to, separated by commas; * means any.",
    )
    threads: int = Field(
        default_factory=lambda: max(
            1,
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1,
        ),
        ge=1,
        le=1024,
        description="Processor threads for inference; default: all.",
    )
    max_streams: int = Field(256, ge=1, le=65536, description="Sequences decoded at once.")
    queue_limit: int = Field(512, ge=0, le=1_000_000, description="Requests that may wait.")
    request_seconds: float = Field(
        600.0, gt=0, le=86_400, description="Longest time for one request, in seconds."
    )
    drain_seconds: float = Field(
        20.0,
        ge=0,
        le=86_400,
        description="Seconds that a server that stops gives to requests in progress.",
    )
    state_cache_mb: int = Field(256, ge=0, description="Memory for cached prefix states, MiB.")
    model_memory_mb: int = Field(2048, ge=1, description="Memory for loaded models, MiB.")
    answer_memory_mb: int = Field(
        256, ge=1, description="Memory for answers that are being made or read, MiB."
    )
    spool_mb: int = Field(
        1024, ge=0, description="Disk for answers to NDJSON that are not read yet, MiB."
    )
    max_body_mb: int = Field(1024, ge=1, description="Largest upload, MiB.")
    executor: Literal["local"] = Field(
        "local", description="What starts training processes; local: this machine."
    )
    training_slots: int = Field(1, ge=0, le=64, description="Training jobs that run at once.")
    training_memory_mb: int | None = Field(
        None, ge=1, description="Memory a job may use, MiB; default: four fifths of the machine's."
    )
    lease_seconds: float = Field(
        60.0,
        ge=0.5,
        le=3600,
        description="Seconds without a sign of life after which a training process counts as dead.",
    )
    checkpoint_days: float = Field(
        7.0, ge=0, description="Days that periodic checkpoints of finished jobs are kept."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line shown."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log lines for people or programs."
    )

    @field_validator("api_key")
    @classmethod
    def _key_that_can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        return None if key is None else SecretStr(checked_key(key.get_secret_value()))

    @property
    def resolved_database_url(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.data_dir / 'charloom.sqlite3'}"

    @property
    def models_url(self) -> str:
        """Where models are stored: ``models_dir``, unless only ``store_url`` is given."""
        if self.store_url is None or "models_dir" in self.model_fields_set:
            return self.models_dir
        return f"{self.store_url.rstrip('/')}/models"

    @property
    def datasets_url(self) -> str:
        """Where texts to train on are stored."""
        return self._below("datasets")

    @property
    def checkpoints_url(self) -> str:
        """Where checkpoints are stored."""
        return self._below("checkpoints")

    def absolute(self) -> Settings:
        """The same settings for a process in any folder: no path is relative."""
        scheme, _, file = self.resolved_database_url.partition(":///")
        database = f"{scheme}:///{Path(file).absolute()}" if scheme == "sqlite" else None
        return self.model_copy(
            update={
                "data_dir": self.data_dir.absolute(),
                "database_url": database or self.database_url,
                "models_dir": _absolute(self.models_url),
                "store_url": None if self.store_url is None else _absolute(self.store_url),
            }
        )

    def _below(self, folder: str) -> str:
        if self.store_url is None:
            return str(self.data_dir / folder)
        return f"{self.store_url.rstrip('/')}/{folder}"

    @property
    def believed_hosts(self) -> frozenset[str] | None:
        """The further host names in ``allowed_hosts``; None allows any."""
        names = {name.strip().lower() for name in self.allowed_hosts.split(",")} - {""}
        return None if "*" in names else frozenset(names)

    @property
    def exposed(self) -> bool:
        """Whether the server would answer anyone on a network without a key."""
        return self.api_key is None and not (self.trusted_network or _is_loopback(self.host))


def _absolute(place: str) -> str:
    """A folder or URL; a folder without its relative part."""
    return place if "://" in place else str(Path(place).absolute())


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name: only this one certainly stays on the machine
        return host.lower() == "localhost"
