"""Components: what people add. The file name is the registry.

`kind: layerwise_cnn` in the section `space` imports `nas_cluster.spaces.layerwise_cnn` and takes the one subclass of
`SearchSpace` defined there; `kind: my_pkg.mod:MySpace` takes somebody else's. A component is a frozen pydantic model:
its fields are the options a config may set, and the object built from the config is the component itself.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from nas_cluster.core.errors import ConfigError, nearest
from nas_cluster.core.importing import NotImported, imported

__all__ = [
    "Component",
    "Options",
    "build_component",
    "component_field",
    "explain",
    "find_component",
    "known_kinds",
    "lacks",
    "validated",
]


class Options(BaseModel):
    """A frozen group of settings: unknown keys refused, defaults validated."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Component(Options):
    """Base of SearchSpace, Controller, Strategy, Estimator and Dataset.

    `package` is where the built-in kinds live; `word` is what error messages call it.
    """

    package: ClassVar[str]
    word: ClassVar[str]

    kind: str = ""

    @model_validator(mode="before")
    @classmethod
    def _name_kind(cls, data: Any) -> Any:
        """A component made in code says its kind as one made from a config does."""
        if isinstance(data, dict) and not data.get("kind"):
            prefix = f"{cls.package}."
            built_in = cls.__module__.startswith(prefix)
            name = cls.__module__.removeprefix(prefix).partition(".")[0]
            return {**data, "kind": name if built_in else f"{cls.__module__}:{cls.__qualname__}"}
        return data


C = TypeVar("C", bound=Component)


def known_kinds(base: type[Component]) -> list[str]:
    """The built-in kinds of `base`, read from the file names in its package."""
    package = importlib.import_module(base.package)
    return sorted(
        m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_") and m.name != "base"
    )


def find_component(base: type[C], kind: str) -> type[C]:
    """The class that `kind` names.

    Raises ConfigError for an unknown kind, a module that does not import, or a class of the wrong sort.
    """
    module_name, _, class_name = kind.partition(":")
    if not class_name:
        if kind not in known_kinds(base):
            hint = nearest(kind, known_kinds(base), what=base.word)
            raise ConfigError(f"unknown {base.word} {kind!r}: {hint}; your own is written 'package.module:Class'")
        module_name = f"{base.package}.{kind}"
    try:
        module = imported(module_name)
    except NotImported as error:
        raise ConfigError(f"{base.word} {kind!r}: {error}") from error
    if class_name:
        found = getattr(module, class_name, None)
        if not (inspect.isclass(found) and issubclass(found, base)):
            names = [n for n, v in vars(module).items() if inspect.isclass(v) and issubclass(v, base) and v is not base]
            hint = nearest(class_name, names, what="class") if names else f"it defines no {base.__name__}"
            raise ConfigError(f"{base.word} {kind!r}: {module_name} has no {base.__name__} {class_name!r}; {hint}")
        return found
    classes = [
        value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, base)
        and not name.startswith("_")
        and not inspect.isabstract(value)
        and value.__module__.startswith(module_name)
    ]
    if len(classes) != 1:
        raise ConfigError(f"{module_name} must define exactly one {base.__name__}, found {len(classes)}")
    return classes[0]


def build_component(base: type[C], data: Any, *, where: str) -> C:
    """The component that a config section describes: a mapping with `kind`, a bare kind, or the object itself.

    Raises ConfigError with one line per mistake, each starting with the dotted path `where`.
    """
    if isinstance(data, base):
        return data
    if isinstance(data, str):
        data = {"kind": data}
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        raise ConfigError(f"{where}: write 'kind: <{base.word}>' ({', '.join(known_kinds(base))})")
    try:
        cls = find_component(base, data["kind"])
    except ConfigError as error:
        raise ConfigError(f"{where}.kind: {error}") from error
    if (lacking := lacks(cls)) is not None:
        raise ConfigError(f"{where}.kind: {base.word} {data['kind']!r}: {lacking}")
    return validated(cls, data, where=where)


def lacks(cls: type) -> str | None:
    """Which methods somebody's class does not define, so that no object can be made of it; None: none."""
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    return f"class {cls.__name__} does not define {', '.join(missing)}" if missing else None


M = TypeVar("M", bound=Options)


def validated(model: type[M], data: Any, *, where: str) -> M:
    """`model.model_validate(data)`. Raises ConfigError with one line per mistake, each starting with `where`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model, where))) from error


def component_field(base: type[Component], where: str, *, optional: bool = False) -> tuple[Any, ...]:
    """Annotations of a field that holds a component: `Annotated[Strategy, *component_field(Strategy, "strategy")]`."""
    return (
        PlainValidator(lambda data: None if optional and data is None else build_component(base, data, where=where)),
        PlainSerializer(lambda part: None if part is None else part.model_dump(mode="json")),
        WithJsonSchema({"type": "object", "properties": {"kind": {"type": "string"}}}),
    )


def explain(error: ValidationError, model: type[BaseModel], where: str = "") -> list[str]:
    """One line per mistake: where, what is wrong, the nearest right key."""
    lines = []
    for item in error.errors(include_url=False):
        path = [part for part in item["loc"] if not (isinstance(part, str) and ("[" in part or "-" in part))]
        dotted = ".".join(str(part) for part in ([where] if where else []) + path)
        if item["type"] == "extra_forbidden":
            fields = _fields_at(model, path[:-1])
            lines.append(f"{dotted}: unknown key; {nearest(str(path[-1]), fields, what='key')}")
        elif item["type"] == "missing":
            lines.append(f"{dotted}: missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            given = (
                ""
                if item["type"] == "secret" or isinstance(item["input"], dict | BaseModel)
                else f", got {item['input']!r}"
            )
            lines.append(f"{dotted}: {message}{given}" if dotted else f"{message}{given}")
    return list(dict.fromkeys(lines))


def _fields_at(model: type[BaseModel], path: list[int | str]) -> list[str]:
    """Names of the fields of the (sub)model that a path of field names leads to."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = [t for t in _types_in(field.annotation) if issubclass(t, BaseModel)] if field else []
        if not inner:
            break
        model = inner[0]
    return list(model.model_fields)


def _types_in(annotation: Any) -> list[type]:
    """The classes named anywhere in an annotation such as `Cosine | Step | None`."""
    arguments = getattr(annotation, "__args__", ())
    if arguments:
        return [t for argument in arguments for t in _types_in(argument)]
    return [annotation] if inspect.isclass(annotation) else []
