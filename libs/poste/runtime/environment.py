"""The environment is read here, once, in `main`: a setting's variable is `POSTE_` and its name in capitals.

What is wrong with it is refused at start in one line, which names the variable, its value, and what is allowed.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from poste.domain.errors import StartError
from poste.runtime.setting_values import SERVICE_LINK
from poste.runtime.settings import CourierSettings, GatewaySettings, MomSettings, Settings, WorkerSettings

SettingsT = TypeVar("SettingsT", bound=Settings)

PREFIX: Final = "POSTE_"
#: Variables that begin so are ignored: they are free for one's own services.
FOREIGN_PREFIX: Final = f"{PREFIX}X_"
#: The settings of each part. One environment may serve them all, so what is another part's is no mistake.
PARTS: Final[Mapping[str, type[Settings]]] = {
    "gateway": GatewaySettings,
    "middleware": MomSettings,
    "service": WorkerSettings,
    "courier": CourierSettings,
}
#: What is read by others than the parts, and who reads it.
OTHERS: Final[Mapping[str, str]] = {
    "POSTE_URL": "the verbs of `poste` that ask a gateway: its URL",
    "POSTE_KEY_FILE": "the verbs of `poste` that ask a gateway: the file with the client's key",
    "POSTE_DATA": "the verbs of `poste` that ask a gateway or a `poste up`: the data folder of that `poste up`",
    "POSTE_HEALTH": "`poste health`, the image's health check: the URL that it asks",
    "POSTE_IMAGE": "compose and the stack: the image, with its tag or digest",
    "POSTE_PUBLISHED_PORT": "compose: the host's port that is the gateway's",
    "POSTE_NETWORK": "the stack: the name of its network",
    "POSTE_DEPLOYMENT": "the inventory of AWS: which deployment's hosts it lists",
}
#: How Kubernetes calls what it says of services, e.g. of one called `poste-gateway`.
_SERVICE_LINKS: Final = re.compile(r"POSTE_\w*?(_SERVICE_HOST|_SERVICE_PORT(_\w+)?|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")
#: The prefix of no variable.
_NO_PREFIX: Final = "\0"
#: How much of a value an error shows, in characters.
_SHOWN: Final = 120


def variable(name: str) -> str:
    """Return the variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def load(kind: type[SettingsT], environment: Mapping[str, str] | None = None, /, **overrides: object) -> SettingsT:
    """Read settings from the environment; `overrides` that are not None win.

    Args:
        kind: Whose settings.
        environment: What is read instead of the process' own.
        **overrides: What wins.

    Raises:
        StartError: A value does not fit, by itself or to others, or a variable is none that there is; the text names
            each.
    """
    variables = os.environ if environment is None else environment
    wrong = [*unknown(variables), *_empty(kind, variables)]
    chosen = {name: value for name, value in overrides.items() if value is not None}
    if environment is not None:
        # Given by name: the process' own environment is not read.
        given = {name: value for name in kind.model_fields if (value := environment.get(variable(name))) is not None}
        chosen = {"_env_prefix": _NO_PREFIX, **given, **chosen}
    try:
        settings = kind(**chosen)  # type: ignore[arg-type]
    except ValidationError as error:
        # Empty ones are in the list already.
        wrong.extend(dict.fromkeys(_message(item) for item in error.errors() if item["input"] != ""))
    except StartError as error:
        wrong.append(str(error))
    else:
        if not wrong:
            return settings
    raise StartError("; ".join(wrong))


def unknown(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield an error for each variable with Poste's prefix that is no setting: it would be ignored silently."""
    known = {variable(name) for kind in PARTS.values() for name in kind.model_fields} | OTHERS.keys()
    bare = [name.removeprefix(PREFIX) for name in known]
    for name in sorted(environment):
        if not name.startswith(PREFIX) or name in known or name.startswith(FOREIGN_PREFIX):
            continue
        if _SERVICE_LINKS.fullmatch(name) or SERVICE_LINK.match(environment[name]):
            continue
        # Without what all have in common, which would make any two of them alike.
        near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1)
        hint = f"the nearest is {PREFIX}{near[0]}" if near else f"what is not Poste's may begin with {FOREIGN_PREFIX}"
        yield f"there is no setting {name}: {hint}"


def _empty(kind: type[Settings], environment: Mapping[str, str]) -> Iterator[str]:
    """Yield an error for each variable that is empty: it was hardly meant, its source was not set."""
    for name, field in kind.model_fields.items():
        is_list = isinstance(field.get_default(), tuple)
        if environment.get(variable(name)) == "" and not is_list:
            yield f"{variable(name)}= is empty: give it a value, or leave it out"


def _message(item: Any) -> str:
    value = str(item["input"])
    value = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
    said = item["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return f"{variable(str(item['loc'][0]))}={value}: {said[:1].lower()}{said[1:]}"
