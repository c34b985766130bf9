"""Refuse a role's bad variables in one message, before anything on a host changes.

A role's tasks/validate.yml calls it; it needs no connection, and runs in check mode:

    - name: validate | Check the variables of nginx
      role_variables:
        role: nginx                # its meta/argument_specs.yml is the contract
        rules:                     # optional: what a type cannot say; read only once all types are right
          - variable: nginx_http_port
            that: nginx_http_port | int in range(1, 65536)    # an expression as in `when`, no braces
            allowed: a port from 1 to 65535
            value: nginx_http_port | int                      # optional: an expression, or a text to show

Types are stricter than Ansible's own check, which converts a value and then hands the unconverted one to the role: "a,b" is no
list, "no" is no boolean. A number may come as a string ("80"), as `-e` gives it. Options with `no_log: true` hold secrets: never
shown, and refused when empty, a placeholder, or shorter than 12 characters.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import typing as t
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import yaml
from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common import validation
from ansible.plugins.action import ActionBase

try:  # where a value was written; a private interface of ansible-core 2.19, so its absence only shortens the message
    from ansible._internal._datatag._tags import Origin, SourceWasEncrypted, VaultedValue
except ImportError:  # pragma: no cover
    Origin = SourceWasEncrypted = VaultedValue = None

MASK = "********"
NOT_SET = "(not set)"
LONGEST_VALUE = 120
SHORTEST_SECRET = 12

TYPES = {
    "str": ("a string", "strings"),
    "int": ("an integer", "integers"),
    "float": ("a number", "numbers"),
    "bool": ("true or false, unquoted (on the command line: -e '{\"name\": true}')", "booleans"),
    "list": ("a list", "lists"),
    "dict": ("a dictionary", "dictionaries"),
    "path": ("a path", "paths"),
    "bytes": ("a size such as 64M", "sizes such as 64M"),
    "bits": ("a size such as 64Mb", "sizes such as 64Mb"),
    "json": ("JSON", "JSON texts"),
    "jsonarg": ("JSON", "JSON texts"),
    "raw": ("any value", "any values"),
}

# Words that fill a form until somebody sets it: alone, repeated, or joined by digits and punctuation
FILLER = re.compile(
    r"(?:change|replace|me|this|it|fix|todo|tbd|here|my|your|a|the|an|some|secret|password|passwd|pass|passphrase|token|key|value"
    r"|example|sample|dummy|test|foo|bar|default|placeholder|insert|enter|none|null|undefined|x{2,}|[\W\d_])+",
    re.IGNORECASE,
)
UNMISTAKABLE = re.compile(r"change[-_ ]?me|replace[-_ ]?me|place[-_ ]?holder|fill[-_ ]?me|<[^<>\n]*>", re.IGNORECASE)
SECRET_NAME = re.compile(r"passw|secret|token|private|credential|vault|(?:^|_)keys?(?:_|$)", re.IGNORECASE)

Spec = Mapping[str, t.Any]


@dataclass(frozen=True)
class Undefined:
    """Stands in for a value whose template failed."""

    error: str
    origin: t.Any = None


@dataclass(frozen=True)
class Problem:
    variable: str
    value: str
    allowed: str
    change: str

    def __str__(self) -> str:
        return f"{self.variable}\n    value:   {self.value}\n    allowed: {self.allowed}\n    change:  {self.change}"


def is_placeholder(text: str) -> bool:
    """Whether a secret looks like what an example file holds."""
    text = text.strip()
    if UNMISTAKABLE.search(text):
        return True
    filler = len(text) < 200 and re.search(r"[a-z]", text, re.IGNORECASE) and FILLER.fullmatch(text)
    return len(set(text)) < 3 or bool(filler)


def holds_secrets(spec: Spec) -> bool:
    """Whether an option or anything below it is a secret."""
    return bool(spec.get("no_log")) or any(holds_secrets(below) for below in (spec.get("options") or {}).values())


def leaves(value: t.Any, name: str) -> Iterator[tuple[str, t.Any]]:
    """Every scalar of a value, with its path."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from leaves(below, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, below in enumerate(value):
            yield from leaves(below, f"{name}[{index}]")
    else:
        yield name, value


def masked(value: t.Any, spec: Spec) -> t.Any:
    """A copy fit to be shown: by the specification, secrets are masked, and so is what stands beside them under an unknown name."""
    options = spec.get("options")
    if isinstance(value, Undefined):
        return "(undefined)"
    if spec.get("no_log"):
        return MASK
    if isinstance(value, (list, tuple)):
        return [masked(below, {**spec, "type": spec.get("elements")}) for below in value]
    if not options:
        return value
    if isinstance(value, Mapping):
        hidden = {"no_log": holds_secrets(spec)}
        return {str(key): masked(below, options.get(key, hidden)) for key, below in value.items()}
    return MASK if holds_secrets(spec) else value


def shown(value: t.Any) -> str:
    """One line, of bearable length."""
    if value == MASK:
        return MASK
    text = json.dumps(value, ensure_ascii=False, default=lambda other: "(undefined)" if isinstance(other, Undefined) else str(other))
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 4]} ..."


def near(name: str, names: t.Iterable[str], prefix: str = "") -> list[str]:
    """The names that somebody may have meant, by what follows their common prefix."""
    ends = sorted(other.removeprefix(prefix) for other in names)
    return [f"{prefix}{end}" for end in difflib.get_close_matches(name.removeprefix(prefix), ends, n=2, cutoff=0.6)]


def offered(meant: list[str], names: t.Iterable[str]) -> str:
    """The end of a sentence about a name that is not known: what was probably meant, else all there is."""
    return f"; did you mean {' or '.join(meant)}?" if meant else f" ({', '.join(sorted(map(str, names)))})"


def expected(spec: Spec, of: str = "type") -> str:
    """What a specification allows, in words."""
    kind = spec.get(of) or "str"
    if spec.get("choices") and kind != "list":
        return f"one of {', '.join(json.dumps(choice) for choice in spec['choices'])}"
    if kind == "list" and of == "type" and spec.get("elements"):
        words = f"a list of {TYPES.get(spec['elements'], (spec['elements'], spec['elements']))[1]}"
        return words + (f", each one of {', '.join(json.dumps(choice) for choice in spec['choices'])}" if spec.get("choices") else "")
    return TYPES.get(kind, (str(kind), ""))[0]


def purpose(spec: Spec) -> str:
    """The first sentence of an option's description."""
    description = spec.get("description") or ""
    text = description if isinstance(description, str) else str(next(iter(description), ""))
    return re.split(r"(?<=\.)\s", " ".join(text.split()), maxsplit=1)[0]


def has_type(value: t.Any, kind: str) -> bool:
    """Whether a role can use a value as it is for a type of the specification."""
    if kind in {"raw", "any"}:
        return True
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "list":
        return isinstance(value, (list, tuple))
    if kind == "dict":
        return isinstance(value, Mapping)
    if isinstance(value, (bool, list, tuple, Mapping)) and kind not in {"json", "jsonarg"}:
        return False
    if kind in {"str", "path"}:
        return isinstance(value, (str, int, float))
    check: Callable[[t.Any], t.Any] | None = getattr(validation, f"check_type_{kind}", None)
    if check is None:
        raise AnsibleActionFail(f"argument_specs.yml asks for the unknown type {kind!r}")
    try:
        check(value)
    except (TypeError, ValueError):
        return False
    return True


def is_choice(value: t.Any, choices: t.Iterable[t.Any]) -> bool:
    """Whether a value is one of the choices; the string "5" is the number 5, but true is not 1."""
    return any(value == choice if isinstance(choice, bool) or isinstance(value, bool) else str(value) == str(choice) for choice in choices)


def written(origin: t.Any) -> str:
    """Where something stands: file and line, as far as they are known."""
    path, line = getattr(origin, "path", None), getattr(origin, "line_num", None)
    return (relative(path) + (f", line {line}" if line else "")) if path else ""


@dataclass
class Validator:
    """Checks resolved values against the options of a role, and gathers what is wrong."""

    role: str
    options: Mapping[str, Spec]
    defaults: Mapping[str, t.Any] = field(default_factory=dict)
    role_path: str = ""
    inventory_dir: str = ""
    problems: list[Problem] = field(default_factory=list)
    secrets: set[str] = field(default_factory=set)

    def check(self, values: Mapping[str, t.Any]) -> None:
        for name, spec in self.options.items():
            self._gather_secrets(values.get(name), spec)
        for name, spec in self.options.items():
            if name in values:
                nothing = values[name] is None or values[name] == ""
                if nothing and values[name] == self.defaults.get(name) and not spec.get("required"):
                    continue  # the role's own way to say "none"
                self._value(name, values[name], spec, None)
            elif spec.get("required"):
                self.refuse(name, NOT_SET, self._missing(spec), self.environment_file(spec))

    def check_names(self, names: Mapping[str, t.Any], known: t.Iterable[str] = ()) -> None:
        """Refuse names with the role's prefix that no specification knows."""
        known = {*self.options, *known}
        prefix = f"{self.role}_"
        for name in sorted(set(names) - known):
            meant = near(name, (other for other in known if other.startswith(prefix)), prefix)
            hidden = SECRET_NAME.search(name) or any(holds_secrets(self.options.get(other, {})) for other in meant)
            value = names[name]
            if hidden or is_encrypted(value):
                text = MASK
            elif isinstance(value, (Mapping, list, tuple)):
                text = f"({'a dictionary' if isinstance(value, Mapping) else 'a list'})"
            else:
                text = shown(value)
            self.refuse(name, text, f"a variable that role {self.role} knows{offered(meant, self.options)}", self.place(value, {}))

    def refuse(self, variable: str, value: str, allowed: str, change: str) -> None:
        self.problems.append(Problem(variable, self.scrub(value), allowed, change))

    def scrub(self, text: str) -> str:
        """Take every known secret out of a text that others wrote."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return text

    def environment_file(self, spec: Spec, name: str = "it", place: str = "") -> str:
        """Where the environment sets something, by its name, that is asked for at a place."""
        asked = f" (asked for in {place})" if place else ""
        folder = os.path.join(relative(self.inventory_dir), "group_vars", "all") if self.inventory_dir else "the inventory's group_vars/all"
        if os.path.isfile(f"{folder}.yml") and not os.path.isdir(folder):
            # Beside a folder, Ansible would no longer read it
            return f"set {name} in {folder}.yml{asked}"
        own = f"{self.role}.yml"
        file = "vault.yml" if spec.get("no_log") else own if os.path.isfile(os.path.join(folder, own)) else "main.yml"
        return f"set {name} in {os.path.join(folder, file)}{asked}"

    def place(self, value: t.Any, spec: Spec, container: t.Any = None) -> str:
        """The file to change: where the value was written; the environment's own file where that is unknown, in the role or the fleet's."""
        for origin in (origin_of(value), container):
            path = getattr(origin, "path", None)
            if path and not (self.role_path and path.startswith(os.path.join(self.role_path, ""))):
                return self.environment_file(spec, place=written(origin)) if self._is_fleets(path) else written(origin)
            if origin and not path and "unknown" not in str(origin):
                return str(origin).strip("<>")
        return self.environment_file(spec)

    def _is_fleets(self, path: str) -> bool:
        """Whether a file is of the baseline that all environments share, which is made of what each of them sets."""
        own = os.path.join(os.path.realpath(self.inventory_dir), "")
        fleets = "group_vars" in path.split(os.sep) and os.path.isfile(path)
        return bool(self.inventory_dir and fleets) and not os.path.realpath(path).startswith(own)

    def _missing(self, spec: Spec) -> str:
        kind = "" if spec.get("type") == "raw" else f", to {expected(spec)}"
        return f"it must be set{kind}" + (f": {why}" if (why := purpose(spec)) else "")

    def _gather_secrets(self, value: t.Any, spec: Spec) -> None:
        if spec.get("no_log"):
            self.secrets.update(str(leaf) for _, leaf in leaves(value, "") if isinstance(leaf, (str, int)) and len(str(leaf)) > 3)
        elif isinstance(value, (list, tuple)):
            for below in value:
                self._gather_secrets(below, spec)
        elif isinstance(value, Mapping):
            for key, below in (spec.get("options") or {}).items():
                self._gather_secrets(value.get(key), below)

    def _value(self, name: str, value: t.Any, spec: Spec, container: t.Any, nullable: bool = False) -> None:
        origin = origin_of(value) or container
        if isinstance(value, Undefined):
            self._undefined(name, value, spec, origin)
            return
        if value is None and nullable:
            return
        kind = spec.get("type") or "str"
        if not has_type(value, kind):
            self._refuse_value(name, value, spec, expected(spec), container)
        elif kind == "list":
            element = {**spec, "type": spec.get("elements") or "raw", "elements": None}
            for index, below in enumerate(value):
                self._value(f"{name}[{index}]", below, element, origin)
        elif spec.get("choices") and not is_choice(value, spec["choices"]):
            self._refuse_value(name, value, spec, expected(spec), container)
        elif spec.get("no_log"):
            self._secret(name, value, spec, container)
        elif kind == "dict" and spec.get("options"):
            self._dictionary(name, value, spec, origin)
        else:
            for path, leaf in leaves(value, name):
                if isinstance(leaf, Undefined):
                    self._undefined(path, leaf, {**spec, "type": "raw"}, origin)

    def _dictionary(self, name: str, value: Mapping[str, t.Any], spec: Spec, origin: t.Any) -> None:
        options: Mapping[str, Spec] = spec["options"]
        for key in value:
            if key not in options:
                hidden = masked({key: value[key]}, spec)[str(key)]
                allowed = f"a key that {name} knows{offered(near(str(key), options), options)}"
                self.refuse(f"{name}.{key}", shown(hidden), allowed, self.place(value[key], {}, origin_of(key) or origin))
        for key, below in options.items():
            if key in value:
                self._value(f"{name}.{key}", value[key], below, origin, nullable=not below.get("required"))
            elif below.get("required"):
                self.refuse(f"{name}.{key}", NOT_SET, self._missing(below), self.place(None, below, origin))
        for rule in ("mutually_exclusive", "required_together", "required_one_of", "required_if", "required_by"):
            check = getattr(validation, "check_required_by" if rule == "required_by" else f"check_{rule}")
            try:
                check(spec.get(rule), {key: below for key, below in value.items() if not isinstance(below, Undefined)})
            except TypeError as error:
                self._refuse_value(name, value, spec, self.scrub(str(error)), origin)

    def _secret(self, name: str, value: t.Any, spec: Spec, container: t.Any) -> None:
        for path, leaf in leaves(value, name):
            if isinstance(leaf, Undefined):
                self._undefined(path, leaf, {**spec, "type": "raw"}, container)
                continue
            if leaf is None or leaf == "":
                shows, wrong = "(empty)", "a secret, not an empty one"
            elif is_placeholder(str(leaf)):
                shows, wrong = MASK, "a secret of your own; this is a placeholder"
            elif len(str(leaf)) < SHORTEST_SECRET:
                shows, wrong = MASK, f"a secret of at least {SHORTEST_SECRET} characters"
            else:
                continue
            self.refuse(path, shows, wrong, self.place(leaf, spec, origin_of(value) or container))

    def _undefined(self, name: str, value: Undefined, spec: Spec, origin: t.Any) -> None:
        at = value.origin or origin
        place = self.place(None, spec, at)
        source = re.search(r"'(\w+)' is undefined", value.error)
        if source and source[1].startswith("vault_"):
            place = self.environment_file({"no_log": True}, source[1], written(at))
        elif source and place.startswith("set it"):
            place = place.replace("set it", f"set {source[1]}, or {name},")
        self.refuse(name, f"(undefined: {self.scrub(value.error)})", self._missing(spec), place)

    def _refuse_value(self, name: str, value: t.Any, spec: Spec, allowed: str, container: t.Any) -> None:
        self.refuse(name, shown(masked(value, spec)), allowed, self.place(value, spec, container))


def is_encrypted(value: t.Any) -> bool:
    return VaultedValue is not None and (VaultedValue.is_tagged_on(value) or SourceWasEncrypted.is_tagged_on(value))


def origin_of(value: t.Any) -> t.Any:
    return Origin.get_tag(value) if Origin is not None and value is not None else None


def relative(path: str) -> str:
    # playbooks/group_vars is a link to the folder that people know
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(os.curdir))
    return path if inside.startswith("..") else inside


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible ships no types
    """The task `role_variables`."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("role", "rules"))

    @classmethod
    def finalize_task_arg(cls, name: str, value: t.Any, templar: t.Any, context: t.Any) -> t.Any:
        # Rules read variables that may be broken: they are evaluated only once the variables' types are right
        return value if name == "rules" else super().finalize_task_arg(name, value, templar, context)

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        task_vars = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        role = self._task.args.get("role")
        if not isinstance(role, str):
            raise AnsibleActionFail("role_variables needs the argument role, the name of a role")
        path = self._role_path(role, task_vars)
        specs = self._read(os.path.join(path, "meta", "argument_specs.yml")).get("argument_specs") or {}
        if "main" not in specs:
            raise AnsibleActionFail(f"{path}/meta/argument_specs.yml has no entry point main")

        validator = Validator(
            role=role,
            options=specs["main"].get("options") or {},
            defaults=self._read(os.path.join(path, "defaults", "main.yml"), missing_ok=True),
            role_path=path,
            inventory_dir=task_vars.get("inventory_dir") or "",
        )
        validator.check({name: self._resolved(task_vars[name]) for name in validator.options if name in task_vars})
        if not validator.problems:
            self._check_rules(validator, task_vars)
        others = [f"{other}_" for other in sorted(os.listdir(os.path.dirname(path))) if other.startswith(f"{role}_")]
        prefixed = {
            str(name): value for name, value in task_vars.items() if name.startswith(f"{role}_") and not name.startswith(tuple(others))
        }
        validator.check_names(prefixed, C.INTERNAL_STATIC_VARS)

        if validator.problems:
            refused = len({problem.variable for problem in validator.problems})
            lines = [f"Role {role} refuses {'a variable' if refused == 1 else f'{refused} variables'}:", *map(str, validator.problems)]
            result.update(failed=True, msg="\n".join(lines))
        else:
            result.update(changed=False, msg=f"The variables of role {role} are in order")
        return result

    def _role_path(self, role: str, task_vars: Mapping[str, t.Any]) -> str:
        if self._task._role is not None and self._task._role.get_name() == role:
            return str(os.path.realpath(self._task._role.get_role_path()))
        for folder in (*C.DEFAULT_ROLES_PATH, os.path.join(task_vars.get("playbook_dir") or ".", "roles")):
            path = os.path.join(folder, role)
            if os.path.isdir(path):
                return os.path.realpath(path)
        raise AnsibleActionFail(f"role {role!r} is not in the roles path ({os.pathsep.join(C.DEFAULT_ROLES_PATH)})")

    @staticmethod
    def _read(path: str, *, missing_ok: bool = False) -> dict[str, t.Any]:
        try:
            with open(path, encoding="utf-8") as file:
                content = yaml.safe_load(file)
        except FileNotFoundError as error:
            if missing_ok:
                return {}
            raise AnsibleActionFail(f"{path} is missing") from error
        return content if isinstance(content, dict) else {}

    def _resolved(self, raw: t.Any, origin: t.Any = None) -> t.Any:
        """The value with its templates rendered one by one, so that a failure is known by its place."""
        origin = origin_of(raw) or origin
        if isinstance(raw, Mapping):
            resolved: t.Any = {key: self._resolved(below, origin) for key, below in raw.items()}
        elif isinstance(raw, (list, tuple)):
            resolved = [self._resolved(below, origin) for below in raw]
        else:
            try:
                return self._templar.template(raw)
            except AnsibleError as error:
                return Undefined(str(getattr(error, "message", error)).strip().rstrip("."), origin)
        return origin.tag(resolved) if origin else resolved

    def _check_rules(self, validator: Validator, task_vars: Mapping[str, t.Any]) -> None:
        rules = self._task.args.get("rules") or []
        for rule in self._templar.template(rules) if isinstance(rules, str) else rules:
            unknown = set(rule) - {"variable", "that", "allowed", "value"}
            if unknown or not {"variable", "that", "allowed"} <= set(rule):
                raise AnsibleActionFail("a rule has the keys variable, that, allowed and, if wanted, value")
            top = re.split(r"[.\[]", rule["variable"], maxsplit=1)[0]
            spec = validator.options.get(top, {})
            failure = ""
            for condition in rule["that"] if isinstance(rule["that"], list) else [rule["that"]]:
                try:
                    if self._evaluated(condition) is True:
                        continue
                except Exception as error:  # whatever a filter raises: the rule is not met
                    failure = f" (the check failed: {getattr(error, 'message', error)})"
                break
            else:
                continue
            value = self._resolved(task_vars.get(top))
            text = shown(masked(value, spec)) if top in task_vars else NOT_SET
            if "value" in rule:
                text = self._rule_value(rule["value"])
            allowed = self._rule_text(rule["allowed"])
            validator.refuse(rule["variable"], text, validator.scrub(f"{allowed}{failure}"), validator.place(value, spec))

    def _evaluated(self, condition: t.Any) -> t.Any:
        if condition in ("true", "false"):  # by a filter that has judged itself, and whose texts Ansible does not trust as templates
            return condition == "true"
        if isinstance(condition, str) and self._templar.is_template(condition):
            return self._templar.template(condition)
        return self._templar.evaluate_conditional(condition)

    def _rule_text(self, text: str) -> str:
        try:
            return str(self._templar.template(text))
        except AnsibleError:
            return text

    def _rule_value(self, value: t.Any) -> str:
        try:
            if isinstance(value, str) and not self._templar.is_template(value):
                return shown(self._templar.evaluate_expression(value))
            return shown(self._templar.template(value))
        except Exception:  # not an expression: a text to show
            return str(value)
