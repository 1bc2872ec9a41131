"""
The configuration: one TOML file, read once, into frozen settings.

Order, the later wins: the defaults here, `/etc/windlass/appliance.toml` (`WINDLASS_CONFIG` names another), the variables
`WINDLASS_HOME`, `WINDLASS_RUN`, `WINDLASS_MEMORY_BUDGET`, `WINDLASS_LISTEN`, `WINDLASS_SHARE_PORT`, `WINDLASS_OWNER`,
`WINDLASS_USE_GPU` and `WINDLASS_IMAGE_<ENGINE>`.
Unknown keys are errors, and every problem is listed at once.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from controller.errors import ConfigError
from controller.units import MIB, parse_bytes

DEFAULT_PATH: Final = Path("/etc/windlass/appliance.toml")
FLOOR_SHARE: Final = 1 / 20
LEAST_FLOOR_BYTES: Final = 256 * MIB
MOST_FLOOR_BYTES: Final = 1024 * MIB


def _read_bytes(value: object) -> object:
    return parse_bytes(value) if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(_read_bytes), Field(ge=0)]
"""A size: a number of bytes, or text such as `7.4GiB`."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MemorySettings(_Section):
    """`[memory]`: how much of the box the models may use."""

    budget: Bytes | None = None
    """Memory for models; by default all of the machine's but `reserve`."""
    reserve: Bytes = 1024 * MIB
    """Left for the system, the controller and the gateway when no budget is set."""
    floor: Bytes | None = None
    """What must stay available whatever other programs take; by default a twentieth of the memory, 256 MiB to 1 GiB."""

    def floor_bytes(self, *, total_bytes: int) -> int:
        """Return what must stay available: what is configured, else a share of the box within bounds."""
        if self.floor is not None:
            return self.floor
        return min(max(int(total_bytes * FLOOR_SHARE), LEAST_FLOOR_BYTES), MOST_FLOOR_BYTES)


class GpuSettings(_Section):
    """`[gpu]`: how much of the memory of graphics cards the models may use; a GPU without memory of its own has no part in it."""

    budget: Bytes | None = None
    """Memory for models on each card; by default all of the card's but `reserve`."""
    reserve: Bytes = 512 * MIB
    """Left on each card for the driver, a desktop and other programs when no budget is set."""


class GatewaySettings(_Section):
    """`[gateway]`: the HTTP side."""

    listen: str = "127.0.0.1:8000"
    """Address and port. Anything but loopback needs an API key to exist."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the API from a browser."""
    max_body: Bytes = 8 * MIB
    """The largest request body."""
    max_header: Bytes = 32 * 1024
    """The largest request head."""
    rate_limit_per_min: int = Field(default=0, ge=0)
    """Requests a minute for each key (or for all callers without one); 0 means no limit."""
    require_key: bool = False
    """Ask callers on loopback for a key, too."""
    shutdown_grace_s: float = Field(default=30.0, ge=0)
    """How long running answers may take to end when the gateway is told to stop."""
    share_port: bool = False
    """Another gateway may listen on the same port, while one takes over from the other."""


class SchedulerSettings(_Section):
    """`[scheduler]`: who is served, who is resident."""

    queue_limit: int = Field(default=512, ge=1)
    """Callers that may wait at once; the next one gets 429."""
    quantum_s: float = Field(default=10.0, gt=0)
    """How long a model goes on serving newer callers while an older caller waits for its memory."""
    request_limit_s: float = Field(default=300.0, gt=0)
    """The longest one request may hold a worker; it is cut after that. The published wait bound is made of it."""
    min_residency_s: float = Field(default=2.0, ge=0)
    """A model just loaded is not evicted before that, so that loads are worth their cost."""
    idle_unload_s: float = Field(default=300.0, gt=0)
    """An idle model of tier `large` is unloaded after that."""
    max_failures: int = Field(default=5, ge=1)
    """Failures in a row after which a model is not started again by itself."""
    backoff_s: float = Field(default=0.5, gt=0)
    """Pause after the first failure; it doubles with each one, up to 30 s."""

    @model_validator(mode="after")
    def _residency_is_part_of_the_quantum(self) -> "SchedulerSettings":
        if self.min_residency_s > self.quantum_s:
            raise ValueError(f"min_residency_s ({self.min_residency_s}) must not exceed quantum_s ({self.quantum_s})")
        return self


class ConversationSettings(_Section):
    """`[conversations]`: what is kept of them on the disk, so that a swap does not cost computing them again."""

    enabled: bool = True
    """Keep them."""
    disk_budget: Bytes = 4096 * MIB
    """What all of them may take; those used the longest ago go first."""
    max_size: Bytes = 1024 * MIB
    """What one may take."""
    max_age_s: float = Field(default=86400.0, gt=0)
    """How long one is kept after its last use."""


class EngineSettings(_Section):
    """`[engines.<name>]`: how one engine is run."""

    image: str = ""
    """Image tag; by default `windlass/<name>:local`."""
    threads: int = Field(default=0, ge=0)
    """Threads a worker computes with; 0 means one a core."""
    options: dict[str, str | int | bool] = Field(default_factory=dict)
    """Engine-specific switches, described with each engine."""


class BuildSettings(_Section):
    """`[builds]`: engine files, which are made once and kept."""

    disk_budget: Bytes | None = None
    """What all engine files together may take; by default as much as the disk has, but for `keep_free`."""
    keep_free: Bytes = 512 * MIB
    """Builds leave this much of the disk free."""
    memory: Annotated[Bytes, Field(ge=64 * MIB)] | None = None
    """The most one step of a build may take, set aside from the budget meanwhile; by default what it is estimated to need."""
    cpus: float = Field(default=0.0, ge=0, le=1024)
    """Cores a build may use; 0 is all of them, whenever nobody else wants them."""
    max_failures: int = Field(default=3, ge=1)
    """Failures in a row after which a build is not tried again by itself."""


class LogSettings(_Section):
    """`[log]`: what the processes write."""

    level: str = "info"
    """`debug`, `info`, `warning` or `error`."""
    json_lines: bool = True
    """JSON for programs; `false` writes text for people."""


class Settings(_Section):
    """Everything that can be set."""

    home: PurePosixPath = PurePosixPath("/var/lib/windlass")
    """Models, engine files, conversations and the state database."""
    run: PurePosixPath = PurePosixPath("/run/windlass")
    """The controller's socket and one directory for each worker; may be a tmpfs."""
    owner: str = Field(default="windlass", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")
    """Whose containers these are: two installations on one engine need two names."""
    use_gpu: bool = True
    """Workers may compute on the box's GPU; `false` where the images are made for processors alone."""
    memory: MemorySettings = MemorySettings()
    gpu: GpuSettings = GpuSettings()
    gateway: GatewaySettings = GatewaySettings()
    scheduler: SchedulerSettings = SchedulerSettings()
    conversations: ConversationSettings = ConversationSettings()
    engines: dict[str, EngineSettings] = Field(default_factory=dict)
    builds: BuildSettings = BuildSettings()
    log: LogSettings = LogSettings()

    @field_validator("home", "run")
    @classmethod
    def _absolute(cls, value: PurePosixPath) -> PurePosixPath:
        if not value.is_absolute():
            raise ValueError(f"wanted an absolute path, got {value}")
        return value

    def engine(self, name: str) -> EngineSettings:
        """Return the settings of one engine, its image tag filled in."""
        found = self.engines.get(name, EngineSettings())
        return found if found.image else found.model_copy(update={"image": f"windlass/{name}:local"})


def load_settings(environ: Mapping[str, str], *, path: Path | None = None) -> Settings:
    """
    Read the configuration.

    Args:
        environ: the environment variables.
        path: the file; without it `WINDLASS_CONFIG`, or the default path if there is a file.

    Raises:
        ConfigError: with every problem, each naming its key.

    """
    named = path or (Path(environ["WINDLASS_CONFIG"]) if environ.get("WINDLASS_CONFIG") else None)
    source = named or DEFAULT_PATH
    raw: dict[str, Any] = {}
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is not None:
            raise ConfigError([f"{source}: no such file"]) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise ConfigError([f"{source}: {exc}"]) from exc
    _apply_environment(raw, environ)
    try:
        return Settings.model_validate(raw)
    except ValidationError as exc:
        raise ConfigError(
            [f"{source}: {'.'.join(str(part) for part in e['loc']) or 'file'}: {e['msg']}" for e in exc.errors()]
        ) from exc


_OWN_IMAGE: Final = "WINDLASS_IMAGE_CONTROLLER"
"""Stands beside the engines' images wherever they are handed around, and is no engine."""


def _apply_environment(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    for variable, keys in (
        ("WINDLASS_HOME", ("home",)),
        ("WINDLASS_RUN", ("run",)),
        ("WINDLASS_OWNER", ("owner",)),
        ("WINDLASS_USE_GPU", ("use_gpu",)),
        ("WINDLASS_MEMORY_BUDGET", ("memory", "budget")),
        ("WINDLASS_LISTEN", ("gateway", "listen")),
        ("WINDLASS_SHARE_PORT", ("gateway", "share_port")),
    ):
        if value := environ.get(variable):
            _put(raw, keys, value)
    for variable, value in environ.items():
        if variable.startswith("WINDLASS_IMAGE_") and variable != _OWN_IMAGE and value:
            engine = variable.removeprefix("WINDLASS_IMAGE_").lower().replace("_", "-")
            _put(raw, ("engines", engine, "image"), value)


def _put(raw: dict[str, Any], keys: tuple[str, ...], value: str) -> None:
    *tables, last = keys
    for key in tables:
        table = raw.setdefault(key, {})
        if not isinstance(table, dict):
            return  # the validation that follows says what is wrong with it
        raw = table
    raw[last] = value
